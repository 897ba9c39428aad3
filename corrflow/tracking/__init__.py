"""Tracks what a user marks through a video of any length, and writes the result files. The label
propagation itself is in `propagation/`."""
