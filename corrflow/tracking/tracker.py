"""What a user marks, through a whole video: from any frame on, and backwards. Hops from frame to
frame are in `propagation`, files in `recording.py`.

Backwards means: an object or a point that is first marked in frame t is followed from t down to
frame 0 as well. What is shown of it comes from there in the frames before t, and from the forward
pass from t on.

Shapes: h w pixels of the tracked size, H W of the video's, k points.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corrflow.errors import InputError
from corrflow.model import CorrFlow
from corrflow.pictures import Pixels
from corrflow.propagation import TrackedMasks, TrackedPoints, stream_masks, stream_points
from corrflow.scale import Points, Scale
from corrflow.tracking.disk_buffer import (
    DiskBuffer,
    pack_frame,
    pack_labels,
    unpack_frame,
    unpack_labels,
)

Result = TypeVar("Result")  # of a frame at the video's size
Raw = TypeVar("Raw")  # of a frame at the tracked size, as `propagation` gives it
MOST_LABELS = 256  # with the background
Reported = Callable[[Iterable[Pixels], str], Iterable[Pixels]]  # shows how far the frames are


class Tracker(ABC, Generic[Raw, Result]):
    """Follows what was marked in some frames; call `track_backward` first if it is to be followed
    backwards too."""

    def __init__(
        self, model: CorrFlow, scale: Scale, given: Mapping[int, Pixels | Points], protocol: str
    ) -> None:
        self.model, self.scale, self.protocol = model, scale, protocol
        self.first, self.latest = min(given), max(given)
        self.earlier: DiskBuffer | None = None
        self.newest = self.latest
        """The last frame in which something is marked for the first time."""

    def track(self, frames: Iterable[Pixels]) -> Iterator[Result]:
        """What is where, for each frame `[H, W, 3]` of the video from its first on. Takes as many
        frames as it gives, but for a few."""
        waiting = iter(frames)
        for number, _ in enumerate(islice(waiting, self.first)):
            yield self.merged(number, None)
        ahead = self.run(
            map(self.to_tensor, map(self.scale.frame, waiting)), lambda number: number - self.first
        )
        for number, raw in enumerate(ahead, self.first):
            yield self.merged(number, raw)

    def track_backward(
        self, frames: Iterable[Pixels], folder: Path, report: Reported
    ) -> DiskBuffer:
        """Follow what is marked down to frame 0, and keep the result, to be closed by the caller.

        Args:
            frames: of the video, from its first on.
            folder: gets a temporary file of the frames up to the last one that is needed, at the
                tracked size, as JPEG.
            report: shows progress.
        """
        last = self.newest
        with DiskBuffer(folder) as spool:
            for frame in report(islice(frames, last + 1), "reading"):
                spool.append(pack_frame(self.scale.frame(frame)))
            check_reached(last, len(spool))
            backwards = report(
                (unpack_frame(spool[number]) for number in range(last, -1, -1)), "backward"
            )
            self.earlier = DiskBuffer(folder)
            for raw in self.run(map(self.to_tensor, backwards), lambda number: last - number):
                self.earlier.append(self.pack(raw))
        return self.earlier

    def before(self, number: int) -> Raw | None:
        """What the backward pass found for a frame."""
        if self.earlier is None or number > self.newest:
            return None
        return self.unpack(self.earlier[self.newest - number])

    def to_tensor(self, frame_hw3: Pixels) -> Tensor:
        """`[3, h, w]`."""
        return torch.from_numpy(frame_hw3).movedim(-1, 0)

    @abstractmethod
    def run(self, frames: Iterable[Tensor], renumber: Callable[[int], int]) -> Iterator[Raw]:
        """Propagate; what is marked in frame n of the video counts for frame `renumber(n)` of
        these, if that is not negative."""

    @abstractmethod
    def merged(self, number: int, raw: Raw | None) -> Result:
        """What is shown in a frame: what the forward pass found, if it came there, what the
        backward pass found, and what was marked."""

    @abstractmethod
    def pack(self, raw: Raw) -> bytes:
        """To be put on disk."""

    @abstractmethod
    def unpack(self, packed: bytes) -> Raw:
        """And back."""


class FrameMasks(NamedTuple):
    """Objects in one frame of the video."""

    labels: Pixels
    """`[H, W]`"""
    confidence: NDArray[np.float32]
    """`[256]`, of each object by its number: as `TrackedMasks`."""


class MaskTracker(Tracker[TrackedMasks, FrameMasks]):
    """Follows objects, marked in masks `[H, W]`; gives FrameMasks for each frame."""

    def __init__(
        self, model: CorrFlow, scale: Scale, given: Mapping[int, Pixels], protocol: str
    ) -> None:
        super().__init__(model, scale, given, protocol)
        self.given = given
        self.begins = {
            int(label): number
            for number in sorted(given, reverse=True)
            for label in np.unique(given[number])
            if label
        }
        self.newest = max(self.begins.values())
        for number, labels_hw in given.items():
            if lost := set(np.unique(labels_hw)) - set(np.unique(scale.shrink(labels_hw))):
                size = min(scale.tracked)
                raise InputError(
                    f"object {min(lost)} of frame {number} has no pixel left at size {size}: "
                    "expected a larger object or size"
                )

    def run(
        self, frames: Iterable[Tensor], renumber: Callable[[int], int]
    ) -> Iterator[TrackedMasks]:
        """Labels `[h, w]` of the tracked frame."""
        labels = {
            renumber(number): torch.from_numpy(self.scale.shrink(self.given[number]))
            for number in self.given
        }
        return stream_masks(
            self.model,
            frames,
            {number: mask for number, mask in labels.items() if number >= 0},
            self.protocol,
        )

    def merged(self, number: int, raw: TrackedMasks | None) -> FrameMasks:
        """At the video's size; objects of a mask that is given have its very pixels."""
        small = np.zeros(self.scale.tracked[::-1], np.uint8)
        confidence = np.zeros(MOST_LABELS, np.float32)
        if raw is not None:
            small, confidence = raw.labels.numpy(), raw.confidence.numpy().copy()
        if (back := self.before(number)) is not None:
            late = [label for label, begin in self.begins.items() if begin > number]
            earlier = back.labels.numpy()
            small = np.where(np.isin(earlier, late) & (small == 0), earlier, small)
            confidence[late] = back.confidence.numpy()[late]
        labels_hw = self.scale.enlarge(small)
        if number in self.given:
            marked = self.given[number]
            objects = np.unique(marked[marked > 0])
            labels_hw[np.isin(labels_hw, objects)] = 0
            labels_hw = np.where(marked > 0, marked, labels_hw)
            confidence[objects] = 1
        areas = np.bincount(labels_hw.reshape(-1), minlength=MOST_LABELS)
        return FrameMasks(labels_hw, np.where(areas > 0, confidence, np.float32(0)))

    def pack(self, raw: TrackedMasks) -> bytes:
        """Confidences, and labels compressed."""
        return raw.confidence.numpy().tobytes() + pack_labels(raw.labels.numpy())

    def unpack(self, packed: bytes) -> TrackedMasks:
        """And back."""
        end = 4 * MOST_LABELS
        confidence = torch.from_numpy(np.frombuffer(packed[:end], np.float32).copy())
        labels_hw = unpack_labels(packed[end:], self.scale.tracked[::-1])
        return TrackedMasks(torch.from_numpy(labels_hw), confidence)


