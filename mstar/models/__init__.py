"""Model families: everything that differs from one vision-language architecture to the next, as tensors.

Reading order: ``family`` (what a family promises, and which module serves a folder), ``native`` (what every
architecture that transformers knows shares), ``qwen_vl`` and ``generic`` (what they differ in), ``weights`` (a model
folder becomes a module), ``prm`` (the process reward model).
"""
