import numpy as np
import pytest

from corrflow.metrics import box_scale, keypoint_hits, track_figures, track_scores
from corrflow.metrics.tracks import THRESHOLDS

NAN = float("nan")


def test_box_scale_is_0_6_times_the_diagonal_of_the_known_joints():
    # the box from (1, 2) to (4, 6) is 3 by 4 with a diagonal of 5, and 0.6 times that is 3; the
    # joint without ground truth does not count
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
    predicted_visible = np.array([[1, 1, 0, 1, 1, 1]], bool)  # wrong in frames 2 and 4
    counted = np.arange(6)[None] > 0
    figures = track_figures(*track_scores(pred, predicted_visible, true, visible, counted))
    assert figures["occlusion_accuracy"] == pytest.approx(3 / 5)
    # the point is visible in four frames; below 1 is the distance 0.5 (not 1 itself), below 2 also
    # the distance 1, below 4, 8 and 16 also the distance 3
    within = {1: 1 / 4, 2: 2 / 4, 4: 3 / 4, 8: 3 / 4, 16: 3 / 4}
    # near and predicted as visible: frame 1 for threshold 1, frames 1 and 5 from 2 on, but not
    # frame 2, which is predicted as hidden. False alarms: frames 3 and 4, for threshold 1 also
    # frame 5. So the Jaccard index is 1 / (4 + 3), then 2 / (4 + 2)
    jaccard = {1: 1 / 7, 2: 2 / 6, 4: 2 / 6, 8: 2 / 6, 16: 2 / 6}
    for threshold in THRESHOLDS:
        assert figures[f"pts_within_{threshold}"] == pytest.approx(within[threshold])
        assert figures[f"jaccard_{threshold}"] == pytest.approx(jaccard[threshold])
    assert figures["average_pts_within_thresh"] == pytest.approx(3 / 5)
    assert figures["average_jaccard"] == pytest.approx((1 / 7 + 4 / 3) / 5)


def plain_figures(pred, predicted_visible, true, visible, counted):
    """The figures as the paper words them, counted point by point."""
    # counts of near points, of near ones predicted as visible, and of false alarms
    counts = {threshold: [0, 0, 0] for threshold in THRESHOLDS}
    correct = total = visible_count = 0
    for n, t in np.argwhere(counted):
        total, visible_count = total + 1, visible_count + visible[n, t]
        correct += predicted_visible[n, t] == visible[n, t]
        for threshold, count in counts.items():
            near = visible[n, t] and np.hypot(*(pred[n, t] - true[n, t])) < threshold
            count[0] += near
            count[1] += near and predicted_visible[n, t]
            count[2] += predicted_visible[n, t] and not near
    figures = {f"pts_within_{k}": c[0] / visible_count for k, c in counts.items()} | {
        "occlusion_accuracy": correct / total
    }
    return figures | {f"jaccard_{k}": c[1] / (visible_count + c[2]) for k, c in counts.items()}


def test_tap_vid_figures_equal_counting_point_by_point():
    draw = np.random.default_rng(1)
    true = draw.uniform(0, 256, (7, 9, 2))
    pred = true + draw.normal(0, 6, true.shape)
    predicted_visible, visible = draw.random((2, 7, 9)) < 0.7
    counted = np.arange(9) > draw.integers(0, 8, (7, 1))
    figures = track_figures(*track_scores(pred, predicted_visible, true, visible, counted))
    expected = plain_figures(pred, predicted_visible, true, visible, counted)
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_a_lost_point_is_not_within_any_distance():
    pred = np.full((1, 2, 2), NAN)
    within, occlusion = track_scores(
        pred, np.zeros((1, 2)), np.zeros((1, 2, 2)), np.ones((1, 2)), np.array([[0, 1]])
    )
    np.testing.assert_array_equal(within, [[NAN, 0]])
    np.testing.assert_array_equal(occlusion, [[NAN, 0]])


def test_figures_are_nan_if_no_frame_counts():
    assert all(
        np.isnan(value)
        for value in track_figures(np.full((2, 1), NAN), np.full((2, 1), NAN)).values()
    )
