"""A measure over time to mean, recall and decay, as the DAVIS benchmark does; means of what is
defined, and how far chance may move them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RECALL_THRESHOLD = 0.5
DECAY_QUARTERS = 4
RESAMPLES = 10_000
CONFIDENCE = 0.95


class Statistics(NamedTuple):
    """Mean; share of frames above 0.5; mean of the first quarter less mean of the last."""

    mean: float
    recall: float
    decay: float


class Interval(NamedTuple):
    """A mean, and where it would lie with other samples."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether it is more than chance that the mean is not 0."""
        return self.low > 0 or self.high < 0


def summarise(values: ArrayLike) -> Statistics:
    """The three statistics of one object's measure over the frames that count, in order; NaN when
    there is none."""
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
    """Over the first axis of `[N, ...]`, of what is not NaN; NaN where nothing is."""
    values = np.asarray(rows, dtype=np.float64)
    count = np.asarray((~np.isnan(values)).sum(axis=0))
    return np.asarray(np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan))


def mean(values: ArrayLike) -> float:
    """Of those values `[N]` that are not NaN; NaN where none is."""
    return float(mean_over(values))


def bootstrap_mean(values: ArrayLike) -> Interval:
    """Mean of the values `[N]` that are not NaN, with its 95 % interval by the percentile
    bootstrap: what the mean would be had others of their kind been drawn. The same values give the
    same interval; NaN where fewer than two are defined."""
    sample = np.asarray(values, dtype=np.float64)
    sample = sample[~np.isnan(sample)]
    if sample.size < 2:
        return Interval(mean(sample), np.nan, np.nan)
    draws = np.random.default_rng(0).choice(sample, (RESAMPLES, sample.size))
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws.mean(axis=1), (outside, 1 - outside))
    return Interval(float(sample.mean()), float(low), float(high))
