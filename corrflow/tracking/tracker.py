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
from typing import Any, Generic, NamedTuple, TypeVar

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
from corrflow.tracking.plan import Gone, Plan

Marks = TypeVar("Marks", bound=NDArray[Any])  # of a frame of the video: a mask, or points
Known = TypeVar("Known")  # of a frame at the tracked size, as `propagation` takes it
Result = TypeVar("Result")  # of a frame at the video's size
Raw = TypeVar("Raw")  # of a frame at the tracked size, as `propagation` gives it
MOST_LABELS = 256  # with the background
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
        found = self.nothing() if raw is None else self.surer(self.nothing(), raw)
        backward = self.stored(self.backward, place)
        if backward is not None:
            found = self.surer(found, backward, 0.5 if raw is None else self.nearness(place))
        if not self.plan.to_beginning:
            found = self.without(found, self.begun_after(place))
        if place in self.previous:
            # in the others nobody has seen a fault
            others = self.cleared(self.previous[place], self.plan.changed)
            found = self.without(found, self.numbers - self.plan.changed)
            return self.with_marks(place, self.merged(others, self.enlarged(found)))
        return self.with_marks(place, self.enlarged(found))

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
    def surer(self, one: Raw, other: Raw, weight: float = 0.5) -> Raw:
        """Each object or point from the pass that is surer of it; `weight`, from 0 to 1, is by how
        much sureness of the other counts."""

    @abstractmethod
    def begun_after(self, place: int) -> Set[int]:
        """The objects or points that are first marked in a later frame."""

    @abstractmethod
    def without(self, raw: Raw, absent: Set[int]) -> Raw:
        """What was found, but for some of the objects or points."""

    @abstractmethod
    def enlarged(self, raw: Raw) -> Result:
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


class FrameMasks(NamedTuple):
    """Objects in one frame of the video."""

    labels: Pixels
    """`[H, W]`"""
    confidence: NDArray[np.float32]
    """`[256]`, of each object by its number: as `TrackedMasks`; 1 where it is marked as gone."""


class KnownMasks(NamedTuple):
    """What is known in one tracked frame."""

    labels: Tensor
    """`[h, w]`"""
    gone: Set[int]
    """Numbers of the objects that are nowhere."""


