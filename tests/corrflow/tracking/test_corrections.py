"""Which of the labels that an annotation tool exports again count as corrections."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from corrflow import InputError
from corrflow.drawing import mask_to_box
from corrflow.propagation import TrackedPoints
from corrflow.tracking.corrections import sort_masks, sort_points
from corrflow.tracking.disk_buffer import CompressedMasks
from corrflow.tracking.mask_tracker import FrameMasks
from corrflow.tracking.plan import changed_marks, marked_objects, marked_points, objects_of
from corrflow.tracking.previous_result import PreviousResult
from corrflow.tracking.provenance import NO_MARK, Provenance


def square(number=1, left=10, width=20):
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, left : left + width] = number
    return labels


ELSEWHERE = square(left=35)
OLD = marked_objects({9: ELSEWHERE})  # the mark from which the object was tracked


def previous(tracked, given, returned=None, painted=None, edited=None, deleted=()):
    """An earlier result that tracked `tracked`. Some of its mask files were changed since to
    `painted`, or `deleted`."""
    shapes = tuple(objects_of(labels) for labels in tracked)
    shown = dict(enumerate(tracked)) | (painted or {})
    found = {index: FrameMasks(labels, np.ones(256, np.float32)) for index, labels in shown.items()}
    found = {index: masks for index, masks in found.items() if index not in deleted}
    edited = edited or {}
    provenance = Provenance(
        "", "", "paper", 40, False, "objects", {}, given, returned or {}, edited, shapes=shapes
    )
    changed = {
        index: changed_marks({0: shapes[index]}, {0: objects_of(labels)})[0]
        for index, labels in (painted or {}).items()
    }
    held = {index: objects for index, objects in edited.items() if index in found}
    boxes = {
        index: {number: mask_to_box(labels == number) for number in shapes[index]}
        for index, labels in enumerate(tracked)
    }
    return PreviousResult(provenance, found, False, held, changed, boxes)


def sort(incoming, tracked, old=OLD, returned=None, tolerance=1.0, gone=(), **more):
    """Sort the incoming masks, together with the mark from which the object was tracked."""
    masks = CompressedMasks(40, 60)
    for index, labels in {**incoming, 9: ELSEWHERE}.items():
        masks[index] = labels
    before = previous(tracked, {**OLD, **old}, returned, **more)
    return sort_masks(masks, dict(gone), before, tolerance)


def corrections(*given, **more):
    """The marks that `sort` finds, without the one from which the object was tracked."""
    marks = dict(sort(*given, **more).marks)
    assert np.array_equal(marks.pop(9) > 0, ELSEWHERE > 0)
    return marks


def test_a_shape_that_differs_only_at_its_outline_is_not_a_mark():
    assert corrections({0: square(left=11)}, [square()]) == {}


def test_the_edge_of_the_image_counts_as_outline():
    assert corrections({0: square(left=1)}, [square(left=0)]) == {}
    assert corrections({0: square(left=40, width=19)}, [square(left=40)]) == {}


def test_without_a_tolerance_every_pixel_counts():
    assert corrections({0: square()}, [square()], tolerance=None) == {}
    assert 0 in corrections({0: square(left=11)}, [square()], tolerance=None)


def test_a_moved_or_narrowed_shape_is_a_mark():
    for shape in (square(left=14), square(width=14)):
        assert np.array_equal(corrections({0: shape}, [square()])[0], shape)


def test_half_of_a_thin_object_is_a_mark():
    half = square(width=3)[::-1] * (np.arange(40) < 20)[:, None]
    assert 0 in corrections({0: half}, [square(width=3)])


def test_an_object_that_was_not_tracked_is_a_mark():
    nothing = np.zeros((40, 60), np.uint8)
    assert 0 in corrections({0: square()}, [nothing])
    assert 3 in corrections({3: square()}, [nothing])


def test_an_old_mark_that_comes_back_nearly_equal_is_kept():
    old = marked_objects({0: square()})
    kept = corrections({0: square(left=11), 1: square(left=11)}, [square(), square()], old)
    assert list(kept) == [0]
    assert marked_objects(kept) == old


def test_only_the_corrected_one_of_two_objects_is_a_mark():
    tracked = square() + square(2, left=40, width=10)
    marked = square() + square(2, left=46, width=10)
    assert set(np.unique(corrections({0: marked}, [tracked])[0])) == {0, 2}


def test_a_returned_object_is_recognised_when_it_comes_in_again():
    """The tracked result has changed in between, by another correction."""
    first = sort({0: square(left=11)}, [square()])
    assert first.returned.keys() == {0}
    again = sort({0: square(left=11)}, [square(left=30)], returned=first.returned)
    assert list(again.marks) == [9]
    assert again.returned == first.returned
    other = sort({0: square(left=16)}, [square(left=30)], returned=first.returned)
    assert list(other.marks) == [0, 9]


def test_an_object_marked_nowhere_else_is_marked_in_its_first_frame():
    masks = CompressedMasks(40, 60)
    masks[0], masks[1] = square(left=11), square(left=11)
    result = sort_masks(masks, {}, previous([square(), square()], {}), 1.0)
    assert list(result.marks) == [0]
    assert np.array_equal(result.marks[0], square(left=11))
    assert result.returned == {1: marked_objects({1: square(left=11)})[1]}


def test_painting_since_the_tracking_takes_precedence_over_labels():
    """Neither labels that were exported before nor an old mark of the frame are newer than the
    painting."""
    painted = {0: square(left=17)}
    for marked, given in (({0: square(left=11)}, {}), ({0: square(left=3)}, {0: square(left=3)})):
        old = marked_objects(given)
        result = sort(marked, [square()], old, painted=painted)
        assert np.array_equal(result.marks[0], painted[0])
        assert result.edited == {0: {1: old[0][1] if old else NO_MARK}}
        # the painting still takes precedence once it has been tracked
        later = sort(
            marked, [painted[0]], marked_objects(painted), result.returned, edited=result.edited
        )
        assert np.array_equal(later.marks[0], painted[0])
        assert later.edited == result.edited


def test_deleting_a_painted_mask_restores_what_was_beneath():
    """What was beneath is a mark, or what was tracked."""
    painted, incoming = square(left=17), square(left=3)
    beneath = marked_objects({0: incoming})
    old = marked_objects({0: painted})
    marked = sort({0: incoming}, [painted], old, edited=beneath, deleted=[0])
    assert np.array_equal(marked.marks[0], incoming)
    is_no_mark = {0: {1: NO_MARK}}
    back = sort({0: incoming}, [painted], old, beneath, edited=is_no_mark, deleted=[0])
    assert (list(back.marks), marked.edited, back.edited) == ([9], {}, {})


@pytest.mark.parametrize(("left", "is_reported"), [(11, False), (3, True)])
def test_only_a_new_mark_that_was_painted_over_is_reported(left, is_reported):
    result = sort({0: square(left=left)}, [square()], painted={0: square(left=17)})
    assert result.overruled == ((0,) if is_reported else ())
    assert np.array_equal(result.marks[0], square(left=17))


def test_a_returned_object_that_comes_in_again_withdraws_the_correction():
    first = sort({0: square(left=11)}, [square()])
    corrected = square(left=30)
    old = marked_objects({0: corrected})
    back = sort({0: square(left=11)}, [corrected], old, first.returned)
    assert list(back.marks) == [9]


def test_a_mark_that_comes_back_with_moved_lines_keeps_its_pixels():
    tracked = square(width=10) + square(2, left=20, width=10)
    old = marked_objects({0: tracked})
    other = square(width=11)
    other[10:30, 21:30] = 2
    result = sort({0: other}, [tracked], old)
    assert np.array_equal(result.marks[0], tracked)
    assert result.returned == {}


def test_a_new_mark_takes_precedence_over_an_earlier_painting():
    painted = square(left=17)
    result = sort(
        {0: square(left=3)}, [painted], marked_objects({0: painted}), edited={0: {1: NO_MARK}}
    )
    assert np.array_equal(result.marks[0], square(left=3))
    assert result.edited == {}


def test_only_the_changed_objects_of_a_painted_mask_are_marks():
    tracked = square() + square(2, left=40, width=10)
    result = sort({}, [tracked], painted={0: square(left=14) + square(2, left=40, width=10)})
    assert np.array_equal(result.marks[0], square(left=14))


def test_an_erased_object_is_gone_until_it_is_marked_again():
    nothing = np.zeros((40, 60), np.uint8)
    result = sort({}, [square(), square()], painted={1: nothing})
    assert (list(result.marks), result.gone, result.edited) == ([9], {1: {1}}, {1: {1: NO_MARK}})
    later = sort({}, [square(), nothing], marked_objects({}, result.gone), edited=result.edited)
    assert (list(later.marks), later.gone, later.edited) == ([9], {1: {1}}, {1: {1: NO_MARK}})
    anew = sort({1: square(left=4)}, [square(), nothing], edited=result.edited)
    assert (list(anew.marks), anew.gone, anew.edited) == ([1, 9], {}, {})


def test_an_object_marked_as_gone_stays_gone_if_an_export_has_it():
    gone = {0: {1}}
    first = sort({0: square()}, [square()], gone=gone)
    assert (list(first.marks), first.gone) == ([9], gone)
    nothing = np.zeros((40, 60), np.uint8)
    again = sort({0: square()}, [nothing], marked_objects({}, gone), first.returned, gone=gone)
    assert (list(again.marks), again.gone) == ([9], gone)


def test_erasing_the_only_mark_of_an_object_is_refused():
    masks = CompressedMasks(40, 60)
    masks[0] = square()
    nothing = np.zeros((40, 60), np.uint8)
    before = previous([square()], marked_objects({0: square()}), painted={0: nothing})
    with pytest.raises(InputError, match="object 1: was erased from the mask of the frame"):
        sort_masks(masks, {}, before, None)


def test_an_object_returned_two_trackings_ago_is_not_a_mark():
    known = {0: marked_objects({0: square(left=2)})[0]}
    between = sort({}, [square()], returned=known)
    again = sort({0: square(left=2)}, [square(left=30)], returned=between.returned)
    assert list(again.marks) == [9]


def test_points_moved_only_by_rounding_are_not_marks():
    xy = np.array([[4, 5], [7, 8], [1, 1]], np.float32)
    first = np.full((3, 2), 30, np.float32)
    found = {0: TrackedPoints(torch.from_numpy(xy), torch.ones(3) > 0, torch.ones(3))}
    marked = xy + np.array([[0.3, 0.0], [2.0, 0.0], [-0.3, 0.0]], np.float32)
    old = {0: {3: "x"}, 9: marked_points({9: first})[9]}
    provenance = Provenance("", "", "paper", 40, False, "points", {}, old)
    result = sort_points({0: marked, 9: first}, PreviousResult(provenance, found, False))
    np.testing.assert_array_equal(result.marks[0], [[np.nan, np.nan], [9, 8], [1, 1]])
    same = PreviousResult(replace(provenance, given={9: old[9]}), found, False)
    assert list(sort_points({0: xy, 9: first}, same).marks) == [9]
    moved = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])  # all but the marked one
    later = {0: TrackedPoints(moved, torch.ones(3) > 0, torch.ones(3))}
    since = PreviousResult(replace(provenance, returned=result.returned), later, False)
    again = sort_points({0: marked, 9: first}, since)
    np.testing.assert_array_equal(again.marks[0], [[np.nan, np.nan], [9, 8], [1, 1]])


def test_a_returned_point_that_comes_in_again_withdraws_the_correction():
    tracked, corrected = np.array([[4, 5]], np.float32), np.array([[9, 5]], np.float32)
    located = TrackedPoints(torch.from_numpy(corrected), torch.ones(1) > 0, torch.ones(1))
    given, returned = marked_points({1: corrected, 2: corrected}), marked_points({1: tracked})
    provenance = Provenance("", "", "paper", 40, False, "points", {}, given, returned)
    result = sort_points(
        {1: tracked, 2: corrected}, PreviousResult(provenance, {1: located, 2: located}, False)
    )
    assert list(result.marks) == [2]


def test_a_point_marked_nowhere_else_is_marked_in_its_first_frame():
    xy = np.array([[4, 5]], np.float32)
    located = TrackedPoints(torch.from_numpy(xy), torch.ones(1) > 0, torch.ones(1))
    provenance = Provenance("", "", "paper", 40, False, "points", {}, {})
    result = sort_points(
        {2: xy, 3: xy}, PreviousResult(provenance, {2: located, 3: located}, False)
    )
    assert list(result.marks) == [2]
