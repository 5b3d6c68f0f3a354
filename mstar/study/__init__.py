"""A grid of recipes, bases and seeds: run it, gather what came out, and say how sure one can be of each difference.

Reading order: ``spec`` (the study file), ``grid`` (its cells, and the run of each), ``board`` and ``runner`` (cells
at work, and how long is left), ``records`` (what is kept of a finished cell), ``collect`` (from the store to a
record), ``results`` (``study.json``, over sittings and machines), ``compare`` and ``summary`` (rows with their
intervals), ``tables``, ``curves`` and ``page`` (``study.html``).
"""
