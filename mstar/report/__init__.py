"""Runs as one self-contained HTML page: what was gained, how, at what cost, and the responses themselves.

Reading order: ``views`` (what a report knows of a run), ``collect`` (from the store), ``table`` (the final comparison,
``results.json``), ``responses`` (what the browser of responses shows), ``markup`` (HTML that escapes), ``scale`` and
``charts`` (numbers to SVG), ``figures`` (a chart with its legend and its numbers), ``document`` (a page around
sections), ``browser`` and the modules of the sections (the parts of the page), ``page`` (the whole; ``write_report``).
"""
