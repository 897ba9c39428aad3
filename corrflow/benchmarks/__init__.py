"""Benchmarks: one file per data set reads and scores it; `registry.py` finds them by name, and
`evaluation.py` runs them as planned by `plan.py`."""
