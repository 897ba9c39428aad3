"""Measurements of `launch/bench.py` that need shards and a model at once."""
