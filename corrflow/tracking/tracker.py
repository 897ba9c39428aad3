"""Tracks what a user marks through a whole video, with forward and backward passes.

Forward passes start at marked frames, backward passes at frames in which everything is marked.
Where two passes go through a frame, each object is taken from the one that is more confident, with
confidence weighted by how near the pass began. Propagation from frame to frame is in `propagation`,
the choice of frames in `plan.py`, files in `recording.py`.

Shapes: h w pixels at the tracked size, H W pixels at the video's size, k points.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from corrflow.errors import InputError
from corrflow.model import CorrFlow
from corrflow.pictures import Pixels
from corrflow.scale import Scale
from corrflow.tracking.disk_buffer import (
    DiskBuffer,
    pack_frame,
    unpack_frame,
)
from corrflow.tracking.plan import Plan

Marks = TypeVar("Marks", bound=NDArray[Any])  # of a frame of the video: a mask, or points
Known = TypeVar("Known")  # marks of a frame at the tracked size, the input of `propagation`
Result = TypeVar("Result")  # what was found in a frame, at the video's size
Raw = TypeVar("Raw")  # what was found in a frame at the tracked size, the output of `propagation`
ProgressReporter = Callable[[Iterable[Pixels], int, str], Iterable[Pixels]]
"""Passes frames through and shows a progress bar; takes the frames, their count and a title."""


class Tracker(ABC, Generic[Marks, Known, Raw, Result]):
    """Tracks what is marked in some frames. If the plan has backward passes, call `track_backward`
    first."""

    def __init__(
        self,
        model: CorrFlow,
        scale: Scale,
        given: Mapping[int, Marks],
        protocol: str,
        plan: Plan,
        previous: Mapping[int, Result] = MappingProxyType({}),
    ) -> None:
        """Set up a tracker.

        Args:
            model: the model that propagates labels.
            scale: the video's size and the tracked size.
            given: what is marked, by frame index.
            protocol: name of a protocol of `propagation`.
            plan: which frames are tracked.
            previous: results of an earlier tracking, by frame index. Frames that are not tracked
                show these; without one they show nothing.
        """
        self.model, self.scale, self.given, self.protocol = model, scale, given, protocol
        self.plan, self.previous = plan, previous
        self.marked: Set[int] = given.keys()
        self.first, self.latest = min(given), max(given)
        self.backward: DiskBuffer | None = None
        self.ahead: DiskBuffer | None = None

    def track(self, frames: Iterable[Pixels]) -> Iterator[Result]:
        """Yield a result for each frame `[H, W, 3]` of the video from frame 0 on. Reads at most a
        few frames ahead."""
        if self.ahead is None:
            return itertools.starmap(self.result, enumerate(self.forward(frames)))
        stored = (self.stored(self.ahead, index) for index, _ in enumerate(frames))
        return itertools.starmap(self.result, enumerate(stored))

    def track_backward(
        self, frames: Iterable[Pixels], folder: Path, report: ProgressReporter
    ) -> DiskBuffer:
        """Run the backward passes and keep their results for `track`.

        A pass is left out if the video can't be read as far as the frame in which it begins.

        Args:
            frames: all frames of the video, from frame 0 on.
            folder: gets temporary files: the frames of the passes, as JPEG at the tracked size, and
                what is found in them.
            report: shows progress.

        Returns:
            The buffer of the results, which the caller closes.
        """
        self.backward = DiskBuffer(folder)
        passes = [indices for span in self.plan.spans for indices in span.backward]
        needed = {index for indices in passes for index in indices}
        with DiskBuffer(folder) as spool:
            count = max(needed) + 1
            reading = report(islice(frames, count), count, "reading")
            for index, frame in enumerate(reading):
                if index in needed:
                    spool[index] = pack_frame(self.scale.frame(frame))
            passes = [indices for indices in passes if indices.start in spool]
            order = [index for indices in passes for index in indices]
            spooled = (unpack_frame(spool[index]) for index in order)
            passed = iter(report(spooled, len(order), "backward"))
            for indices in passes:
                known = {
                    number: self.known(index)
                    for number, index in enumerate(indices)
                    if not number or index in self.marked
                }
                found = self.run(islice(passed, len(indices)), known)
                for index, raw in zip(indices, found, strict=True):
                    self.backward[index] = self.pack(raw)
        return self.backward

    def track_ahead(self, frames: Iterable[Pixels], folder: Path) -> DiskBuffer:
        """Run the forward passes before `track` yields any result, so that an interrupted run
        leaves the earlier result as it was.

        Returns:
            The buffer of the results, which the caller closes.
        """
        self.ahead = DiskBuffer(folder)
        for index, raw in enumerate(self.forward(islice(frames, self.plan.stop))):
            if raw is not None:
                self.ahead[index] = self.pack(raw)
        return self.ahead

    def forward(self, frames: Iterable[Pixels]) -> Iterator[Raw | None]:
        """Yield what the forward passes find in each frame; None for a frame without a pass."""
        waiting = iter(frames)
        index = 0
        for span in self.plan.spans:
            known = {p: self.known(p) for p in {span.first, *self.marked} if span.holds(p)}
            begin = min((p for p, marks in known.items() if marks is not None), default=span.stop)
            for _ in islice(waiting, None if begin is None else begin - index):
                yield None
            index = begin or index
            if begin is None or begin == span.stop:
                continue  # nothing is known
            inside = islice(waiting, None if span.stop is None else span.stop - begin)
            shifted = {p - begin: marks for p, marks in known.items()}
            yield from self.run(map(self.scale.frame, inside), shifted)
            index = span.stop or begin
        yield from (None for _ in waiting)

    def result(self, index: int, raw: Raw | None) -> Result:
        """The result for a frame.

        Args:
            index: the frame index.
            raw: what the forward pass found, or None if there was none.
        """
        if index in self.previous and not self.plan.is_tracked(index):
            return self.previous[index]
        if index in self.plan.corrected and index in self.previous:
            return self.corrected(index)
        found = self.nothing() if raw is None else self.more_confident(self.nothing(), raw)
        backward = self.stored(self.backward, index)
        if backward is not None:
            found = self.more_confident(
                found, backward, 0.5 if raw is None else self.nearness(index)
            )
        if not self.plan.to_beginning:
            found = self.without(found, self.first_marked_after(index))
        if index in self.previous:
            # objects that were not corrected stay as they were
            others = self.cleared(self.previous[index], self.plan.changed)
            found = self.without(found, self.numbers - self.plan.changed)
            return self.with_marks(index, self.merged(others, self.at_video_size(found)))
        return self.with_marks(index, self.at_video_size(found))

    def nearness(self, index: int) -> float:
        """How near a frame is to the one in which the backward pass through it begins: 0 where the
        forward pass is certain, 1 where the backward pass is.

        A pass that has drifted may still be confident, so confidence and nearness together judge
        better than either of them alone.
        """
        for indices in (indices for span in self.plan.spans for indices in span.backward):
            if index in indices:
                return (index - indices.stop) / (indices.start - indices.stop)
        raise ValueError(f"frame {index}: expected one with a backward pass")

    def stored(self, buffer: DiskBuffer | None, index: int) -> Raw | None:
        """What a pass found in a frame; None if there is no result for it."""
        return self.unpack(buffer[index]) if buffer is not None and index in buffer else None

    def known(self, index: int) -> Known | None:
        """What is known about a frame, at the tracked size: its marks and, in a correction, what
        the earlier tracking found of the objects that are not corrected."""
        if index in self.previous:
            return self.to_tracked_size(index, self.marks_of(self.corrected(index)))
        return self.to_tracked_size(index, self.given.get(index))

    def corrected(self, index: int) -> Result:
        """The earlier result for a frame, with the corrected objects replaced by their marks."""
        return self.with_marks(index, self.cleared(self.previous[index], self.plan.changed))

    def run(self, frames: Iterable[Pixels], known: Mapping[int, Known | None]) -> Iterator[Raw]:
        """Propagate what is known through frames `[h, w, 3]`, which may go forward or backward in
        time; `known` is indexed by position in `frames`."""
        given = {number: marks for number, marks in known.items() if marks is not None}
        if not given:
            return (self.nothing() for _ in frames)
        return self.propagate(map(to_tensor, frames), given)

    @property
    @abstractmethod
    def numbers(self) -> Set[int]:
        """The numbers of all objects or points that are marked in any frame."""

    @abstractmethod
    def propagate(self, frames: Iterable[Tensor], given: Mapping[int, Known]) -> Iterator[Raw]:
        """Run `propagation` on frames `[3, h, w]`."""

    @abstractmethod
    def to_tracked_size(self, index: int, marks: Marks | None) -> Known | None:
        """Resize the marks of a frame to the tracked size; None if nothing is left of them."""

    @abstractmethod
    def nothing(self) -> Raw:
        """The result for a frame in which nothing is found."""

    @abstractmethod
    def more_confident(self, one: Raw, other: Raw, weight: float = 0.5) -> Raw:
        """Take each object or point from the pass that is more confident of it; `weight` is that of
        the confidence of `other`, from 0 to 1."""

    @abstractmethod
    def first_marked_after(self, index: int) -> Set[int]:
        """The objects or points that are first marked in a later frame."""

    @abstractmethod
    def without(self, raw: Raw, absent: Set[int]) -> Raw:
        """Remove some of the objects or points from what was found."""

    @abstractmethod
    def at_video_size(self, raw: Raw) -> Result:
        """Convert what was found in a frame to the video's size."""

    @abstractmethod
    def merged(self, others: Result, found: Result) -> Result:
        """Combine two results for a frame, of different objects or points."""

    @abstractmethod
    def cleared(self, result: Result, absent: Set[int]) -> Result:
        """Remove some of the objects or points from a result."""

    @abstractmethod
    def with_marks(self, index: int, result: Result) -> Result:
        """Put what is marked in a frame into its result."""

    @abstractmethod
    def marks_of(self, result: Result) -> Marks:
        """Convert a result to marks."""

    @abstractmethod
    def pack(self, raw: Raw) -> bytes:
        """Serialize what was found in a frame."""

    @abstractmethod
    def unpack(self, packed: bytes) -> Raw:
        """The inverse of `pack`."""


def to_tensor(frame_hw3: Pixels) -> Tensor:
    """Convert a frame to a tensor `[3, h, w]`."""
    return torch.from_numpy(frame_hw3).movedim(-1, 0)


def check_reached(number: int, count: int) -> None:
    """Raise InputError if a video of `count` frames has no frame of that number."""
    if number >= count:
        raise InputError(f"frame {number}: the video has {count} frames: expected 0 to {count - 1}")
