"""Measures as the benchmarks define them, exact and vectorised. Which frames and objects are scored
is decided in `benchmarks/`."""

from corrflow.metrics.keypoints import box_scale, keypoint_hits
from corrflow.metrics.masks import boundary_accuracy, boundary_map, region_similarity
from corrflow.metrics.parts import average_precision, class_areas, instance_overlaps, mean_iou
from corrflow.metrics.statistics import (
    Interval,
    Statistics,
    bootstrap_mean,
    mean,
    mean_over,
    summarise,
)
from corrflow.metrics.tracks import track_figures, track_scores

__all__ = [
    "Interval",
    "Statistics",
    "average_precision",
    "bootstrap_mean",
    "boundary_accuracy",
    "boundary_map",
    "box_scale",
    "class_areas",
    "instance_overlaps",
    "keypoint_hits",
    "mean",
    "mean_iou",
    "mean_over",
    "region_similarity",
    "summarise",
    "track_figures",
    "track_scores",
]
