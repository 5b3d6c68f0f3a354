"""Engines behind the stages' protocols: with ``models``, the only place where torch is imported.

Reading order: ``transformers_sampler`` over ``decoding`` (``draws``, ``cache``, ``roomy``, ``attention``) or
``recomputing``; ``vllm_sampler`` over ``vllm_pool``, ``vllm_worker`` and ``vllm_engine``; ``transformers_scorer`` over
``shared``; ``launch`` and ``accelerate_trainer`` over ``objectives``, ``order``, ``session``, ``checkpoint`` and
``keeping``; ``rank``, ``ranks`` and ``handover`` for training in several processes. ``encoding`` and ``runtime`` serve
all. ``modelcheck`` looks whether a model's folder works with them.
"""
