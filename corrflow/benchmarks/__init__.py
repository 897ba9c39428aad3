"""Benchmarks: reading the data set, scoring, running. `davis.py` is the one there is; `evaluation.py` runs any of them, by a `plan.py`."""
