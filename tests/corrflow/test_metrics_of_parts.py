import numpy as np
import pytest

from corrflow.metrics import average_precision, class_areas, instance_overlaps, mean_iou


def test_a_worked_example_of_mean_iou():
    true = np.array([[0, 0, 1, 1], [2, 2, 2, 255]])
    pred = np.array([[0, 1, 1, 1], [2, 2, 0, 0]])
    both, either = class_areas(pred, true, 4)
    # class 0 overlaps in 1 of 3 pixels, without the predicted one on void, class 1 in 2 of 3,
    # class 2 in 2 of 3; class 3 is absent
    assert both.tolist() == [1, 2, 2, 0]
    assert either.tolist() == [3, 3, 3, 0]
    assert mean_iou(both, either) == pytest.approx((1 / 3 + 2 / 3 + 2 / 3) / 3)


def test_a_predicted_class_out_of_range_is_only_a_miss():
    both, either = class_areas(np.array([[9, 1]]), np.array([[1, 1]]), 2)
    assert (both.tolist(), either.tolist()) == ([0, 1], [0, 2])


def test_mean_iou_of_no_pixels_is_nan():
    assert np.isnan(mean_iou([0, 0], [0, 0]))


def test_an_instance_is_scored_by_the_one_that_it_overlaps_most():
    row = np.arange(10)
    true = [(row < 4)[None], (row >= 6)[None]]
    pred = [((row >= 1) & (row < 5))[None], ((row >= 3) & (row < 9))[None], (row == 5)[None]]
    # 1-4 against 0-3: 3 of 5; 3-8 against 0-3: 1 of 9, against 6-9: 3 of 7; 5 alone: nothing
    assert instance_overlaps(pred, true).tolist() == pytest.approx([3 / 5, 3 / 7, 0])
    assert instance_overlaps(pred, []).tolist() == [0, 0, 0]
    assert instance_overlaps([], true).size == 0


def test_average_precision_at_equal_confidence_is_precision_times_recall():
    # 3 of 4 predictions are correct, of 6 true ones: precision is 3/4 up to recall 1/2, then 0
    assert average_precision(3, 4, 6) == pytest.approx(3 / 8)
    assert average_precision(0, 0, 6) == 0
    # three correct predictions of one true instance; with a fourth that is wrong, precision is 3/4
    assert average_precision(3, 3, 1) == 1
    assert average_precision(3, 4, 1) == pytest.approx(3 / 4)
    assert np.isnan(average_precision(0, 4, 0))
