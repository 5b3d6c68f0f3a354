"""Advances a run: observe, decide, apply.

Read ``decide`` (every transition, pure), ``prepare`` (a spec becomes
a run; ``folders`` looks at its models), ``loop`` (the effects; ``wording`` is what it says of a failure), ``status``
(what a run looks like from outside).
"""
