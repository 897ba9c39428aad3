"""Processes, signals, jobs: submits and survives, and knows nothing of models or videos."""

from slurm.errors import ClusterError

__all__ = ["ClusterError"]
