"""What counts as corrected of the labels that a tool gives back."""

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
OLD = marked_objects({9: ELSEWHERE})  # what makes the object known


def previous(tracked, given, returned=None, painted=None, edited=None, deleted=()):
    """A tracking that found `tracked`; in the frames of `painted` there are other masks now, in
    those that are `deleted` none."""
    shapes = tuple(objects_of(labels) for labels in tracked)
    shown = dict(enumerate(tracked)) | (painted or {})
    found = {place: FrameMasks(labels, np.ones(256, np.float32)) for place, labels in shown.items()}
    found = {place: masks for place, masks in found.items() if place not in deleted}
    edited = edited or {}
    provenance = Provenance(
        "", "", "paper", 40, False, "objects", {}, given, returned or {}, edited, shapes=shapes
    )
    changed = {
        place: changed_marks({0: shapes[place]}, {0: objects_of(labels)})[0]
        for place, labels in (painted or {}).items()
    }
    held = {place: objects for place, objects in edited.items() if place in found}
    boxes = {
        place: {number: mask_to_box(labels == number) for number in shapes[place]}
        for place, labels in enumerate(tracked)
    }
    return PreviousResult(provenance, found, False, held, changed, boxes)


def sort(marked, tracked, old=OLD, returned=None, tolerance=1.0, gone=(), **more):
    """With the mark that made the object known."""
    masks = CompressedMasks(40, 60)
    for place, labels in {**marked, 9: ELSEWHERE}.items():
        masks[place] = labels
    before = previous(tracked, {**OLD, **old}, returned, **more)
    return sort_masks(masks, dict(gone), before, tolerance)


def corrections(*given, **more):
    marks = dict(sort(*given, **more).marks)
    assert np.array_equal(marks.pop(9) > 0, ELSEWHERE > 0)
    return marks


def test_a_shape_that_differs_at_its_outline_alone_is_no_mark():
    assert corrections({0: square(left=11)}, [square()]) == {}


def test_the_edge_of_the_picture_is_an_outline_too():
    assert corrections({0: square(left=1)}, [square(left=0)]) == {}
    assert corrections({0: square(left=40, width=19)}, [square(left=40)]) == {}


def test_of_what_is_no_polygon_every_pixel_counts():
    assert corrections({0: square()}, [square()], tolerance=None) == {}
    assert 0 in corrections({0: square(left=11)}, [square()], tolerance=None)


def test_a_shape_that_was_moved_or_cut_is_a_mark():
    for shape in (square(left=14), square(width=14)):
        assert np.array_equal(corrections({0: shape}, [square()])[0], shape)


def test_half_of_a_thin_object_is_a_correction():
    half = square(width=3)[::-1] * (np.arange(40) < 20)[:, None]
    assert 0 in corrections({0: half}, [square(width=3)])


def test_an_object_that_was_not_found_is_a_mark():
    nothing = np.zeros((40, 60), np.uint8)
    assert 0 in corrections({0: square()}, [nothing])
    assert 3 in corrections({3: square()}, [nothing])


def test_what_was_marked_before_is_marked_as_it_was():
    old = marked_objects({0: square()})
    kept = corrections({0: square(left=11), 1: square(left=11)}, [square(), square()], old)
    assert list(kept) == [0]
    assert marked_objects(kept) == old


def test_of_two_objects_the_one_that_was_corrected_is_a_mark():
    tracked = square() + square(2, left=40, width=10)
    marked = square() + square(2, left=46, width=10)
    assert set(np.unique(corrections({0: marked}, [tracked])[0])) == {0, 2}


def test_what_came_back_as_it_wreturned_is_known_when_it_comes_again():
    """The tracking has changed since, by another correction."""
    first = sort({0: square(left=11)}, [square()])
    assert first.returned.keys() == {0}
    again = sort({0: square(left=11)}, [square(left=30)], returned=first.returned)
    assert list(again.marks) == [9]
    assert again.returned == first.returned
    other = sort({0: square(left=16)}, [square(left=30)], returned=first.returned)
    assert list(other.marks) == [0, 9]


