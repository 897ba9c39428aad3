"""Chooses the frames of a tracked video that a person should look at first."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NEAREST = 5  # least distance of two chosen frames: closer ones show the same mistake


class FrameToReview(NamedTuple):
    """A frame that may be tracked wrongly."""

    frame_index: int
    """The frame index, from 0."""
    confidence: float
    """The lowest confidence of its objects or points; 0 if one of them was lost."""


class ReviewList:
    """Collects the confidence of each frame: the lowest of the objects or points seen so far."""

    def __init__(self) -> None:
        self.confidence: list[float] = []
        self.seen: NDArray[np.bool_] | None = None

    def add(self, confidence: NDArray[np.float32]) -> None:
        """Add the next frame: the confidence of each object or point, `[n]`, 0 for those that are
        not in it."""
        here = confidence > 0
        self.seen = here if self.seen is None else self.seen | here
        known = confidence[self.seen]
        self.confidence.append(float(known.min()) if known.size else 1.0)

    def choose(self, count: int) -> list[FrameToReview]:
        """At most `count` frames, the least confident first."""
        return frames_to_review(self.confidence, count)


def frames_to_review(confidence: Sequence[float], count: int) -> list[FrameToReview]:
    """Choose the frames of the lowest confidence, the lowest first.

    They are at least `NEAREST` frames apart, and further in a long video, so that they show
    different mistakes. Of equally confident frames the earliest is taken. Frames of confidence 1
    are never chosen.
    """
    apart = max(NEAREST, len(confidence) // (2 * max(count, 1)))
    chosen: list[FrameToReview] = []
    for index in np.argsort(confidence, kind="stable").tolist():
        if len(chosen) == count or confidence[index] >= 1:
            break
        if all(abs(index - other.frame_index) >= apart for other in chosen):
            chosen.append(FrameToReview(index, confidence[index]))
    return chosen
