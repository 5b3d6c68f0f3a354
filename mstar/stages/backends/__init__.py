"""Engines behind the stages' protocols: with ``models``, the only place where torch is imported.

Reading order: ``transformers_sampler`` over ``decoding`` (``draws``, ``cache``, ``attention``), ``transformers_scorer``,
then ``launch``, ``accelerate_trainer`` over ``objectives``, ``order``, ``session`` and ``checkpoint``, and ``rank`` with
``handover`` for training in several processes. ``encoding`` and ``runtime`` serve all of them.
"""
