"""Tests which frame number is found in the name of an image."""

import pytest

from launch.tracking.frame_numbers import frame_number


@pytest.mark.parametrize(
    ("name", "video", "number"),
    [
        ("00012", "", 12),
        ("img12", "", 12),
        ("clip-000012", "", 12),
        ("image (12)", "", 12),
        ("walking_dog_12", "", 12),
        ("frame_12_left", "", 12),
        ("frame_000012_jpg.rf.0a1b2c3d", "", 12),
        ("gx01_000012", "gx01.mp4", 12),
        ("GX01_000012", "gx01.mp4", 12),
        ("my-2-video_mp4-12_jpg.rf.0a1b2c3d", "my 2 video.mp4", 12),
        ("clip_1_frame_12", "clip_1", 12),
        ("clip_12", "clip_1.mp4", 12),
        ("00012", "000.mp4", 12),
    ],
)
def test_the_frame_number_is_found_in_a_name(name, video, number):
    assert frame_number(name, video) == number


@pytest.mark.parametrize(
    "name",
    [
        "first",
        "4k",
        "00000_1",
        "2024-01-01",
        "Screenshot from 2024-01-01 10-11-04",
        "vlcsnap-2024-01-01-12h30m15s005",
    ],
)
def test_a_name_with_no_or_several_numbers_has_no_frame_number(name):
    assert frame_number(name, "walk.mp4") is None
