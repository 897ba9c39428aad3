"""Decides which frames of a video are tracked, and from which marked frames.

Passes go forward from the marked frames, and backward from the frames in which everything is
marked. After a correction, only the frames between the nearest unchanged marked frames on both
sides are tracked again. How frames are tracked is in `tracker.py`.

Frames are given as indices from 0.
"""

import hashlib
from collections.abc import Mapping, Set
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corrflow.pictures import Pixels
from corrflow.scale import Points

Given = Mapping[int, Mapping[int, str]]
"""A digest of each mark, by frame index and number of the object or point."""
Gone = Mapping[int, Set[int]]
"""Numbers of the objects that are not in a frame, by frame index."""
IS_GONE = "gone"  # stands in `Given` for a digest


class Span(NamedTuple):
    """A range of frames that are tracked in one forward pass, with its backward passes."""

    first: int
    stop: int | None
    """One past the last frame; None: the end of the video."""
    backward: tuple[range, ...] = ()
    """Backward passes, in the order of their frames. Each begins at a frame in which all objects or
    points are known."""

    def holds(self, index: int) -> bool:
        """Whether a frame is in the span."""
        return self.first <= index and (self.stop is None or index < self.stop)


@dataclass(frozen=True)
class Plan:
    """What is tracked, and what stays as it was in the earlier result."""

    spans: tuple[Span, ...]
    to_beginning: bool
    """Whether objects or points are also shown in the frames before their first mark."""
    changed: frozenset[int] = frozenset()
    """Numbers of the objects or points whose marks differ from those of the earlier tracking."""
    corrected: frozenset[int] = frozenset()
    """Frames in which all of `changed` is marked, and some of these marks differ."""
    kept: frozenset[int] = frozenset()
    """Frames at which spans begin, but which stay as they were."""

    @property
    def stop(self) -> int | None:
        """One past the last frame that is tracked; None: the end of the video."""
        return self.spans[-1].stop if self.spans else 0

    @property
    def has_backward_passes(self) -> bool:
        """Whether there are backward passes."""
        return any(span.backward for span in self.spans)

    def is_tracked(self, index: int) -> bool:
        """Whether a frame's result may differ from the earlier one."""
        return index not in self.kept and any(span.holds(index) for span in self.spans)


def plan_tracking(given: Given, *, to_beginning: bool) -> Plan:
    """Plan to track all frames from the first marked one on.

    Args:
        given: what is marked.
        to_beginning: whether to track backward to frame 0 what is first marked in a later frame.
    """
    objects = frozenset[int]().union(*given.values())
    first = 0 if to_beginning else min(given)
    passes = backward_passes(objects, given, first, None, to_beginning=to_beginning)
    return Plan((Span(first, None, passes),), to_beginning)


def plan_correction(
    old: Given, new: Given, *, to_beginning: bool, withdrawn: Set[int] = frozenset()
) -> Plan:
    """Plan to track again only the frames that a correction affects.

    Args:
        old: what was marked when the video was tracked.
        new: what is marked now.
        to_beginning: as in `plan_tracking`, the same for both trackings.
        withdrawn: frames with marks that were removed or replaced. These may have covered other
            objects, so if there are any, all objects are tracked again.
    """
    changes = dict.fromkeys(withdrawn, frozenset[int]()) | changed_marks(old, new)
    changed = frozenset[int]().union(*(new if withdrawn else changes).values())
    whole = frozenset(index for index, marks in new.items() if changed <= marks.keys())
    unchanged = sorted(whole - changes.keys())
    begin = 0 if to_beginning else first_marked(changed, old, new)
    spans = set()
    for index in changes:
        first = max((other for other in unchanged if other < index), default=begin)
        stop = min((other for other in unchanged if other > index), default=None)
        passes = backward_passes(changed, new, first, stop, to_beginning=to_beginning)
        spans.add(Span(first, stop, passes))
    return Plan(
        tuple(sorted(spans, key=lambda span: span.first)),
        to_beginning,
        changed,
        corrected=whole & changes.keys(),
        kept=frozenset(unchanged) & {span.first for span in spans},
    )


def changed_marks(old: Given, new: Given) -> dict[int, frozenset[int]]:
    """The objects whose mark in a frame was changed, removed or added, by frame index."""
    changes = {}
    for index in {*old, *new}:
        before, now = old.get(index, {}), new.get(index, {})
        objects = frozenset(n for n in {*before, *now} if before.get(n) != now.get(n))
        if objects:
            changes[index] = objects
    return changes


def renumbered(given: Given, numbers: Mapping[int, int]) -> Given:
    """Give the objects new numbers; leave out those that have none in `numbers`."""
    return {
        index: {numbers[n]: digest for n, digest in marks.items() if n in numbers}
        for index, marks in given.items()
    }


def first_marked(objects: Set[int], *trackings: Given) -> int:
    """The first frame in which one of the objects is marked."""
    indices = (
        index for given in trackings for index, marks in given.items() if objects & marks.keys()
    )
    return min(indices, default=0)


def backward_passes(
    objects: Set[int], given: Given, first: int, stop: int | None, *, to_beginning: bool
) -> tuple[range, ...]:
    """The passes backward from each frame in which all of the objects are marked, to the previous
    such frame."""
    inside = [index for index in sorted(given) if index > first and (not stop or index <= stop)]
    starts = [index for index in inside if objects <= given[index].keys()]
    if to_beginning and inside and inside[-1] not in starts:
        starts.append(inside[-1])
    # the first frame needs no backward pass if something is marked in it
    lowest = first if first in given else first - 1
    passes = [range(start, end, -1) for end, start in pairwise([lowest, *starts])]
    return tuple(indices for indices in passes if len(indices) > 1)


def marked_objects(masks: Mapping[int, Pixels], gone: Gone = MappingProxyType({})) -> Given:
    """Digests of the objects in masks `[H, W]`, with `IS_GONE` for those that are gone."""
    given = {index: objects_of(labels_hw) for index, labels_hw in masks.items()}
    for index, numbers in gone.items():
        given.setdefault(index, {}).update(dict.fromkeys(numbers, IS_GONE))
    return given


def objects_of(labels_hw: Pixels) -> dict[int, str]:
    """Digests of the objects in a mask `[H, W]`."""
    return {n: digest(labels_hw == n) for n in np.unique(labels_hw).tolist() if n}


def marked_points(points: Mapping[int, Points]) -> Given:
    """Digests of points `[k, 2]`, which are numbered from 1; a point that is not marked is NaN."""
    return {
        index: {n: digest_of_point(xy) for n, xy in enumerate(xy_k2, 1) if not np.isnan(xy).any()}
        for index, xy_k2 in points.items()
    }


def digest_of_point(xy: Points) -> str:
    """A digest of a point `[2]`, rounded to hundredths of a pixel as in the tables."""
    return digest(np.rint(xy * 100).astype(np.int64))


def digest(marks: NDArray[Any]) -> str:
    """The first 16 hex digits of the SHA-256 of an array."""
    return hashlib.sha256(np.ascontiguousarray(marks).tobytes()).hexdigest()[:16]
