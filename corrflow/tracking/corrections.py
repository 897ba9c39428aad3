"""Which marks correct an earlier tracking. A tool that opened what was tracked, and in which one
frame was corrected, gives back all frames: those that are as they were tracked are no marks. What
somebody painted into the masks themselves is one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from corrflow.errors import InputError
from corrflow.pictures import Pixels
from corrflow.propagation import TrackedPoints
from corrflow.scale import Points
from corrflow.tracking.disk_buffer import CompressedMasks
from corrflow.tracking.earlier import Earlier
from corrflow.tracking.plan import IS_GONE, Given, Gone, digest, digest_of_point
from corrflow.tracking.tracker import FrameMasks

Marks = TypeVar("Marks", bound=Mapping[int, NDArray[Any]])
SAME_OVERLAP = 0.8  # of thin objects, which are all outline
SAME_PIXELS = 0.5  # what rounding in a tool may move a point


@dataclass(frozen=True)
class Sorted(Generic[Marks]):
    """What came from the user, in its parts."""

    marks: Marks
    """What says something new, or is marked as it was before; by place of the frame."""
    returned: dict[int, dict[int, str]]
    """Digests of what came and is no mark, now or before, as it came: who sees it come again knows
    it, even when the tracking has changed since."""
    gone: dict[int, frozenset[int]] = field(default_factory=dict)
    """Objects that are marked as gone."""
    edited: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Of the marks, those that are painted into the masks of the tracking."""
    overruled: tuple[int, ...] = ()
    """Frames in which something that is marked anew was painted over as well, which goes before."""


def sort_masks(
    masks: CompressedMasks,
    gone: Gone,
    earlier: Earlier[FrameMasks],
    tolerance: float | None,
    *,
    is_export: bool = True,
) -> Sorted[CompressedMasks]:
    """Which objects of which frames are marked. What was painted into a mask since the tracking
    goes before what came with it; what is marked anew goes before what was painted earlier.

    Args:
        masks: `[H, W]` by place of the frame: all that came.
        gone: the objects that are marked as gone.
        earlier: what was tracked, in some frames at least.
        tolerance: how far the lines of polygons may have moved, in pixels; None: no shape has.
        is_export: whether a tool may have given back frames as they were tracked, which nobody has
            marked.

    Raises:
        InputError: an object was erased where it is marked, and is marked nowhere else.
    """
    before, marks = earlier.made_from, CompressedMasks(*masks.shape)
    returned: dict[int, dict[int, str]] = {}
    overruled = set()
    for place, labels_hw in masks.items():
        if place not in earlier.found:
            marks[place] = labels_hw
            continue
        again_hw = earlier.found[place].labels
        still_marked = before.given.get(place, {}).keys() - earlier.painted_in(place)
        kept_hw = labels_hw.copy()
        for number in numbers_of(labels_hw):
            shape_hw, found_hw = labels_hw == number, again_hw == number
            name = digest(shape_hw)
            is_tracked = is_export and (
                name in (earlier.returned_as(place, number), earlier.tracked_as(place, number))
                or (tolerance is not None and is_same_shape(shape_hw, found_hw, tolerance))
            )
            verdict = judge(earlier, place, number, name, is_tracked=is_tracked)
            if verdict == "mark":
                continue
            if verdict == "overruled":
                overruled.add(place)
            returned.setdefault(place, {})[number] = name
            kept_hw[shape_hw] = 0
            if number in still_marked - gone.get(place, frozenset()):
                kept_hw[found_hw] = number
        if kept_hw.any():
            marks[place] = kept_hw
    absent: dict[int, set[int]] = {}
    for place, number in [(at, n) for at, numbers in gone.items() for n in numbers]:
        verdict = judge(earlier, place, number, IS_GONE, is_tracked=False)
        if verdict == "mark":
            absent.setdefault(place, set()).add(number)
            continue
        if verdict == "overruled":
            overruled.add(place)
        returned.setdefault(place, {})[number] = IS_GONE
    edited = add_edited(marks, absent, earlier)
    for number, place in missing_marks(masks, marks, before.given).items():
        if number in edited.get(place, ()):
            raise InputError(
                f"object {number}: was erased from the mask of the frame in which it is marked, "
                "and is marked nowhere else: expected it in another frame, or that mask deleted"
            )
        put(marks, place, number, masks[place] == number)
        returned.get(place, {}).pop(number, None)
    return Sorted(
        marks,
        merged(before.returned, returned),
        {place: frozenset(numbers) for place, numbers in absent.items() if numbers},
        {place: tuple(sorted(numbers)) for place, numbers in edited.items() if numbers},
        tuple(sorted(overruled)),
    )


