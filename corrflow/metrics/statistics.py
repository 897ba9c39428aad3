"""Mean, recall and decay of a measure over time, as in the DAVIS benchmark; means that ignore NaN,
and their confidence intervals."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RECALL_THRESHOLD = 0.5
DECAY_QUARTERS = 4
RESAMPLES = 10_000
CONFIDENCE = 0.95


class Statistics(NamedTuple):
    """Mean; recall (share of frames above 0.5); decay (mean of the first quarter minus mean of the
    last)."""

    mean: float
    recall: float
    decay: float


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the mean differs significantly from 0."""
        return self.low > 0 or self.high < 0


def summarise(values: ArrayLike) -> Statistics:
    """The statistics of one object's measure over its scored frames, in order; NaN if there are
    none."""
    over_time = np.asarray(values, dtype=np.float64)
    if over_time.size == 0:
        return Statistics(np.nan, np.nan, np.nan)
    # quarters share their border frames; the benchmark's rounding is half to even after adding
    # 1e-10
    borders = np.round(np.linspace(1, len(over_time), DECAY_QUARTERS + 1) + 1e-10).astype(int) - 1
    first, last = over_time[: borders[1] + 1], over_time[borders[-2] : borders[-1] + 1]
    return Statistics(
        float(over_time.mean()),
        float((over_time > RECALL_THRESHOLD).mean()),
        float(first.mean() - last.mean()),
    )


def mean_over(rows: ArrayLike) -> NDArray[np.float64]:
    """Mean over the first axis of `[N, ...]`, ignoring NaN; NaN where all are NaN."""
    values = np.asarray(rows, dtype=np.float64)
    count = np.asarray((~np.isnan(values)).sum(axis=0))
    return np.asarray(np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan))


def mean(values: ArrayLike) -> float:
    """Mean of the values `[N]`, ignoring NaN; NaN if all are NaN."""
    return float(mean_over(values))


def bootstrap_mean(values: ArrayLike) -> Interval:
    """Mean of the values `[N]`, ignoring NaN, with its 95 % confidence interval by the percentile
    bootstrap.

    The same values always give the same interval. It is NaN if fewer than two values are defined.
    """
    sample = np.asarray(values, dtype=np.float64)
    sample = sample[~np.isnan(sample)]
    if sample.size < 2:
        return Interval(mean(sample), np.nan, np.nan)
    draws = np.random.default_rng(0).choice(sample, (RESAMPLES, sample.size))
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws.mean(axis=1), (outside, 1 - outside))
    return Interval(float(sample.mean()), float(low), float(high))