def test_an_object_that_is_marked_nowhere_else_is_marked_where_it_came_first():
    masks = CompressedMasks(40, 60)
    masks[0], masks[1] = square(left=11), square(left=11)
    got = sort_masks(masks, {}, previous([square(), square()], {}), 1.0)
    assert list(got.marks) == [0]
    assert np.array_equal(got.marks[0], square(left=11))
    assert got.returned == {1: marked_objects({1: square(left=11)})[1]}


def test_what_was_painted_since_goes_before_marks_and_labels_of_that_frame():
    """Labels that were exported before, and a mask that marked the frame, are no newer."""
    painted = {0: square(left=17)}
    for marked, given in (({0: square(left=11)}, {}), ({0: square(left=3)}, {0: square(left=3)})):
        old = marked_objects(given)
        got = sort(marked, [square()], old, painted=painted)
        assert np.array_equal(got.marks[0], painted[0])
        assert got.edited == {0: {1: old[0][1] if old else NO_MARK}}
        # and once it has been tracked so, too
        later = sort(marked, [painted[0]], marked_objects(painted), got.returned, edited=got.edited)
        assert np.array_equal(later.marks[0], painted[0])
        assert later.edited == got.edited


def test_where_the_mask_was_deleted_what_was_painted_over_is_what_it_was():
    """A mark, or what was tracked."""
    painted, incoming = square(left=17), square(left=3)
    beneath = marked_objects({0: incoming})
    old = marked_objects({0: painted})
    marked = sort({0: incoming}, [painted], old, edited=beneath, deleted=[0])
    assert np.array_equal(marked.marks[0], incoming)
    is_no_mark = {0: {1: NO_MARK}}
    back = sort({0: incoming}, [painted], old, beneath, edited=is_no_mark, deleted=[0])
    assert (list(back.marks), marked.edited, back.edited) == ([9], {}, {})


@pytest.mark.parametrize(("left", "is_told"), [(11, False), (3, True)])
def test_only_a_new_mark_is_told_that_was_painted_over(left, is_told):
    got = sort({0: square(left=left)}, [square()], painted={0: square(left=17)})
    assert got.overruled == ((0,) if is_told else ())
    assert np.array_equal(got.marks[0], square(left=17))


def test_what_came_back_takes_back_the_mark_that_corrected_it():
    first = sort({0: square(left=11)}, [square()])
    corrected = square(left=30)
    old = marked_objects({0: corrected})
    back = sort({0: square(left=11)}, [corrected], old, first.returned)
    assert list(back.marks) == [9]


def test_a_mark_that_came_back_in_other_lines_stays_to_the_pixel():
    tracked = square(width=10) + square(2, left=20, width=10)
    old = marked_objects({0: tracked})
    other = square(width=11)
    other[10:30, 21:30] = 2
    got = sort({0: other}, [tracked], old)
    assert np.array_equal(got.marks[0], tracked)
    assert got.returned == {}


def test_what_is_marked_anew_goes_before_what_was_painted_once():
    painted = square(left=17)
    got = sort(
        {0: square(left=3)}, [painted], marked_objects({0: painted}), edited={0: {1: NO_MARK}}
    )
    assert np.array_equal(got.marks[0], square(left=3))
    assert got.edited == {}


def test_of_a_painted_mask_only_the_objects_that_differ_are_marks():
    tracked = square() + square(2, left=40, width=10)
    got = sort({}, [tracked], painted={0: square(left=14) + square(2, left=40, width=10)})
    assert np.array_equal(got.marks[0], square(left=14))


def test_an_object_that_was_erased_is_gone_until_it_is_marked():
    nothing = np.zeros((40, 60), np.uint8)
    got = sort({}, [square(), square()], painted={1: nothing})
    assert (list(got.marks), got.gone, got.edited) == ([9], {1: {1}}, {1: {1: NO_MARK}})
    later = sort({}, [square(), nothing], marked_objects({}, got.gone), edited=got.edited)
    assert (list(later.marks), later.gone, later.edited) == ([9], {1: {1}}, {1: {1: NO_MARK}})
    anew = sort({1: square(left=4)}, [square(), nothing], edited=got.edited)
    assert (list(anew.marks), anew.gone, anew.edited) == ([1, 9], {}, {})


