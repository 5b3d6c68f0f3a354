"""Model families: everything that differs from one vision-language architecture to the next, as tensors.

Reading order: ``family`` (what a family promises, and which module serves a folder), ``native`` (what every
architecture that transformers knows shares), ``sized`` (image tokens told from an image's size), then one module a
family: ``qwen2_vl``, ``qwen2_5_vl`` and ``qwen3_vl`` (over ``qwen_vl``), ``internvl``, ``smolvlm``,
``llava_onevision``, and ``generic`` for what has none; ``weights`` (a model folder becomes a module), ``prm`` (the
process reward model).
"""
