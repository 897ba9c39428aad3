"""Packs frames into tar shards."""
