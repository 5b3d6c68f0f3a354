"""Advances a run: observe, decide, apply.

Read ``decide`` (every transition, pure), ``prepare`` (a spec becomes
a run), ``loop`` (the effects), ``status`` (what a run looks like from outside).
"""
