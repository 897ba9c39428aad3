"""Finds a mark for objects and points that are marked nowhere, or whose first mark was removed. All
other marks are decided in `corrections.py`."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from numpy.typing import NDArray

from corrflow.errors import InputError
from corrflow.tracking.plan import IS_GONE, Given


def missing_marks(
    incoming: Mapping[int, list[int]],
    marked: Mapping[int, list[int]],
    old: Given,
    edited: Mapping[int, Collection[int]],
) -> dict[int, int]:
    """The objects or points that need a further mark, and the frame index of each.

    One that is marked nowhere is marked in the first frame in which it came in. One whose first
    mark was removed is marked in the next frame in which it came in, if that is before its next
    mark: those frames were tracked from the removed mark.

    Args:
        incoming: the frames in which each came in.
        marked: the frames in which each is marked.
        old: what was marked when the video was tracked.
        edited: painted objects by frame index, which take precedence over what came in.

    Raises:
        InputError: an object was erased where it is marked, and is marked nowhere else.
    """
    missing = {}
    for number, indices in incoming.items():
        begin = first_mark(number, old)
        is_erased = begin is not None and number in edited.get(begin, ())
        free = [index for index in indices if number not in edited.get(index, ())]
        left = marked.get(number, [])
        if not left and (is_erased or not free):
            raise InputError(
                f"object {number}: was erased from the mask of the frame in which it is marked, "
                "and is marked nowhere else: expected it in another frame, or that mask deleted"
            )
        if not left:
            missing[number] = free[0]
        elif begin is not None and not is_erased:
            between = [index for index in free if begin < index < left[0]]
            if between:
                missing[number] = between[0]
    return missing


def first_mark(number: int, given: Given) -> int | None:
    """The first frame in which an object or point is marked, other than as gone; None if there is
    none."""
    indices = (index for index, marks in given.items() if marks.get(number, IS_GONE) != IS_GONE)
    return min(indices, default=None)


def frames_of(
    marks: Mapping[int, NDArray[Any]], numbers: Callable[[NDArray[Any]], list[int]]
) -> dict[int, list[int]]:
    """The frames that each object or point is in, in order.

    Args:
        marks: masks or points by frame index.
        numbers: gives the numbers of the objects or points in one frame.
    """
    frames: dict[int, list[int]] = {}
    for index in sorted(marks):
        for number in numbers(marks[index]):
            frames.setdefault(number, []).append(index)
    return frames
