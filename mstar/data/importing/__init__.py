"""Other people's data sets become splits that a run reads.

Read ``records``, then what turns a published format into rows (``wording``, ``json_list``, ``mathv360k``, ``tables``,
``fields``), then what is done with rows (``pictures``, ``gallery``, ``sifting``, ``dividing``, ``writing``), and last
``whole``, which does it all in order; ``checking`` looks at splits that are there.
"""
