"""Engines behind the stages' protocols: with ``models``, the only place where torch is imported.

Reading order: ``transformers_sampler`` over ``decoding`` (``draws``, ``cache``, ``roomy``, ``attention``)
or ``recomputing``;
``transformers_scorer``; ``launch`` and ``accelerate_trainer`` over ``objectives``, ``order``, ``session``,
``checkpoint`` and ``keeping``; ``rank``, ``ranks`` and ``handover`` for training in several processes. ``encoding`` and
``runtime`` serve all. ``modelcheck`` looks whether a model's folder works with them.
"""
