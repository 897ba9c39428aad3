"""Tar shards to clips, in a fixed order."""
