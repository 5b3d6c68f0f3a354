"""M-STaR: multimodal self-evolving training for reasoning (arXiv 2412.17451), as a batch system.

Reading order: ``core`` (the algorithm), ``errors``, ``config`` (what a person writes), ``tasks`` (what one
step does), ``recipe`` (which step comes next), ``storage``, ``data``, ``models``, ``stages``, ``executors``,
``controller``, ``report``, ``demo``.
"""

__version__ = "0.1.0"
