"""Decides which of the labels that a user gives again are corrections.

An annotation tool exports every frame, even if the user fixed only one, so frames that equal the
tracked result are not marks. What was painted into the mask files is a mark. `incoming_marks.py`
classifies each object that comes in.

What becomes of an object in a frame, by its `incoming_marks.Kind` and by whether it was painted
into the mask file, before or since the last tracking:

| kind     | not painted, or mask deleted | painted before       | painted since                  |
|----------|------------------------------|----------------------|--------------------------------|
| new      | becomes a mark               | becomes a mark       | painting is the mark; reported |
| old      | stays a mark                 | painting is the mark | painting is the mark           |
| kept     | mark stays, to the pixel     | painting is the mark | painting is the mark           |
| returned | no mark; a mark is withdrawn | painting is the mark | painting is the mark           |
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from corrflow.pictures import Pixels
from corrflow.propagation import TrackedPoints
from corrflow.scale import Points
from corrflow.tracking.disk_buffer import CompressedMasks
from corrflow.tracking.incoming_marks import (
    ComparedFrame,
    IncomingMark,
    classify,
    classify_mask,
    classify_points,
    numbers_of,
    points_of,
)
from corrflow.tracking.mask_tracker import FrameMasks
from corrflow.tracking.missing_marks import frames_of, missing_marks
from corrflow.tracking.plan import IS_GONE, Given, Gone
from corrflow.tracking.previous_result import PreviousResult

Marks = TypeVar("Marks", bound=Mapping[int, NDArray[Any]])


@dataclass(frozen=True)
class SortedMarks(Generic[Marks]):
    """What came from the user, sorted into marks and the rest."""

    marks: Marks
    """New marks and those that stay, by frame index."""
    returned: dict[int, dict[int, str]]
    """Digests, as they came in, of what is not a mark, by frame index and number. Those of earlier
    runs are included, so that what comes in again is recognised even if the tracked result has
    changed since."""
    gone: dict[int, frozenset[int]] = field(default_factory=dict)
    """Objects that are marked as gone, by frame index."""
    edited: dict[int, dict[int, str]] = field(default_factory=dict)
    """The marks that were painted into the mask files: the digest of the mark beneath each, or
    `NO_MARK`."""
    overruled: tuple[int, ...] = ()
    """Frames in which an object has a new mark but was painted as well; the painting wins."""


class SortedFrame(NamedTuple):
    """The same as in `SortedMarks`, for the objects of one frame."""

    returned: dict[int, str]
    gone: set[int]
    edited: dict[int, str]
    is_overruled: bool


def sort_masks(
    masks: CompressedMasks,
    gone: Gone,
    previous: PreviousResult[FrameMasks],
    tolerance: float | None,
    *,
    is_export: bool = True,
) -> SortedMarks[CompressedMasks]:
    """Decide which objects are marked in which frames.

    What was painted into a mask since the last tracking takes precedence over what came in. What is
    newly marked takes precedence over what was painted before.

    Args:
        masks: all masks `[H, W]` that came in, by frame index.
        gone: the objects that came in marked as gone.
        previous: the earlier result, of at least some frames.
        tolerance: how far a tool may have moved the lines of polygons, in pixels; None: shapes are
            compared exactly.
        is_export: whether the masks may be a tool's export of the tracked result, in which most
            frames were not marked by anybody.

    Raises:
        InputError: an object was erased where it is marked, and is marked nowhere else.
    """
    nothing_hw = np.zeros(masks.shape, np.uint8)
    marks, frames = CompressedMasks(*masks.shape), dict[int, SortedFrame]()
    for index in sorted({*masks, *gone, *previous.edited, *previous.painted}):
        came_hw = masks.get(index, nothing_hw)
        tracked_hw = previous.found[index].labels if index in previous.found else came_hw
        frame = ComparedFrame(index, came_hw, tracked_hw)
        incoming = classify_mask(previous, frame, tolerance, is_export=is_export)
        absent = {
            number: classify(previous, index, number, IS_GONE, is_as_tracked=False)
            for number in gone.get(index, ())
        }
        marks_hw, frames[index] = sort_frame(previous, frame, incoming, absent)
        if marks_hw.any():
            marks[index] = marks_hw
    edited = {index: frame.edited for index, frame in frames.items() if frame.edited}
    returned = {index: frame.returned for index, frame in frames.items()}
    came_in, marked_in = frames_of(masks, numbers_of), frames_of(marks, numbers_of)
    for number, index in missing_marks(
        came_in, marked_in, previous.provenance.given, edited
    ).items():
        put(marks, index, number, masks[index] == number)
        returned[index].pop(number, None)
    return SortedMarks(
        marks,
        merged(previous.provenance.returned, returned),
        {index: frozenset(frame.gone) for index, frame in frames.items() if frame.gone},
        edited,
        tuple(index for index, frame in frames.items() if frame.is_overruled),
    )


def sort_frame(
    previous: PreviousResult[FrameMasks],
    frame: ComparedFrame,
    incoming: Mapping[int, IncomingMark],
    absent: Mapping[int, IncomingMark],
) -> tuple[Pixels, SortedFrame]:
    """Sort one frame: its marks `[H, W]`, and the rest.

    Args:
        previous: the earlier result.
        frame: the masks of the frame.
        incoming: the kind of each object that came in.
        absent: the same for the objects that came in as gone.
    """
    both, painted = {**incoming, **absent}, previous.painted_in(frame.frame_index)
    anew = {number for number, it in both.items() if it.kind == "new"}
    held = painted | (previous.edited.get(frame.frame_index, {}).keys() - anew)
    left = {number: it.kind for number, it in incoming.items() if number not in held}
    kept = {number for number, kind in left.items() if kind == "kept"} - absent.keys()
    marked = {number for number, kind in left.items() if kind in ("new", "old")}
    marks_hw = np.where(np.isin(frame.incoming, list(marked)), frame.incoming, np.uint8(0))
    is_kept_hw = np.isin(frame.tracked, list(kept)) & (marks_hw == 0)
    marks_hw = np.where(is_kept_hw, frame.tracked, marks_hw)
    shapes = paintings(frame.tracked, held, painted, marks_hw)
    for number, shape_hw in shapes.items():
        marks_hw = np.where(shape_hw, np.uint8(number), marks_hw)
    beneath = {number: it.name for number, it in both.items() if it.kind != "returned"}
    edited = {
        number: beneath.get(number, previous.marked_as(frame.frame_index, number))
        for number in shapes
    }
    erased = {number for number, shape_hw in shapes.items() if not shape_hw.any()}
    returned = {number: it.name for number, it in incoming.items() if it.kind == "returned"}
    gone = (absent.keys() - held) | erased
    return marks_hw, SortedFrame(returned, gone, edited, bool(anew & painted))


def paintings(
    tracked_hw: Pixels, held: Set[int], painted: Set[int], marks_hw: Pixels
) -> dict[int, NDArray[np.bool_]]:
    """The shapes of painted objects; the shape of an erased object is empty.

    Args:
        tracked_hw: the mask file as it is now.
        held: numbers of the painted objects.
        painted: those of them that were painted since the last tracking. The others lie beneath the
            other marks, and are left out if these cover them entirely.
        marks_hw: the other marks.
    """
    shapes = {}
    for number in sorted(held):
        shape_hw = tracked_hw == number
        seen_hw = shape_hw if number in painted else shape_hw & (marks_hw == 0)
        if seen_hw.any() or not shape_hw.any():
            shapes[number] = seen_hw
    return shapes


def sort_points(
    points: Mapping[int, Points], previous: PreviousResult[TrackedPoints]
) -> SortedMarks[dict[int, Points]]:
    """`sort_masks` for points `[k, 2]`; a point that did not come in is NaN."""
    marks: dict[int, Points] = {}
    returned: dict[int, dict[int, str]] = {}
    for index, xy_k2 in points.items():
        kept_k2 = xy_k2.copy()
        returned[index] = {}
        for number, (name, kind) in classify_points(previous, index, xy_k2).items():
            if kind == "kept":
                kept_k2[number - 1] = previous.found[index].xy[number - 1].numpy()
            elif kind == "returned":
                kept_k2[number - 1] = np.nan
                returned[index][number] = name
        if points_of(kept_k2):
            marks[index] = kept_k2
    came_in, marked_in = frames_of(points, points_of), frames_of(marks, points_of)
    for number, index in missing_marks(came_in, marked_in, previous.provenance.given, {}).items():
        rows_k2 = marks.setdefault(index, np.full_like(points[index], np.nan))
        rows_k2[number - 1] = points[index][number - 1]
        del returned[index][number]
    return SortedMarks(marks, merged(previous.provenance.returned, returned))


def put(marks: CompressedMasks, index: int, number: int, shape_hw: Pixels) -> None:
    """Mark an object in a frame, on top of the others."""
    labels_hw = marks[index] if index in marks else np.zeros(marks.shape, np.uint8)
    marks[index] = np.where(shape_hw, np.uint8(number), labels_hw)


def merged(before: Given, now: Given) -> dict[int, dict[int, str]]:
    """Combine two sets of digests; where both have one, take that of `now`."""
    indices = sorted(before.keys() | now.keys())
    both = {index: {**before.get(index, {}), **now.get(index, {})} for index in indices}
    return {index: digests for index, digests in both.items() if digests}
