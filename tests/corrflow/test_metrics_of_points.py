import numpy as np
import pytest

from corrflow.metrics import box_scale, keypoint_hits, track_figures, track_scores
from corrflow.metrics.tracks import THRESHOLDS

NAN = float("nan")


def test_the_scale_of_a_person_is_six_tenths_of_the_diagonal_of_the_joints_that_count():
    # (1, 2) to (4, 6): 3 by 4, diagonal 5, 0.6 of it 3; the joint without truth would make it wider
    points = [
        [[1, 2], [4, 6], [2, 3], [NAN, NAN]],
        [[0, 0], [0, 0], [0, 0], [0, 0]],
        [[NAN, NAN]] * 4,
    ]
    np.testing.assert_allclose(box_scale(points), [3, 0, NAN])


def test_a_worked_example_of_pck():
    true = [[[0, 0], [10, 0], [NAN, NAN], [5, 5]]]
    pred = [[[3, 4], [10, 5.1], [0, 0], [NAN, NAN]]]  # 5 away; 5.1 away; no truth; lost
    np.testing.assert_array_equal(keypoint_hits(pred, true, [5]), [[1, 0, NAN, 0]])
    np.testing.assert_array_equal(keypoint_hits(pred, true, [5], strict=True), [[0, 0, NAN, 0]])
    np.testing.assert_array_equal(keypoint_hits(pred, true, [5.1 + 1e-9]), [[1, 1, NAN, 0]])


def test_a_worked_example_of_tap_vid():
    # one point, queried in frame 0; frames 1 to 5 count. Distances 0.5, 3, 20, (hidden), 1
    true = np.zeros((1, 6, 2))
    pred = np.array([[[0, 0], [0.5, 0], [0, 3], [20, 0], [0, 0], [1, 0]]])
    visible = np.array([[1, 1, 1, 1, 0, 1]], bool)
    said = np.array([[1, 1, 0, 1, 1, 1]], bool)  # wrong in frames 2 and 4
    counted = np.arange(6)[None] > 0
    figures = track_figures(*track_scores(pred, said, true, visible, counted))
    assert figures["occlusion_accuracy"] == pytest.approx(3 / 5)
    # of the four visible, nearer than 1: 0.5 (not the 1 itself); than 2: also the 1; than 4, 8, 16:
    # also the 3
    within = {1: 1 / 4, 2: 2 / 4, 4: 3 / 4, 8: 3 / 4, 16: 3 / 4}
    # said to be visible and near: at 1 frame 1; from 2 on frames 1 and 5; frame 2 is said to be
    # hidden. False alarms: frames 3 and 4, and at 1 frame 5, too. So 1 / (4 + 3), then 2 / (4 + 2)
    jaccard = {1: 1 / 7, 2: 2 / 6, 4: 2 / 6, 8: 2 / 6, 16: 2 / 6}
    for threshold in THRESHOLDS:
        assert figures[f"pts_within_{threshold}"] == pytest.approx(within[threshold])
        assert figures[f"jaccard_{threshold}"] == pytest.approx(jaccard[threshold])
    assert figures["average_pts_within_thresh"] == pytest.approx(3 / 5)
    assert figures["average_jaccard"] == pytest.approx((1 / 7 + 4 / 3) / 5)


def plain_figures(pred, said, true, visible, counted):
    """As the paper words it, point by point."""
    # near, rightly said and near, false alarms
    counts = {threshold: [0, 0, 0] for threshold in THRESHOLDS}
    right = total = there = 0
    for n, t in np.argwhere(counted):
        total, there = total + 1, there + visible[n, t]
        right += said[n, t] == visible[n, t]
        for threshold, count in counts.items():
            near = visible[n, t] and np.hypot(*(pred[n, t] - true[n, t])) < threshold
            count[0] += near
            count[1] += near and said[n, t]
            count[2] += said[n, t] and not near
    figures = {f"pts_within_{k}": c[0] / there for k, c in counts.items()} | {
        "occlusion_accuracy": right / total
    }
    return figures | {f"jaccard_{k}": c[1] / (there + c[2]) for k, c in counts.items()}


def test_tap_vids_figures_are_those_of_counting_point_by_point():
    draw = np.random.default_rng(1)
    true = draw.uniform(0, 256, (7, 9, 2))
    pred = true + draw.normal(0, 6, true.shape)
    said, visible = draw.random((2, 7, 9)) < 0.7
    counted = np.arange(9) > draw.integers(0, 8, (7, 1))
    figures = track_figures(*track_scores(pred, said, true, visible, counted))
    expected = plain_figures(pred, said, true, visible, counted)
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_a_point_that_is_lost_is_near_nothing():
    pred = np.full((1, 2, 2), NAN)
    within, occlusion = track_scores(
        pred, np.zeros((1, 2)), np.zeros((1, 2, 2)), np.ones((1, 2)), np.array([[0, 1]])
    )
    np.testing.assert_array_equal(within, [[NAN, 0]])
    np.testing.assert_array_equal(occlusion, [[NAN, 0]])


def test_where_nothing_counts_figures_are_not_defined():
    assert all(
        np.isnan(value)
        for value in track_figures(np.full((2, 1), NAN), np.full((2, 1), NAN)).values()
    )
