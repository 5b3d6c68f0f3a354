"""Does mstar work with these weights? Checks of a model folder, each with figures, each on its own where it can be.

Reading order: ``finding`` (what a check says), ``patient`` (the model that is looked at), ``reading`` (what needs no
weights), ``learning`` (loss, batches, gradients, freezing), ``agreeing`` and ``vllm`` (engines against the trainer),
``saving``, ``rewarding`` (a PRM), ``examination`` (all of them, in order).
"""
