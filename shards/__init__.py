"""Packs videos into tar shards and reads clips from them. Knows bytes, order and manifests, but not
what a model does with clips."""

from shards.errors import DataError

__all__ = ["DataError"]