class MaskTracker(Tracker[Pixels, KnownMasks, TrackedMasks, FrameMasks]):
    """Follows objects, marked in masks `[H, W]`; gives FrameMasks for each frame. One that is
    marked as gone is shown nowhere until it is marked again."""

    def __init__(
        self,
        model: CorrFlow,
        scale: Scale,
        given: Mapping[int, Pixels],
        protocol: str,
        plan: Plan,
        previous: Mapping[int, FrameMasks] = MappingProxyType({}),
        gone: Gone = MappingProxyType({}),
    ) -> None:
        super().__init__(model, scale, given, protocol, plan, previous)
        self.gone, self.marked = gone, given.keys() | gone.keys()
        self.latest = max(self.marked)
        self.turns = {label: self.turns_of(label) for label in set[int]().union(*gone.values())}
        self.begins = {
            int(label): place
            for place in sorted(given, reverse=True)
            for label in np.unique(given[place])
            if label
        }

    @property
    def numbers(self) -> Set[int]:
        """As in the masks."""
        return self.begins.keys()

    def propagate(
        self, frames: Iterable[Tensor], given: Mapping[int, KnownMasks]
    ) -> Iterator[TrackedMasks]:
        """Labels `[h, w]` of the tracked frame."""
        labels = {number: known.labels for number, known in given.items()}
        gone = {number: known.gone for number, known in given.items() if known.gone}
        return stream_masks(self.model, frames, labels, self.protocol, gone)

    def shrunk(self, place: int, marks: Pixels | None) -> KnownMasks | None:
        """None where nothing is marked."""
        gone = self.gone.get(place, frozenset())
        width, height = self.scale.tracked
        labels_hw = np.zeros((height, width), np.uint8)
        if marks is not None:
            labels_hw = self.scale.shrink(marks)
        if not labels_hw.any() and not gone:
            return None
        return KnownMasks(torch.from_numpy(labels_hw), gone)

    def nothing(self) -> TrackedMasks:
        """Background."""
        width, height = self.scale.tracked
        return TrackedMasks(torch.zeros(height, width, dtype=torch.uint8), torch.zeros(MOST_LABELS))

    def surer(self, one: TrackedMasks, other: TrackedMasks, weight: float = 0.5) -> TrackedMasks:
        """Where two objects want a pixel, the surer one has it."""
        labels = torch.zeros_like(one.labels)
        is_one = (1 - weight) * one.confidence >= weight * other.confidence
        confidence = torch.where(is_one, one.confidence, other.confidence)
        for label in sorted(self.begins, key=lambda label: float(confidence[label])):
            chosen = one if is_one[label] else other
            labels[chosen.labels == label] = label
        return TrackedMasks(labels, confidence)

    def begun_after(self, place: int) -> Set[int]:
        """By number."""
        return {label for label, begin in self.begins.items() if begin > place}

    def gone_at(self, place: int) -> Set[int]:
        """The objects that were last marked as gone."""
        last = {
            label: max((turn for turn in turns if turn[0] <= place), default=(0, False))
            for label, turns in self.turns.items()
        }
        return {label for label, (_, is_gone) in last.items() if is_gone}

    def turns_of(self, label: int) -> list[tuple[int, bool]]:
        """The frames in which an object is marked, in order, and whether as gone."""
        gone = {place: True for place, labels in self.gone.items() if label in labels}
        there = {place: False for place, labels_hw in self.given.items() if label in labels_hw}
        return sorted({**gone, **there}.items())

    def without(self, raw: TrackedMasks, absent: Set[int]) -> TrackedMasks:
        """Background is left."""
        is_absent = torch.isin(raw.labels, torch.tensor(sorted(absent), dtype=raw.labels.dtype))
        confidence = raw.confidence.clone()
        confidence[list(absent)] = 0
        return TrackedMasks(raw.labels.masked_fill(is_absent, 0), confidence)

    def enlarged(self, raw: TrackedMasks) -> FrameMasks:
        """Labels `[H, W]`."""
        return FrameMasks(self.scale.enlarge(raw.labels.numpy()), raw.confidence.numpy())

    def merged(self, others: FrameMasks, found: FrameMasks) -> FrameMasks:
        """Where both want a pixel, the surer object has it."""
        is_surer = found.confidence[found.labels] >= others.confidence[others.labels]
        takes = (found.labels > 0) & ((others.labels == 0) | is_surer)
        labels_hw = np.where(takes, found.labels, others.labels)
        return FrameMasks(labels_hw, np.maximum(others.confidence, found.confidence))

    def cleared(self, result: FrameMasks, absent: Set[int]) -> FrameMasks:
        """Background is left."""
        confidence = result.confidence.copy()
        if not absent:
            return FrameMasks(result.labels, confidence)
        is_absent = np.isin(result.labels, list(absent))
        confidence[list(absent)] = 0
        return FrameMasks(np.where(is_absent, np.uint8(0), result.labels), confidence)

    def with_marks(self, place: int, result: FrameMasks) -> FrameMasks:
        """They have their very pixels, and are certain; so is where an object is gone."""
        gone = self.gone_at(place)
        labels_hw, confidence = self.cleared(result, gone)
        if place in self.given:
            marked = self.given[place]
            objects = np.unique(marked[marked > 0])
            behind = np.where(np.isin(labels_hw, objects), np.uint8(0), labels_hw)
            labels_hw = np.where(marked > 0, marked, behind)
            confidence[objects] = 1
        areas = np.bincount(labels_hw.reshape(-1), minlength=MOST_LABELS)
        confidence[areas == 0] = 0
        confidence[list(gone)] = 1
        return FrameMasks(labels_hw, confidence)

    def marks_of(self, result: FrameMasks) -> Pixels:
        """The labels."""
        return result.labels

    def pack(self, raw: TrackedMasks) -> bytes:
        """Confidences, and labels compressed."""
        return raw.confidence.numpy().tobytes() + pack_labels(raw.labels.numpy())

    def unpack(self, packed: bytes) -> TrackedMasks:
        """And back."""
        end = 4 * MOST_LABELS
        confidence = torch.from_numpy(np.frombuffer(packed[:end], np.float32).copy())
        labels_hw = unpack_labels(packed[end:], self.scale.tracked[::-1])
        return TrackedMasks(torch.from_numpy(labels_hw), confidence)