def judge(
    earlier: Earlier[Any], place: int, number: int, name: str, *, is_tracked: bool
) -> Literal["mark", "known", "overruled"]:
    """What an object is that came in a frame: a mark; nothing new; or something new, but painted
    over since.

    Args:
        earlier: what was tracked.
        place: of the frame.
        number: of the object.
        name: digest of what came.
        is_tracked: whether it came back as it was tracked.
    """
    is_old = earlier.made_from.given.get(place, {}).get(number) == name
    is_known = earlier.returned_as(place, number) == name
    if number in earlier.painted_in(place):
        return "known" if is_old or is_tracked or is_known else "overruled"
    if is_old:
        return "mark"
    # what was painted over once is so still
    was_painted = number in earlier.edited.get(place, ())
    return "known" if is_tracked or (is_known and was_painted) else "mark"


def add_edited(
    marks: CompressedMasks, gone: dict[int, set[int]], earlier: Earlier[FrameMasks]
) -> dict[int, set[int]]:
    """Mark what was painted into masks; gives the objects by place of the frame."""
    edited: dict[int, set[int]] = {}
    for place in sorted(earlier.edited.keys() | earlier.painted.keys()):
        labels_hw, painted = earlier.found[place].labels, earlier.painted_in(place)
        for number in {*earlier.edited.get(place, ()), *painted}:
            shape_hw = labels_hw == number
            if number not in painted:
                marked_hw = marks[place] if place in marks else np.zeros_like(labels_hw)
                is_marked = (marked_hw == number).any() or number in gone.get(place, ())
                seen_hw = shape_hw & ((marked_hw == 0) | (marked_hw == number))
                is_covered = shape_hw.any() and not seen_hw.any()
                if (is_marked and not np.array_equal(marked_hw == number, seen_hw)) or is_covered:
                    continue  # the frame was marked anew
                shape_hw = seen_hw
            edited.setdefault(place, set()).add(number)
            if shape_hw.any():
                put(marks, place, number, shape_hw)
                gone.get(place, set()).discard(number)
            else:
                gone.setdefault(place, set()).add(number)
    return edited


def missing_marks(masks: CompressedMasks, marks: CompressedMasks, old: Given) -> dict[int, int]:
    """Objects, and the frame that came in which each must be marked: one that is marked nowhere, in
    the first of its frames; one whose first mark was taken away, in the next of its frames that was
    tracked from there."""
    came, marked = frames_of(masks), frames_of(marks)
    missing = {}
    for number, places in came.items():
        left = marked.get(number, [])
        if not left:
            missing[number] = places[0]
            continue
        first = min((p for p, m in old.items() if m.get(number, IS_GONE) != IS_GONE), default=None)
        if first is not None and first < left[0]:
            between = [place for place in places if first < place < left[0]]
            if between:
                missing[number] = between[0]
    return missing


def frames_of(masks: CompressedMasks) -> dict[int, list[int]]:
    """In which frames each object is."""
    frames: dict[int, list[int]] = {}
    for place, labels_hw in masks.items():
        for number in numbers_of(labels_hw):
            frames.setdefault(number, []).append(place)
    return frames


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
        old, known = before.given.get(place, {}), before.returned.get(place, {})
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
    return Sorted(corrections, merged(before.returned, returned))


def points_of(xy_k2: Points) -> list[int]:
    """The points that are marked, from 1."""
    numbers: list[int] = (np.flatnonzero(~np.isnan(xy_k2[:, 0])) + 1).tolist()
    return numbers
