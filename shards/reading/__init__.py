"""Reads clips from tar shards, in a fixed order."""
