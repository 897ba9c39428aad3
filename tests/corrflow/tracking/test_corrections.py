"""What counts as corrected of the labels that a tool gives back."""

import numpy as np
import torch

from corrflow.propagation import TrackedPoints
from corrflow.tracking.corrections import correcting_masks, correcting_points
from corrflow.tracking.plan import marked_objects
from corrflow.tracking.tracker import FrameMasks


def square(number=1, left=10, width=20):
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, left : left + width] = number
    return labels


def found(*masks):
    return {
        place: FrameMasks(labels, np.ones(256, np.float32)) for place, labels in enumerate(masks)
    }


def corrections(marked, tracked, old=None):
    return dict(correcting_masks(marked, old or {}, found(*tracked), 1.0))


def test_a_shape_that_differs_at_its_outline_alone_is_no_mark():
    assert corrections({0: square(left=11)}, [square()]) == {}


def test_a_shape_that_was_moved_or_cut_is_a_mark():
    for shape in (square(left=14), square(width=14)):
        assert np.array_equal(corrections({0: shape}, [square()])[0], shape)


def test_half_of_a_thin_object_is_a_correction():
    assert 0 in corrections(
        {0: square(width=3)[::-1] * (np.arange(40) < 20)[:, None]}, [square(width=3)]
    )


def test_an_object_that_was_not_found_is_a_mark():
    assert 0 in corrections({0: square()}, [np.zeros((40, 60), np.uint8)])


def test_what_was_marked_before_is_marked_as_it_was():
    old = marked_objects({0: square()})
    kept = corrections({0: square(left=11), 1: square(left=11)}, [square(), square()], old)
    assert list(kept) == [0]
    assert marked_objects(kept) == old


def test_of_two_objects_the_one_that_was_corrected_is_a_mark():
    tracked = square() + square(2, left=40, width=10)
    marked = square() + square(2, left=46, width=10)
    assert set(np.unique(corrections({0: marked}, [tracked])[0])) == {0, 2}


def test_points_within_a_tools_rounding_are_no_marks():
    xy = np.array([[4, 5], [7, 8], [1, 1]], np.float32)
    earlier = {0: TrackedPoints(torch.from_numpy(xy), torch.ones(3) > 0, torch.ones(3))}
    marked = xy + np.array([[0.3, 0.0], [2.0, 0.0], [-0.3, 0.0]], np.float32)
    kept = correcting_points({0: marked}, {0: {3: "x"}}, earlier)[0]
    np.testing.assert_array_equal(kept, [[np.nan, np.nan], [9, 8], [1, 1]])
    assert correcting_points({0: xy}, {}, earlier) == {}
