"""Which frames of a tracked video a person should look at first."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NEAREST = 5  # frames between two that are worth a look: closer ones show the same mistake


class FrameToReview(NamedTuple):
    """A frame that may be wrong."""

    place: int
    """From 0."""
    confidence: float
    """The lowest of its objects or points; 0 where one of them was lost."""


class ReviewList:
    """Collects how sure each frame is, of the objects or points that were seen so far."""

    def __init__(self) -> None:
        self.confidence: list[float] = []
        self.seen: NDArray[np.bool_] | None = None

    def add(self, confidence: NDArray[np.float32]) -> None:
        """The next frame's `[n]`: of each object, 0 for those that are not there."""
        here = confidence > 0
        self.seen = here if self.seen is None else self.seen | here
        known = confidence[self.seen]
        self.confidence.append(float(known.min()) if known.size else 1.0)

    def choose(self, count: int) -> list[FrameToReview]:
        """At most `count` frames, the least sure first."""
        return frames_to_review(self.confidence, count)


def frames_to_review(confidence: Sequence[float], count: int) -> list[FrameToReview]:
    """The frames of the lowest confidence, the lowest first, none within a few frames of another:
    of a long video spread wider, so that they show different mistakes. Of equal ones the earliest;
    none that is certain."""
    apart = max(NEAREST, len(confidence) // (2 * max(count, 1)))
    chosen: list[FrameToReview] = []
    for place in np.argsort(confidence, kind="stable").tolist():
        if len(chosen) == count or confidence[place] >= 1:
            break
        if all(abs(place - other.place) >= apart for other in chosen):
            chosen.append(FrameToReview(place, confidence[place]))
    return chosen
