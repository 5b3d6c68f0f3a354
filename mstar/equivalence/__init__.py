"""Are two expressions the same mathematics? math-verify, in worker processes that can be killed.

In reading order: ``asking`` (what is worth asking, and as which LaTeX), ``worker`` (the process that knows the
library), ``pool`` (workers with a deadline a question, from any thread), ``checking`` (typed checks first, this last).
"""
