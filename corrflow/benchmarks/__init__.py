"""Benchmarks: a file each reads a data set and scores it; `registry.py` knows them by name,
`evaluation.py` runs any, by a `plan.py`."""
