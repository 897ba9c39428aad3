"""Benchmarks of speed, compared with the released formulation and with the limits of the
machine."""
