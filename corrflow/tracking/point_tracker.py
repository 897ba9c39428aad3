"""Tracks points through a whole video. The passes over the video are in `tracker.py`.

Shapes: k points.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corrflow.model import CorrFlow
from corrflow.propagation import TrackedPoints, stream_points
from corrflow.scale import Points, Scale
from corrflow.tracking.plan import Plan
from corrflow.tracking.tracker import Tracker


class PointTracker(Tracker[Points, Tensor, TrackedPoints, TrackedPoints]):
    """Tracks points that are marked as `[k, 2]` in some frames, and yields TrackedPoints for each
    frame. A point that is not marked in a frame is NaN there."""

    def __init__(
        self,
        model: CorrFlow,
        scale: Scale,
        given: Mapping[int, Points],
        protocol: str,
        plan: Plan,
        previous: Mapping[int, TrackedPoints] = MappingProxyType({}),
    ) -> None:
        super().__init__(model, scale, given, protocol, plan, previous)
        indices = np.array(sorted(given))
        is_marked = [~np.isnan(given[index][:, 0]) for index in indices]
        self.begins = indices[np.argmax(is_marked, axis=0)]

    @property
    def numbers(self) -> Set[int]:
        """The numbers of all points, from 1."""
        return set(range(1, len(self.begins) + 1))

    def propagate(
        self, frames: Iterable[Tensor], given: Mapping[int, Tensor]
    ) -> Iterator[TrackedPoints]:
        """Propagate points, in pixels of the tracked size, through the frames."""
        return stream_points(self.model, frames, given, self.protocol)

    def to_tracked_size(self, index: int, marks: Points | None) -> Tensor | None:
        """Convert the marks to pixels of the tracked size; None if no point is marked."""
        if marks is None or np.isnan(marks).all():
            return None
        return torch.from_numpy(self.scale.points(marks))

    def nothing(self) -> TrackedPoints:
        """Points that are all NaN."""
        return from_rows(nowhere(len(self.begins)))

    def more_confident(
        self, one: TrackedPoints, other: TrackedPoints, weight: float = 0.5
    ) -> TrackedPoints:
        """Take each point from the pass that is more confident of it, or from the one that found
        it."""
        is_one = (1 - weight) * one.confidence >= weight * other.confidence
        is_one |= other.xy[:, 0].isnan()
        is_one &= ~one.xy[:, 0].isnan()
        return from_rows(np.where(is_one[:, None].numpy(), as_rows(one), as_rows(other)))

    def first_marked_after(self, index: int) -> Set[int]:
        """The numbers, from 1, of the points that are first marked in a later frame."""
        return {n for n, begin in enumerate(self.begins.tolist(), 1) if begin > index}

    def without(self, raw: TrackedPoints, absent: Set[int]) -> TrackedPoints:
        """Set some of the points to NaN."""
        rows = as_rows(raw).copy()
        rows[[n - 1 for n in absent]] = nowhere(len(absent))
        return from_rows(rows)

    def at_video_size(self, raw: TrackedPoints) -> TrackedPoints:
        """Convert the points to pixels of the video's size."""
        rows = as_rows(raw).copy()
        rows[:, :2] = self.scale.points_back(rows[:, :2])
        return from_rows(rows)

    def merged(self, others: TrackedPoints, found: TrackedPoints) -> TrackedPoints:
        """Take each point from `found`, or from `others` where it is NaN."""
        is_found = ~found.xy[:, :1].isnan().numpy()
        return from_rows(np.where(is_found, as_rows(found), as_rows(others)))

    def cleared(self, result: TrackedPoints, absent: Set[int]) -> TrackedPoints:
        """Set some of the points to NaN."""
        return self.without(result, absent)

    def with_marks(self, index: int, result: TrackedPoints) -> TrackedPoints:
        """Put marked points exactly where they are marked, visible and with confidence 1."""
        if index not in self.given:
            return result
        marked = self.given[index]
        certain = np.concatenate([marked, np.ones_like(marked)], axis=1)
        return from_rows(np.where(np.isnan(marked[:, :1]), as_rows(result), certain))

    def marks_of(self, result: TrackedPoints) -> Points:
        """The visible points; the others are NaN, as their true positions are not known."""
        rows = as_rows(result)
        return np.where(rows[:, 2:3] > 0.5, rows[:, :2], np.float32(np.nan))

    def pack(self, raw: TrackedPoints) -> bytes:
        """Serialize the points, 16 bytes each."""
        return as_rows(raw).tobytes()

    def unpack(self, packed: bytes) -> TrackedPoints:
        """The inverse of `pack`."""
        return from_rows(np.frombuffer(packed, np.float32).reshape(-1, 4).copy())


def as_rows(located: TrackedPoints) -> NDArray[np.float32]:
    """Points as rows of x, y, visible, confidence: float32 `[k, 4]`."""
    parts = (located.xy, located.visible[:, None], located.confidence[:, None])
    return torch.cat([part.float().cpu() for part in parts], dim=1).numpy()


def from_rows(rows_k4: NDArray[np.float32]) -> TrackedPoints:
    """The inverse of `as_rows`."""
    rows = torch.from_numpy(np.ascontiguousarray(rows_k4, np.float32))
    return TrackedPoints(rows[:, :2], rows[:, 2] > 0.5, rows[:, 3])


def nowhere(count: int) -> NDArray[np.float32]:
    """Rows of points that have no position: NaN, not visible, confidence 0."""
    return np.tile(np.array([np.nan, np.nan, 0, 0], np.float32), (count, 1))
