"""Which marks correct an earlier tracking. A tool that opened what was tracked, and in which one
frame was corrected, gives back all frames: those that are as they were tracked are no marks. What
somebody painted into the masks themselves is one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from corrflow.pictures import Pixels
from corrflow.propagation import TrackedPoints
from corrflow.scale import Points
from corrflow.tracking.disk_buffer import CompressedMasks
from corrflow.tracking.earlier import Earlier
from corrflow.tracking.plan import Gone, digest, digest_of_point
from corrflow.tracking.tracker import FrameMasks

Marks = TypeVar("Marks", bound=Mapping[int, NDArray[Any]])
SAME_OVERLAP = 0.8  # of thin objects, which are all outline
SAME_PIXELS = 0.5  # what rounding in a tool may move a point


@dataclass(frozen=True)
class Sorted(Generic[Marks]):
    """What came from the user, in its parts."""

    marks: Marks
    """What says something new, or is marked as it was before; by place of the frame."""
    as_tracked: dict[int, dict[int, str]]
    """Digests of what came back as it was tracked, now or before, as it came: who sees it come
    again knows it, even when the tracking has changed since."""
    gone: dict[int, frozenset[int]] = field(default_factory=dict)
    """Objects that are marked as gone."""
    edited: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Of the marks, those that are painted into the masks of the tracking."""


def sort_masks(
    masks: CompressedMasks, gone: Gone, earlier: Earlier[FrameMasks], tolerance: float | None
) -> Sorted[CompressedMasks]:
    """Which objects of which frames are marked. What was painted into a mask since the tracking
    goes before what came; what was painted before it, behind. An object that would be marked
    nowhere is, in the first of its frames.

    Args:
        masks: `[H, W]` by place of the frame: all that came.
        gone: the objects that are marked as gone; all of these are marks.
        earlier: what was tracked, in some frames at least.
        tolerance: how far the lines of polygons may have moved, in pixels; None: no shape has.
    """
    before = earlier.made_from
    corrections = CompressedMasks(*masks.shape)
    returned: dict[int, dict[int, str]] = {}
    first: dict[int, int] = {}
    for place, labels_hw in masks.items():
        old, painted = before.given.get(place, {}), earlier.painted.get(place, frozenset())
        kept_hw = labels_hw.copy()
        for number in numbers_of(labels_hw):
            shape_hw = labels_hw == number
            name = digest(shape_hw)
            first.setdefault(number, place)
            if place not in earlier.found or (old.get(number) == name and number not in painted):
                continue
            found_hw = earlier.found[place].labels == number
            is_returned = name in (
                before.as_tracked.get(place, {}).get(number),
                written(earlier, place, number),
            ) or (tolerance is not None and is_same_shape(shape_hw, found_hw, tolerance))
            if number not in painted and not is_returned:
                continue
            returned.setdefault(place, {})[number] = name
            kept_hw[shape_hw] = 0
            if number in old and number not in painted:
                kept_hw[found_hw] = number
        if kept_hw.any():
            corrections[place] = kept_hw
    absent = {place: set(numbers) for place, numbers in gone.items()}
    edited = add_edited(corrections, absent, earlier)
    marked = {number for labels_hw in corrections.values() for number in numbers_of(labels_hw)}
    for number in first.keys() - marked:
        place = first[number]
        put(corrections, place, number, masks[place] == number)
        returned.get(place, {}).pop(number, None)
        absent.get(place, set()).discard(number)
        edited.get(place, set()).discard(number)
    return Sorted(
        corrections,
        merged(before.as_tracked, returned),
        {place: frozenset(numbers) for place, numbers in absent.items() if numbers},
        {place: tuple(sorted(numbers)) for place, numbers in edited.items() if numbers},
    )


def written(earlier: Earlier[Any], place: int, number: int) -> str | None:
    """The digest of an object as it was tracked, which may have been painted over since."""
    shapes = earlier.made_from.shapes
    return shapes[place].get(number) if place < len(shapes) else None


