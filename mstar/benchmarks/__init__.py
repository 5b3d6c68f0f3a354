"""Public benchmarks, each read in its published format and judged by its official rule without a language model.

Read ``records``, ``tables`` (files to rows), ``finals`` (which part of a response is its answer), ``options`` (the rule
for choices that most harnesses share), the benchmarks ``mathvista``, ``m3cot``, ``mmstar``, ``mmbench`` and ``ai2d``,
``registry``, ``judge`` (the optional model), ``scoring``, then ``official`` (scores as the official tools print them).
"""
