"""The algorithm and nothing else: standard library, deterministic, no I/O, clock or global random state.

Reading order: ``records`` (what everything talks about), ``seeds`` (every random choice), ``numerals`` and ``answers``
(is it right), ``steps`` and ``reward`` (how good is it), ``selection`` (what training keeps), ``prm_data`` (what the
process reward model learns from), ``voting`` (it as a verifier), ``metrics`` (what is measured), ``exploration`` (the
next temperature), ``schedule`` (the next queries).
"""
