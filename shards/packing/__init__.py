"""Frames to tar shards."""
