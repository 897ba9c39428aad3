"""Videos to tar shards to clips. Knows bytes, order and manifests, not what a model does with
them."""

from shards.errors import DataError

__all__ = ["DataError"]
