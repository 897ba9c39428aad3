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
        stored = (self.stored(self.ahead, place) for place, _ in enumerate(frames))
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
        passes = [places for span in self.plan.spans for places in span.backward]
        needed = {place for places in passes for place in places}
        with DiskBuffer(folder) as spool:
            count = max(needed) + 1
            reading = report(islice(frames, count), count, "reading")
            for place, frame in enumerate(reading):
                if place in needed:
                    spool[place] = pack_frame(self.scale.frame(frame))
            passes = [places for places in passes if places.start in spool]
            order = [place for places in passes for place in places]
            spooled = (unpack_frame(spool[place]) for place in order)
            passed = iter(report(spooled, len(order), "backward"))
            for places in passes:
                known = {
                    number: self.known(place)
                    for number, place in enumerate(places)
                    if not number or place in self.marked
                }
                found = self.run(islice(passed, len(places)), known)
                for place, raw in zip(places, found, strict=True):
                    self.backward[place] = self.pack(raw)
        return self.backward

    def track_ahead(self, frames: Iterable[Pixels], folder: Path) -> DiskBuffer:
        """Run the forward passes before `track` yields any result, so that an interrupted run
        leaves the earlier result as it was.

        Returns:
            The buffer of the results, which the caller closes.
        """
        self.ahead = DiskBuffer(folder)
        for place, raw in enumerate(self.forward(islice(frames, self.plan.stop))):
            if raw is not None:
                self.ahead[place] = self.pack(raw)
        return self.ahead

    def forward(self, frames: Iterable[Pixels]) -> Iterator[Raw | None]:
        """Yield what the forward passes find in each frame; None for a frame without a pass."""
        waiting = iter(frames)
        place = 0
        for span in self.plan.spans:
            known = {p: self.known(p) for p in {span.first, *self.marked} if span.holds(p)}
            begin = min((p for p, marks in known.items() if marks is not None), default=span.stop)
            for _ in islice(waiting, None if begin is None else begin - place):
                yield None
            place = begin or place
            if begin is None or begin == span.stop:
                continue  # nothing is known
            inside = islice(waiting, None if span.stop is None else span.stop - begin)
            shifted = {p - begin: marks for p, marks in known.items()}
            yield from self.run(map(self.scale.frame, inside), shifted)
            place = span.stop or begin
        yield from (None for _ in waiting)

    def result(self, place: int, raw: Raw | None) -> Result:
        """The result for a frame.

        Args:
            place: the frame index.
            raw: what the forward pass found, or None if there was none.
        """
        if place in self.previous and not self.plan.is_tracked(place):
            return self.previous[place]
        if place in self.plan.corrected and place in self.previous:
            return self.corrected(place)
        found = self.nothing() if raw is None else self.more_confident(self.nothing(), raw)
        backward = self.stored(self.backward, place)
        if backward is not None:
            found = self.more_confident(
                found, backward, 0.5 if raw is None else self.nearness(place)
            )
        if not self.plan.to_beginning:
            found = self.without(found, self.first_marked_after(place))
        if place in self.previous:
            # objects that were not corrected stay as they were
            others = self.cleared(self.previous[place], self.plan.changed)
            found = self.without(found, self.numbers - self.plan.changed)
            return self.with_marks(place, self.merged(others, self.at_video_size(found)))
        return self.with_marks(place, self.at_video_size(found))

    def nearness(self, place: int) -> float:
        """How near a frame is to the one in which the backward pass through it begins: 0 where the
        forward pass is certain, 1 where the backward pass is.

        A pass that has drifted may still be confident, so confidence and nearness together judge
        better than either of them alone.
        """
        for places in (places for span in self.plan.spans for places in span.backward):
            if place in places:
                return (place - places.stop) / (places.start - places.stop)
        raise ValueError(f"frame {place}: expected one with a backward pass")

    def stored(self, buffer: DiskBuffer | None, place: int) -> Raw | None:
        """What a pass found in a frame; None if there is no result for it."""
        return self.unpack(buffer[place]) if buffer is not None and place in buffer else None

    def known(self, place: int) -> Known | None:
        """What is known about a frame, at the tracked size: its marks and, in a correction, what
        the earlier tracking found of the objects that are not corrected."""
        if place in self.previous:
            return self.to_tracked_size(place, self.marks_of(self.corrected(place)))
        return self.to_tracked_size(place, self.given.get(place))

    def corrected(self, place: int) -> Result:
        """The earlier result for a frame, with the corrected objects replaced by their marks."""
        return self.with_marks(place, self.cleared(self.previous[place], self.plan.changed))

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
    def to_tracked_size(self, place: int, marks: Marks | None) -> Known | None:
        """Resize the marks of a frame to the tracked size; None if nothing is left of them."""

    @abstractmethod
    def nothing(self) -> Raw:
        """The result for a frame in which nothing is found."""

    @abstractmethod
    def more_confident(self, one: Raw, other: Raw, weight: float = 0.5) -> Raw:
        """Take each object or point from the pass that is more confident of it; `weight` is that of
        the confidence of `other`, from 0 to 1."""

    @abstractmethod
    def first_marked_after(self, place: int) -> Set[int]:
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
    def with_marks(self, place: int, result: Result) -> Result:
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
