"""Which of the labels that come back are corrections. An annotation tool exports every frame, even
if the user fixed only one: frames that equal the tracked result are no marks. What was painted into
the mask files is a mark. What each object that came is, `incoming_marks.py` says.

What comes of an object in a frame (`incoming_marks.Kind`):

| it came  | not painted, or mask deleted | painted earlier     | painted since          |
|----------|------------------------------|---------------------|------------------------|
| new      | it is a mark                 | it is a mark        | the painting; is told  |
| old      | it is a mark                 | the painting is one | the painting is one    |
| kept     | the mark stays, to the pixel | the painting is one | the painting is one    |
| returned | nothing; a mark is withdrawn | the painting is one | the painting is one    |
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
    """What came from the user, in its parts."""

    marks: Marks
    """What says something new, or is marked as it was before; by place of the frame."""
    returned: dict[int, dict[int, str]]
    """Digests of what came and is no mark, now or before, as it came: who sees it come again knows
    it, even when the tracking has changed since."""
    gone: dict[int, frozenset[int]] = field(default_factory=dict)
    """Objects that are marked as gone."""
    edited: dict[int, dict[int, str]] = field(default_factory=dict)
    """Of the marks, those that are painted into the masks of the tracking: digests of what is
    marked beneath, `NO_MARK` where nothing is."""
    overruled: tuple[int, ...] = ()
    """Frames in which something that is marked anew was painted over as well, which goes before."""


class SortedFrame(NamedTuple):
    """`Sorted` of the objects in one frame."""

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
    """Which objects of which frames are marked. What was painted into a mask since the tracking
    goes before what came with it; what is marked anew goes before what was painted earlier.

    Args:
        masks: `[H, W]` by place of the frame: all that came.
        gone: the objects that are marked as gone.
        previous: what was tracked, in some frames at least.
        tolerance: how far the lines of polygons may have moved, in pixels; None: no shape has.
        is_export: whether a tool may have given back frames as they were tracked, which nobody has
            marked.

    Raises:
        InputError: an object was erased where it is marked, and is marked nowhere else.
    """
    nothing_hw = np.zeros(masks.shape, np.uint8)
    marks, frames = CompressedMasks(*masks.shape), dict[int, SortedFrame]()
    for place in sorted({*masks, *gone, *previous.edited, *previous.painted}):
        came_hw = masks.get(place, nothing_hw)
        tracked_hw = previous.found[place].labels if place in previous.found else came_hw
        frame = ComparedFrame(place, came_hw, tracked_hw)
        incoming = classify_mask(previous, frame, tolerance, is_export=is_export)
        absent = {
            number: classify(previous, place, number, IS_GONE, is_as_tracked=False)
            for number in gone.get(place, ())
        }
        marks_hw, frames[place] = sort_frame(previous, frame, incoming, absent)
        if marks_hw.any():
            marks[place] = marks_hw
    edited = {place: frame.edited for place, frame in frames.items() if frame.edited}
    returned = {place: frame.returned for place, frame in frames.items()}
    came_in, marked_in = frames_of(masks, numbers_of), frames_of(marks, numbers_of)
    for number, place in missing_marks(
        came_in, marked_in, previous.provenance.given, edited
    ).items():
        put(marks, place, number, masks[place] == number)
        returned[place].pop(number, None)
    return SortedMarks(
        marks,
        merged(previous.provenance.returned, returned),
        {place: frozenset(frame.gone) for place, frame in frames.items() if frame.gone},
        edited,
        tuple(place for place, frame in frames.items() if frame.is_overruled),
    )


def sort_frame(
    previous: PreviousResult[FrameMasks],
    frame: ComparedFrame,
    incoming: Mapping[int, IncomingMark],
    absent: Mapping[int, IncomingMark],
) -> tuple[Pixels, SortedFrame]:
    """The marks `[H, W]` of one frame, and what else there is.

    Args:
        previous: what was tracked.
        frame: its masks.
        incoming: what each object is that came.
        absent: the same of the objects that came as gone.
    """
    both, painted = {**incoming, **absent}, previous.painted_in(frame.place)
    anew = {number for number, it in both.items() if it.kind == "new"}
    held = painted | (previous.edited.get(frame.place, {}).keys() - anew)
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
        number: beneath.get(number, previous.marked_as(frame.place, number)) for number in shapes
    }
    erased = {number for number, shape_hw in shapes.items() if not shape_hw.any()}
    returned = {number: it.name for number, it in incoming.items() if it.kind == "returned"}
    gone = (absent.keys() - held) | erased
    return marks_hw, SortedFrame(returned, gone, edited, bool(anew & painted))


def paintings(
    tracked_hw: Pixels, held: Set[int], painted: Set[int], marks_hw: Pixels
) -> dict[int, NDArray[np.bool_]]:
    """The shapes of painted objects, empty where one is erased.

    Args:
        tracked_hw: the mask.
        held: numbers of the objects.
        painted: of them, those that were painted since the tracking. The others lie beneath what is
            marked, and one that is all covered is left out.
        marks_hw: what is marked besides.
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
    """`sort_masks` of points `[k, 2]`, NaN where they are not marked."""
    marks: dict[int, Points] = {}
    returned: dict[int, dict[int, str]] = {}
    for place, xy_k2 in points.items():
        kept_k2 = xy_k2.copy()
        returned[place] = {}
        for number, (name, kind) in classify_points(previous, place, xy_k2).items():
            if kind == "kept":
                kept_k2[number - 1] = previous.found[place].xy[number - 1].numpy()
            elif kind == "returned":
                kept_k2[number - 1] = np.nan
                returned[place][number] = name
        if points_of(kept_k2):
            marks[place] = kept_k2
    came_in, marked_in = frames_of(points, points_of), frames_of(marks, points_of)
    for number, place in missing_marks(came_in, marked_in, previous.provenance.given, {}).items():
        rows_k2 = marks.setdefault(place, np.full_like(points[place], np.nan))
        rows_k2[number - 1] = points[place][number - 1]
        del returned[place][number]
    return SortedMarks(marks, merged(previous.provenance.returned, returned))


def put(marks: CompressedMasks, place: int, number: int, shape_hw: Pixels) -> None:
    """Mark an object in a frame, over the others."""
    labels_hw = marks[place] if place in marks else np.zeros(marks.shape, np.uint8)
    marks[place] = np.where(shape_hw, np.uint8(number), labels_hw)


def merged(before: Given, now: Given) -> dict[int, dict[int, str]]:
    """Digests of both, of the latter where both have one."""
    places = sorted(before.keys() | now.keys())
    both = {place: {**before.get(place, {}), **now.get(place, {})} for place in places}
    return {place: digests for place, digests in both.items() if digests}