class PointTracker(Tracker[Points, Tensor, TrackedPoints, TrackedPoints]):
    """Follows points, marked in frames as `[k, 2]`, NaN for those that are marked in others; gives
    TrackedPoints for each frame."""

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
        places = np.array(sorted(given))
        is_marked = [~np.isnan(given[place][:, 0]) for place in places]
        self.begins = places[np.argmax(is_marked, axis=0)]

    @property
    def numbers(self) -> Set[int]:
        """From 1."""
        return set(range(1, len(self.begins) + 1))

    def propagate(
        self, frames: Iterable[Tensor], given: Mapping[int, Tensor]
    ) -> Iterator[TrackedPoints]:
        """Places in the tracked frame."""
        return stream_points(self.model, frames, given, self.protocol)

    def shrunk(self, place: int, marks: Points | None) -> Tensor | None:
        """Places in the tracked frame."""
        if marks is None or np.isnan(marks).all():
            return None
        return torch.from_numpy(self.scale.inward(marks))

    def nothing(self) -> TrackedPoints:
        """NaN."""
        return from_rows(nowhere(len(self.begins)))

    def surer(self, one: TrackedPoints, other: TrackedPoints, weight: float = 0.5) -> TrackedPoints:
        """Point by point; one that was not found is nowhere."""
        is_one = (1 - weight) * one.confidence >= weight * other.confidence
        is_one |= other.xy[:, 0].isnan()
        is_one &= ~one.xy[:, 0].isnan()
        return from_rows(np.where(is_one[:, None].numpy(), as_rows(one), as_rows(other)))

    def begun_after(self, place: int) -> Set[int]:
        """By number, from 1."""
        return {n for n, begin in enumerate(self.begins.tolist(), 1) if begin > place}

    def without(self, raw: TrackedPoints, absent: Set[int]) -> TrackedPoints:
        """They are nowhere."""
        rows = as_rows(raw).copy()
        rows[[n - 1 for n in absent]] = nowhere(len(absent))
        return from_rows(rows)

    def enlarged(self, raw: TrackedPoints) -> TrackedPoints:
        """Places in the video."""
        rows = as_rows(raw).copy()
        rows[:, :2] = self.scale.outward(rows[:, :2])
        return from_rows(rows)

    def merged(self, others: TrackedPoints, found: TrackedPoints) -> TrackedPoints:
        """Point by point."""
        is_found = ~found.xy[:, :1].isnan().numpy()
        return from_rows(np.where(is_found, as_rows(found), as_rows(others)))

    def cleared(self, result: TrackedPoints, absent: Set[int]) -> TrackedPoints:
        """They are nowhere."""
        return self.without(result, absent)

    def with_marks(self, place: int, result: TrackedPoints) -> TrackedPoints:
        """They are as they are given, visible and certain."""
        if place not in self.given:
            return result
        marked = self.given[place]
        certain = np.concatenate([marked, np.ones_like(marked)], axis=1)
        return from_rows(np.where(np.isnan(marked[:, :1]), as_rows(result), certain))

    def marks_of(self, result: TrackedPoints) -> Points:
        """Those that are visible: where the others are nobody knows."""
        rows = as_rows(result)
        return np.where(rows[:, 2:3] > 0.5, rows[:, :2], np.float32(np.nan))

    def pack(self, raw: TrackedPoints) -> bytes:
        """16 for each point."""
        return as_rows(raw).tobytes()

    def unpack(self, packed: bytes) -> TrackedPoints:
        """And back."""
        return from_rows(np.frombuffer(packed, np.float32).reshape(-1, 4).copy())


def to_tensor(frame_hw3: Pixels) -> Tensor:
    """`[3, h, w]`."""
    return torch.from_numpy(frame_hw3).movedim(-1, 0)


def as_rows(located: TrackedPoints) -> NDArray[np.float32]:
    """x, y, visible, confidence: float32 `[k, 4]`."""
    parts = (located.xy, located.visible[:, None], located.confidence[:, None])
    return torch.cat([part.float().cpu() for part in parts], dim=1).numpy()


def from_rows(rows_k4: NDArray[np.float32]) -> TrackedPoints:
    """And back."""
    rows = torch.from_numpy(np.ascontiguousarray(rows_k4, np.float32))
    return TrackedPoints(rows[:, :2], rows[:, 2] > 0.5, rows[:, 3])


def nowhere(count: int) -> NDArray[np.float32]:
    """Rows of points that are nowhere yet."""
    return np.tile(np.array([np.nan, np.nan, 0, 0], np.float32), (count, 1))


def check_large_enough(
    masks: Mapping[int, Pixels], scale: Scale, number_of: Callable[[int], int]
) -> None:
    """InputError if an object has no pixel at the tracked size.

    Args:
        masks: `[H, W]` by place of the frame.
        scale: the sizes.
        number_of: what a user calls the frame of a place.
    """
    for place, labels_hw in masks.items():
        if lost := set(np.unique(labels_hw)) - set(np.unique(scale.shrink(labels_hw))):
            raise InputError(
                f"object {min(lost)} of frame {number_of(place)} has no pixel left at size "
                f"{min(scale.tracked)}: expected a larger object or size"
            )


def check_reached(number: int, count: int) -> None:
    """InputError if a video of `count` frames has no frame of that number."""
    if number >= count:
        raise InputError(f"frame {number}: the video has {count} frames: expected 0 to {count - 1}")
