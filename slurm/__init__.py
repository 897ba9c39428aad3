"""Starts jobs and survives. Knows processes, signals and submitit, nothing of models or data."""
