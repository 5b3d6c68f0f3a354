"""What a run will take before anything runs: GPU-hours, wall time, bytes, cost, and what cannot fit.

In reading order: `ranges`, `assumptions`, `hardware`, `models` (numbers and where they are from), `work` (steps become
counts), `layout` (where they run), `speed`, `memory`, `bill` (counts become time, bytes and cost), `planning` (the
whole). All of these are pure; `folders`, `committed` and `calibration` read what is on the disk and in the store.
"""
