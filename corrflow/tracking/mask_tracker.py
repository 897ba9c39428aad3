"""Masks of objects through a whole video; how passes go is in `tracker.py`.

Shapes: h w pixels of the tracked size, H W of the video's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corrflow.errors import InputError
from corrflow.model import CorrFlow
from corrflow.pictures import Pixels
from corrflow.propagation import TrackedMasks, stream_masks
from corrflow.scale import Scale
from corrflow.tracking.disk_buffer import (
    pack_labels,
    unpack_labels,
)
from corrflow.tracking.plan import Gone, Plan
from corrflow.tracking.tracker import Tracker

MOST_LABELS = 256  # with the background


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
            labels_hw = self.scale.mask(marks)
        if not labels_hw.any() and not gone:
            return None
        return KnownMasks(torch.from_numpy(labels_hw), gone)

    def nothing(self) -> TrackedMasks:
        """Background."""
        width, height = self.scale.tracked
        return TrackedMasks(torch.zeros(height, width, dtype=torch.uint8), torch.zeros(MOST_LABELS))

    def more_confident(
        self, one: TrackedMasks, other: TrackedMasks, weight: float = 0.5
    ) -> TrackedMasks:
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

    def at_video_size(self, raw: TrackedMasks) -> FrameMasks:
        """Labels `[H, W]`."""
        return FrameMasks(self.scale.mask_back(raw.labels.numpy()), raw.confidence.numpy())

    def merged(self, others: FrameMasks, found: FrameMasks) -> FrameMasks:
        """Where both want a pixel, the surer object has it."""
        prevails = found.confidence[found.labels] >= others.confidence[others.labels]
        takes = (found.labels > 0) & ((others.labels == 0) | prevails)
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
        if lost := set(np.unique(labels_hw)) - set(np.unique(scale.mask(labels_hw))):
            raise InputError(
                f"object {min(lost)} of frame {number_of(place)} has no pixel left at size "
                f"{min(scale.tracked)}: expected a larger object or size"
            )
