"""What a user marks, through a whole video: forwards from where it is marked, and backwards from
each frame in which everything is; of the two passes through a frame, each object is taken from the
surer one, where sureness counts by how near the pass began. Hops from frame to frame are in
`propagation`, which frames are tracked in `plan.py`, files in `recording.py`.

Shapes: h w pixels of the tracked size, H W of the video's, k points.
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
Known = TypeVar("Known")  # of a frame at the tracked size, as `propagation` takes it
Result = TypeVar("Result")  # of a frame at the video's size
Raw = TypeVar("Raw")  # of a frame at the tracked size, as `propagation` gives it
Reported = Callable[[Iterable[Pixels], int, str], Iterable[Pixels]]
"""Passes on so many frames, and shows how far they are."""


class Tracker(ABC, Generic[Marks, Known, Raw, Result]):
    """Follows what is marked in some frames; call `track_backward` first if the plan has backward
    passes."""

    def __init__(
        self,
        model: CorrFlow,
        scale: Scale,
        given: Mapping[int, Marks],
        protocol: str,
        plan: Plan,
        previous: Mapping[int, Result] = MappingProxyType({}),
    ) -> None:
        """Take up what is marked.

        Args:
            model: it propagates.
            scale: the sizes of the video and of what is tracked.
            given: what is marked, by place of the frame.
            protocol: as `propagation` has it.
            plan: which frames are tracked.
            earlier: what is shown in the others, if they were tracked before; else nothing is.
        """
        self.model, self.scale, self.given, self.protocol = model, scale, given, protocol
        self.plan, self.previous = plan, previous
        self.marked: Set[int] = given.keys()
        self.first, self.latest = min(given), max(given)
        self.backward: DiskBuffer | None = None
        self.ahead: DiskBuffer | None = None

    def track(self, frames: Iterable[Pixels]) -> Iterator[Result]:
        """What is where, for each frame `[H, W, 3]` of the video from its first on. Takes as many
        frames as it gives, but for a few."""
        if self.ahead is None:
            return itertools.starmap(self.result, enumerate(self.forward(frames)))
        stored = (self.stored(self.ahead, place) for place, _ in enumerate(frames))
        return itertools.starmap(self.result, enumerate(stored))

    def track_backward(
        self, frames: Iterable[Pixels], folder: Path, report: Reported
    ) -> DiskBuffer:
        """Follow what is marked backwards, and keep the result, to be closed by the caller. A pass
        that begins behind the end of a video that can't be read so far is left out.

        Args:
            frames: of the video, from its first on.
            folder: gets temporary files of the frames that are passed, at the tracked size, as
                JPEG, and of what is found in them.
            report: shows progress.
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
        """Track all that is to be tracked before any of it is shown, and keep the result, to be
        closed by the caller: whoever stops meanwhile has what was there before."""
        self.ahead = DiskBuffer(folder)
        for place, raw in enumerate(self.forward(islice(frames, self.plan.stop))):
            if raw is not None:
                self.ahead[place] = self.pack(raw)
        return self.ahead

    def forward(self, frames: Iterable[Pixels]) -> Iterator[Raw | None]:
        """What the forward passes find; None in frames where there is none."""
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
        """What is shown in a frame.

        Args:
            place: of the frame.
            raw: what the forward pass found, if there was one.
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
            found = self.without(found, self.begun_after(place))
        if place in self.previous:
            # in the others nobody has seen a fault
            others = self.cleared(self.previous[place], self.plan.changed)
            found = self.without(found, self.numbers - self.plan.changed)
            return self.with_marks(place, self.merged(others, self.at_video_size(found)))
        return self.with_marks(place, self.at_video_size(found))

    def nearness(self, place: int) -> float:
        """Where a frame lies on the way to the frame in which the backward pass through it begins:
        0 where the forward pass is certain, 1 where the backward pass is.

        A pass that has drifted may be confident: neither confidence nor nearness alone judges as
        well as both.
        """
        for places in (places for span in self.plan.spans for places in span.backward):
            if place in places:
                return (place - places.stop) / (places.start - places.stop)
        raise ValueError(f"frame {place}: expected one with a backward pass")

    def stored(self, buffer: DiskBuffer | None, place: int) -> Raw | None:
        """What a pass found in a frame that it came to."""
        return self.unpack(buffer[place]) if buffer is not None and place in buffer else None

    def known(self, place: int) -> Known | None:
        """What is known in a frame, at the tracked size: what is marked, and in a correction what
        the earlier tracking found of those objects that it is not about."""
        if place in self.previous:
            return self.shrunk(place, self.marks_of(self.corrected(place)))
        return self.shrunk(place, self.given.get(place))

    def corrected(self, place: int) -> Result:
        """What an earlier tracking found in a frame, without the objects that are marked otherwise,
        and with what is marked now."""
        return self.with_marks(place, self.cleared(self.previous[place], self.plan.changed))

    def run(self, frames: Iterable[Pixels], known: Mapping[int, Known | None]) -> Iterator[Raw]:
        """Propagate through frames `[h, w, 3]`, in any order of time, what is known in some of
        these, by number."""
        given = {number: marks for number, marks in known.items() if marks is not None}
        if not given:
            return (self.nothing() for _ in frames)
        return self.propagate(map(to_tensor, frames), given)

    @property
    @abstractmethod
    def numbers(self) -> Set[int]:
        """Of all objects or points that are marked anywhere."""

    @abstractmethod
    def propagate(self, frames: Iterable[Tensor], given: Mapping[int, Known]) -> Iterator[Raw]:
        """What `propagation` makes of frames `[3, h, w]`."""

    @abstractmethod
    def shrunk(self, place: int, marks: Marks | None) -> Known | None:
        """Marks of a frame at the tracked size; None if nothing is left of them."""

    @abstractmethod
    def nothing(self) -> Raw:
        """Where nothing is."""

    @abstractmethod
    def more_confident(self, one: Raw, other: Raw, weight: float = 0.5) -> Raw:
        """Each object or point from the pass that is surer of it; `weight`, from 0 to 1, is by how
        much sureness of the other counts."""

    @abstractmethod
    def begun_after(self, place: int) -> Set[int]:
        """The objects or points that are first marked in a later frame."""

    @abstractmethod
    def without(self, raw: Raw, absent: Set[int]) -> Raw:
        """What was found, but for some of the objects or points."""

    @abstractmethod
    def at_video_size(self, raw: Raw) -> Result:
        """What was found in a frame, at the video's size."""

    @abstractmethod
    def merged(self, others: Result, found: Result) -> Result:
        """Two results of a frame, of different objects or points."""

    @abstractmethod
    def cleared(self, result: Result, absent: Set[int]) -> Result:
        """What is shown in a frame, but for some of the objects or points."""

    @abstractmethod
    def with_marks(self, place: int, result: Result) -> Result:
        """What is shown in a frame, with what is marked in it."""

    @abstractmethod
    def marks_of(self, result: Result) -> Marks:
        """What is shown in a frame, as marks."""

    @abstractmethod
    def pack(self, raw: Raw) -> bytes:
        """To be put on disk."""

    @abstractmethod
    def unpack(self, packed: bytes) -> Raw:
        """And back."""


def to_tensor(frame_hw3: Pixels) -> Tensor:
    """`[3, h, w]`."""
    return torch.from_numpy(frame_hw3).movedim(-1, 0)


def check_reached(number: int, count: int) -> None:
    """InputError if a video of `count` frames has no frame of that number."""
    if number >= count:
        raise InputError(f"frame {number}: the video has {count} frames: expected 0 to {count - 1}")
