"""Conversion between a video's size and the size at which it is tracked."""

import numpy as np
import pytest

from corrflow.scale import Scale


@pytest.mark.parametrize(
    ("short_side", "tracked"), [(0, (24, 16)), (8, (12, 8)), (16, (24, 16)), (48, (72, 48))]
)
def test_small_videos_are_scaled_to_the_requested_short_side_as_well(short_side, tracked):
    scale = Scale.of(24, 16, short_side)
    assert scale.tracked == tracked
    frame_hw3 = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    assert scale.frame(frame_hw3).shape == (*tracked[::-1], 3)


@pytest.mark.parametrize(
    ("size", "tracked"),
    [((1200, 240), (1920, 384)), ((33, 2000), (33, 2000)), ((4000, 500), (3840, 480))],
)
def test_a_long_strip_is_not_enlarged_beyond_four_times_the_short_side(size, tracked):
    assert Scale.of(*size, 480).tracked == tracked


def test_an_enlarged_mask_scales_back_unchanged():
    scale = Scale.of(7, 5, 32)
    labels_hw = np.random.default_rng(0).integers(0, 4, (5, 7), dtype=np.uint8)
    larger_hw = scale.mask(labels_hw)
    assert larger_hw.shape == (32, 45)
    np.testing.assert_array_equal(scale.mask_back(larger_hw), labels_hw)


@pytest.mark.parametrize("short_side", [0, 8, 48])
def test_points_scale_back_to_their_positions(short_side):
    scale = Scale.of(24, 16, short_side)
    xy = np.array([[4.5, 3.25], [11.5, 7.5], [20, 12]], np.float32)
    np.testing.assert_allclose(scale.points_back(scale.points(xy)), xy, atol=1e-5)


def test_scaled_points_stay_at_the_centre_of_their_pixels():
    scale = Scale.of(24, 16, 32)
    np.testing.assert_allclose(scale.points(np.array([[0, 15]], np.float32)), [[0.5, 30.5]])


def test_an_enlarged_frame_is_smooth():
    scale = Scale.of(16, 16, 64)
    ramp_hw3 = np.repeat(np.arange(16, dtype=np.uint8)[None, :, None] * 10, 16, axis=0)
    row = scale.frame(np.repeat(ramp_hw3, 3, axis=2))[32, 8:-8, 0].astype(int)
    assert set(np.diff(row)) <= {2, 3}
