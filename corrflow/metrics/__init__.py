"""J, F and their statistics, as the DAVIS benchmark defines them: exact, vectorised. Which frames count is in `benchmarks/`."""

from corrflow.metrics.masks import boundary_accuracy, boundary_map, region_similarity
from corrflow.metrics.statistics import Statistics, summarise

__all__ = ["Statistics", "boundary_accuracy", "boundary_map", "region_similarity", "summarise"]
