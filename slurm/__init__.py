"""Starts jobs and survives. Knows processes and signals, nothing of models or data."""
