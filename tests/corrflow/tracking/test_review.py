"""Which frames a person should review."""

import numpy as np

from corrflow.tracking.review import ReviewList, frames_to_review


def test_the_least_confident_frames_come_first_and_are_far_apart():
    confidence = [1.0] + [0.9] * 40
    confidence[20], confidence[21], confidence[35], confidence[3] = 0.2, 0.1, 0.3, 0.8
    chosen = frames_to_review(confidence, 3)
    assert [frame.frame_index for frame in chosen] == [21, 35, 3]
    assert [frame.confidence for frame in chosen] == [0.1, 0.3, 0.8]
    assert frames_to_review(confidence, 0) == []


def test_frames_of_full_confidence_are_not_chosen():
    assert frames_to_review([1.0, 1.0, 1.0], 5) == []
    assert [frame.frame_index for frame in frames_to_review([1.0, 0.5], 5)] == [1]


def test_frames_of_a_long_video_are_spread_over_it():
    indices = [
        frame.frame_index for frame in frames_to_review(np.linspace(0.9, 0.1, 1000).tolist(), 4)
    ]
    assert np.diff(sorted(indices)).min() >= 1000 // 8


def test_lost_objects_count_but_not_those_that_have_not_appeared_yet():
    review = ReviewList()
    for confidence in ([0, 0], [1, 0], [0.8, 0], [0.7, 1], [0, 0.9]):
        review.add(np.array(confidence, np.float32))
    assert np.allclose(review.confidence, [1, 1, 0.8, 0.7, 0])
    assert review.choose(1)[0].frame_index == 4
