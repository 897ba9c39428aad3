"""Processes, signals and SLURM jobs; knows nothing of models or videos."""

from slurm.errors import ClusterError

__all__ = ["ClusterError"]