def test_an_object_that_is_gone_where_an_export_has_it_is_gone_again():
    gone = {0: {1}}
    first = sort({0: square()}, [square()], gone=gone)
    assert (list(first.marks), first.gone) == ([9], gone)
    nothing = np.zeros((40, 60), np.uint8)
    again = sort({0: square()}, [nothing], marked_objects({}, gone), first.returned, gone=gone)
    assert (list(again.marks), again.gone) == ([9], gone)


def test_an_object_that_was_erased_where_alone_it_is_marked_is_told():
    masks = CompressedMasks(40, 60)
    masks[0] = square()
    nothing = np.zeros((40, 60), np.uint8)
    before = previous([square()], marked_objects({0: square()}), painted={0: nothing})
    with pytest.raises(InputError, match="object 1: was erased from the mask of the frame"):
        sort_masks(masks, {}, before, None)


def test_what_was_returned_two_trackings_ago_is_no_mark():
    known = {0: marked_objects({0: square(left=2)})[0]}
    between = sort({}, [square()], returned=known)
    again = sort({0: square(left=2)}, [square(left=30)], returned=between.returned)
    assert list(again.marks) == [9]


def test_points_within_a_tools_rounding_are_no_marks():
    xy = np.array([[4, 5], [7, 8], [1, 1]], np.float32)
    first = np.full((3, 2), 30, np.float32)
    found = {0: TrackedPoints(torch.from_numpy(xy), torch.ones(3) > 0, torch.ones(3))}
    marked = xy + np.array([[0.3, 0.0], [2.0, 0.0], [-0.3, 0.0]], np.float32)
    old = {0: {3: "x"}, 9: marked_points({9: first})[9]}
    provenance = Provenance("", "", "paper", 40, False, "points", {}, old)
    got = sort_points({0: marked, 9: first}, PreviousResult(provenance, found, False))
    np.testing.assert_array_equal(got.marks[0], [[np.nan, np.nan], [9, 8], [1, 1]])
    same = PreviousResult(replace(provenance, given={9: old[9]}), found, False)
    assert list(sort_points({0: xy, 9: first}, same).marks) == [9]
    moved = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])  # but for the one that is marked
    later = {0: TrackedPoints(moved, torch.ones(3) > 0, torch.ones(3))}
    since = PreviousResult(replace(provenance, returned=got.returned), later, False)
    again = sort_points({0: marked, 9: first}, since)
    np.testing.assert_array_equal(again.marks[0], [[np.nan, np.nan], [9, 8], [1, 1]])


def test_what_came_back_takes_back_the_point_that_corrected_it():
    tracked, corrected = np.array([[4, 5]], np.float32), np.array([[9, 5]], np.float32)
    located = TrackedPoints(torch.from_numpy(corrected), torch.ones(1) > 0, torch.ones(1))
    given, returned = marked_points({1: corrected, 2: corrected}), marked_points({1: tracked})
    provenance = Provenance("", "", "paper", 40, False, "points", {}, given, returned)
    got = sort_points(
        {1: tracked, 2: corrected}, PreviousResult(provenance, {1: located, 2: located}, False)
    )
    assert list(got.marks) == [2]


def test_a_point_that_is_marked_nowhere_else_is_marked_where_it_came_first():
    xy = np.array([[4, 5]], np.float32)
    located = TrackedPoints(torch.from_numpy(xy), torch.ones(1) > 0, torch.ones(1))
    provenance = Provenance("", "", "paper", 40, False, "points", {}, {})
    got = sort_points({2: xy, 3: xy}, PreviousResult(provenance, {2: located, 3: located}, False))
    assert list(got.marks) == [2]
