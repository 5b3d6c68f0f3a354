"""Benchmarks, each a ratio against the bare library in the same run. ``python -m bench`` runs all of them."""
