"""Tracks the masks of objects through a whole video. The passes over the video are in `tracker.py`.

Shapes: h w pixels at the tracked size, H W pixels at the video's size.
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

MOST_LABELS = 256  # including the background


class FrameMasks(NamedTuple):
    """Objects in one frame of the video."""

    labels: Pixels
    """Labels `[H, W]`."""
    confidence: NDArray[np.float32]
    """`[256]`, indexed by object number, as in `TrackedMasks`; 1 for an object marked as gone."""


class KnownMasks(NamedTuple):
    """What is known about one frame before tracking, at the tracked size."""

    labels: Tensor
    """Labels `[h, w]`."""
    gone: Set[int]
    """Numbers of the objects that are not in the frame."""


class MaskTracker(Tracker[Pixels, KnownMasks, TrackedMasks, FrameMasks]):
    """Tracks objects that are marked in masks `[H, W]`, and yields FrameMasks for each frame.

    An object that is marked as gone is not shown until it is marked again.
    """

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
        self.turns = {label: self.mark_history(label) for label in set[int]().union(*gone.values())}
        self.begins = {
            int(label): index
            for index in sorted(given, reverse=True)
            for label in np.unique(given[index])
            if label
        }

    @property
    def numbers(self) -> Set[int]:
        """The numbers of all marked objects, as in the masks."""
        return self.begins.keys()

    def propagate(
        self, frames: Iterable[Tensor], given: Mapping[int, KnownMasks]
    ) -> Iterator[TrackedMasks]:
        """Propagate labels `[h, w]` through the frames."""
        labels = {number: known.labels for number, known in given.items()}
        gone = {number: known.gone for number, known in given.items() if known.gone}
        return stream_masks(self.model, frames, labels, self.protocol, gone)

    def to_tracked_size(self, index: int, marks: Pixels | None) -> KnownMasks | None:
        """Resize the marks of a frame to the tracked size; None if nothing is marked."""
        gone = self.gone.get(index, frozenset())
        width, height = self.scale.tracked
        labels_hw = np.zeros((height, width), np.uint8)
        if marks is not None:
            labels_hw = self.scale.mask(marks)
        if not labels_hw.any() and not gone:
            return None
        return KnownMasks(torch.from_numpy(labels_hw), gone)

    def nothing(self) -> TrackedMasks:
        """A frame of background alone, with confidence 0."""
        width, height = self.scale.tracked
        return TrackedMasks(torch.zeros(height, width, dtype=torch.uint8), torch.zeros(MOST_LABELS))

    def more_confident(
        self, one: TrackedMasks, other: TrackedMasks, weight: float = 0.5
    ) -> TrackedMasks:
        """Take each object from the more confident pass; in an overlap the more confident object
        gets the pixel."""
        labels = torch.zeros_like(one.labels)
        is_one = (1 - weight) * one.confidence >= weight * other.confidence
        confidence = torch.where(is_one, one.confidence, other.confidence)
        for label in sorted(self.begins, key=lambda label: float(confidence[label])):
            chosen = one if is_one[label] else other
            labels[chosen.labels == label] = label
        return TrackedMasks(labels, confidence)

    def first_marked_after(self, index: int) -> Set[int]:
        """The numbers of the objects that are first marked in a later frame."""
        return {label for label, begin in self.begins.items() if begin > index}

    def gone_at(self, index: int) -> Set[int]:
        """The objects whose last mark up to this frame says that they are gone."""
        last = {
            label: max((turn for turn in turns if turn[0] <= index), default=(0, False))
            for label, turns in self.turns.items()
        }
        return {label for label, (_, is_gone) in last.items() if is_gone}

    def mark_history(self, label: int) -> list[tuple[int, bool]]:
        """The frames in which an object is marked, in order, each with whether it is gone there."""
        gone = {index: True for index, labels in self.gone.items() if label in labels}
        there = {index: False for index, labels_hw in self.given.items() if label in labels_hw}
        return sorted({**gone, **there}.items())

    def without(self, raw: TrackedMasks, absent: Set[int]) -> TrackedMasks:
        """Replace some objects by background, with confidence 0."""
        is_absent = torch.isin(raw.labels, torch.tensor(sorted(absent), dtype=raw.labels.dtype))
        confidence = raw.confidence.clone()
        confidence[list(absent)] = 0
        return TrackedMasks(raw.labels.masked_fill(is_absent, 0), confidence)

    def at_video_size(self, raw: TrackedMasks) -> FrameMasks:
        """Resize the labels to `[H, W]`."""
        return FrameMasks(self.scale.mask_back(raw.labels.numpy()), raw.confidence.numpy())

    def merged(self, others: FrameMasks, found: FrameMasks) -> FrameMasks:
        """Combine two results; in an overlap the more confident object gets the pixel."""
        prevails = found.confidence[found.labels] >= others.confidence[others.labels]
        takes = (found.labels > 0) & ((others.labels == 0) | prevails)
        labels_hw = np.where(takes, found.labels, others.labels)
        return FrameMasks(labels_hw, np.maximum(others.confidence, found.confidence))

    def cleared(self, result: FrameMasks, absent: Set[int]) -> FrameMasks:
        """Replace some objects by background, with confidence 0."""
        confidence = result.confidence.copy()
        if not absent:
            return FrameMasks(result.labels, confidence)
        is_absent = np.isin(result.labels, list(absent))
        confidence[list(absent)] = 0
        return FrameMasks(np.where(is_absent, np.uint8(0), result.labels), confidence)

    def with_marks(self, index: int, result: FrameMasks) -> FrameMasks:
        """Give marked objects exactly their marked pixels and remove those that are gone, both with
        confidence 1."""
        gone = self.gone_at(index)
        labels_hw, confidence = self.cleared(result, gone)
        if index in self.given:
            marked = self.given[index]
            objects = np.unique(marked[marked > 0])
            behind = np.where(np.isin(labels_hw, objects), np.uint8(0), labels_hw)
            labels_hw = np.where(marked > 0, marked, behind)
            confidence[objects] = 1
        areas = np.bincount(labels_hw.reshape(-1), minlength=MOST_LABELS)
        confidence[areas == 0] = 0
        confidence[list(gone)] = 1
        return FrameMasks(labels_hw, confidence)

    def marks_of(self, result: FrameMasks) -> Pixels:
        """The labels of a result."""
        return result.labels

    def pack(self, raw: TrackedMasks) -> bytes:
        """Serialize the confidences and the compressed labels."""
        return raw.confidence.numpy().tobytes() + pack_labels(raw.labels.numpy())

    def unpack(self, packed: bytes) -> TrackedMasks:
        """The inverse of `pack`."""
        end = 4 * MOST_LABELS
        confidence = torch.from_numpy(np.frombuffer(packed[:end], np.float32).copy())
        labels_hw = unpack_labels(packed[end:], self.scale.tracked[::-1])
        return TrackedMasks(torch.from_numpy(labels_hw), confidence)


def check_large_enough(
    masks: Mapping[int, Pixels], scale: Scale, number_of: Callable[[int], int]
) -> None:
    """Raise InputError if an object has no pixel left at the tracked size.

    Args:
        masks: `[H, W]` by frame index.
        scale: the sizes.
        number_of: gives the frame number that the user knows, from the frame index.
    """
    for index, labels_hw in masks.items():
        if lost := set(np.unique(labels_hw)) - set(np.unique(scale.mask(labels_hw))):
            raise InputError(
                f"object {min(lost)} of frame {number_of(index)} has no pixel left at size "
                f"{min(scale.tracked)}: expected a larger object or size"
            )