def add_edited(
    marks: CompressedMasks, gone: dict[int, set[int]], earlier: Earlier[FrameMasks]
) -> dict[int, set[int]]:
    """Mark what was painted into masks; gives the objects by place of the frame."""
    edited: dict[int, set[int]] = {}
    for place in earlier.edited.keys() | earlier.painted.keys():
        labels_hw, painted = earlier.found[place].labels, earlier.painted.get(place, frozenset())
        for number in {*earlier.edited.get(place, ()), *painted}:
            shape_hw = labels_hw == number
            marked_hw = marks[place] == number if place in marks else np.zeros_like(shape_hw)
            is_marked = marked_hw.any() or number in gone.get(place, ())
            is_same = np.array_equal(marked_hw, shape_hw)
            if is_marked and not is_same and number not in painted:
                continue  # it was marked anew
            edited.setdefault(place, set()).add(number)
            if shape_hw.any():
                put(marks, place, number, shape_hw)
                gone.get(place, set()).discard(number)
            else:
                gone.setdefault(place, set()).add(number)
    return edited


def put(marks: CompressedMasks, place: int, number: int, shape_hw: Pixels) -> None:
    """Mark an object in a frame, over the others."""
    labels_hw = marks[place] if place in marks else np.zeros(marks.shape, np.uint8)
    cleared_hw = np.where(labels_hw == number, np.uint8(0), labels_hw)
    marks[place] = np.where(shape_hw, np.uint8(number), cleared_hw)


def merged(
    before: Mapping[int, Mapping[int, str]], now: Mapping[int, Mapping[int, str]]
) -> dict[int, dict[int, str]]:
    """Digests of both, of the latter where both have one."""
    places = sorted(before.keys() | now.keys())
    both = {place: {**before.get(place, {}), **now.get(place, {})} for place in places}
    return {place: digests for place, digests in both.items() if digests}


def numbers_of(labels_hw: Pixels) -> list[int]:
    """The objects of a mask."""
    numbers: list[int] = np.unique(labels_hw[labels_hw > 0]).tolist()
    return numbers


def is_same_shape(one_hw: Pixels, other_hw: Pixels, tolerance: float) -> bool:
    """Whether two shapes differ at their outlines alone, by pixels."""
    radius = int(np.ceil(tolerance)) + 1  # and a pixel for where its centre falls
    differing_hw = one_hw != other_hw
    if not differing_hw.any():
        return True
    overlap = (one_hw & other_hw).sum() / (one_hw | other_hw).sum()
    image = Image.fromarray(other_hw.astype(np.uint8))
    outer_hw = np.array(image.filter(ImageFilter.MaxFilter(2 * radius + 1))) > 0
    inner_hw = np.array(image.filter(ImageFilter.MinFilter(2 * radius + 1))) > 0
    is_outline_hw = outer_hw & ~inner_hw
    return bool(overlap >= SAME_OVERLAP and not (differing_hw & ~is_outline_hw).any())


def sort_points(
    points: Mapping[int, Points], earlier: Earlier[TrackedPoints]
) -> Sorted[dict[int, Points]]:
    """`sort_masks` of points `[k, 2]`, NaN where they are not marked."""
    before = earlier.made_from
    corrections: dict[int, Points] = {}
    returned: dict[int, dict[int, str]] = {}
    first: dict[int, int] = {}
    for place, xy_k2 in points.items():
        old, known = before.given.get(place, {}), before.as_tracked.get(place, {})
        kept_k2 = xy_k2.copy()
        for number in points_of(xy_k2):
            row, name = number - 1, digest_of_point(xy_k2[number - 1])
            first.setdefault(number, place)
            if place not in earlier.found or old.get(number) == name:
                continue
            found = earlier.found[place].xy[row].numpy()
            is_same = np.abs(xy_k2[row] - found).max() <= SAME_PIXELS  # not of NaN
            if known.get(number) != name and not is_same:
                continue
            returned.setdefault(place, {})[number] = name
            kept_k2[row] = found if number in old else np.nan
        if points_of(kept_k2):
            corrections[place] = kept_k2
    marked = {number for xy_k2 in corrections.values() for number in points_of(xy_k2)}
    for number, place in first.items():
        if number not in marked:
            rows_k2 = corrections.setdefault(place, np.full_like(points[place], np.nan))
            rows_k2[number - 1] = points[place][number - 1]
            del returned[place][number]
    return Sorted(corrections, merged(before.as_tracked, returned))


def points_of(xy_k2: Points) -> list[int]:
    """The points that are marked, from 1."""
    numbers: list[int] = (np.flatnonzero(~np.isnan(xy_k2[:, 0])) + 1).tolist()
    return numbers