class PointTracker(Tracker[TrackedPoints, TrackedPoints]):
    """Follows points, marked in frames as `[k, 2]`, NaN for those that are marked in others; gives
    TrackedPoints for each frame."""

    def __init__(
        self, model: CorrFlow, scale: Scale, given: Mapping[int, Points], protocol: str
    ) -> None:
        super().__init__(model, scale, given, protocol)
        self.given = given
        frames = np.array(sorted(given))
        self.begins = frames[
            np.argmax([~np.isnan(given[number][:, 0]) for number in frames], axis=0)
        ]
        self.newest = int(self.begins.max())

    def run(
        self, frames: Iterable[Tensor], renumber: Callable[[int], int]
    ) -> Iterator[TrackedPoints]:
        """Places in the tracked frame."""
        points = {
            renumber(number): torch.from_numpy(self.scale.inward(xy_k2))
            for number, xy_k2 in self.given.items()
        }
        return stream_points(
            self.model,
            frames,
            {number: xy for number, xy in points.items() if number >= 0},
            self.protocol,
        )

    def merged(self, number: int, raw: TrackedPoints | None) -> TrackedPoints:
        """Places in the video; those that are given as they are."""
        rows = as_rows(raw) if raw is not None else absent(len(self.begins))
        if (back := self.before(number)) is not None:
            rows = np.where((self.begins > number)[:, None], as_rows(back), rows)
        rows[:, :2] = self.scale.outward(rows[:, :2])
        if number in self.given:
            marked = self.given[number]
            rows = np.where(
                np.isnan(marked[:, :1]),
                rows,
                np.concatenate([marked, np.ones_like(marked)], axis=1),
            )
        return from_rows(rows)

    def pack(self, raw: TrackedPoints) -> bytes:
        """16 for each point."""
        return as_rows(raw).tobytes()

    def unpack(self, packed: bytes) -> TrackedPoints:
        """And back."""
        return from_rows(np.frombuffer(packed, np.float32).reshape(-1, 4).copy())


def as_rows(located: TrackedPoints) -> NDArray[np.float32]:
    """x, y, visible, confidence: float32 `[k, 4]`."""
    parts = (located.xy, located.visible[:, None], located.confidence[:, None])
    return torch.cat([part.float().cpu() for part in parts], dim=1).numpy()


def from_rows(rows_k4: NDArray[np.float32]) -> TrackedPoints:
    """And back."""
    rows = torch.from_numpy(np.ascontiguousarray(rows_k4, np.float32))
    return TrackedPoints(rows[:, :2], rows[:, 2] > 0.5, rows[:, 3])


def absent(count: int) -> NDArray[np.float32]:
    """Rows of points that are nowhere yet."""
    return np.tile(np.array([np.nan, np.nan, 0, 0], np.float32), (count, 1))


def check_reached(number: int, count: int) -> None:
    """InputError if a video of `count` frames has no frame of that number."""
    if number >= count:
        raise InputError(f"frame {number}: the video has {count} frames: expected 0 to {count - 1}")
