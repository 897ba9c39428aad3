"""Forward and backward tracking with a stand-in for propagation that only repeats its input: what
is shown in each frame, and from which pass."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from corrflow import InputError
from corrflow.propagation import TrackedMasks, TrackedPoints
from corrflow.scale import Scale
from corrflow.tracking import mask_tracker, point_tracker
from corrflow.tracking.disk_buffer import CompressedMasks, DiskBuffer
from corrflow.tracking.mask_tracker import FrameMasks, MaskTracker, check_large_enough
from corrflow.tracking.plan import marked_objects, marked_points, plan_correction, plan_tracking
from corrflow.tracking.point_tracker import PointTracker

SIZE = 24, 16  # of the video, width and height
SAME = Scale.of(*SIZE, 0)
FRAMES = 8


@pytest.fixture
def confidences():
    """The confidence of each pass, by number of the object or point; a test fills it, and what is
    missing is 0.5."""
    return []


@pytest.fixture
def propagated(monkeypatch, confidences):
    """The indices of the frames that the propagation is given, a list for each pass. A stand-in
    replaces it, in which objects stay where they are and points move right by a pixel per frame."""
    passes = []

    def confidence_of_pass(passes):
        return confidences[(len(passes) - 1) % len(confidences)] if confidences else {}

    def stream_masks(model, frames, labels, protocol, gone):
        state, order = None, []
        passes.append(order)
        for index, frame in enumerate(frames):
            order.append(int(frame[0, 0, 0]) // 10)
            if index in labels:
                new = labels[index]
                state = (
                    new
                    if state is None
                    else torch.where(
                        new > 0, new, torch.where(torch.isin(state, new[new > 0]), 0, state)
                    )
                )
            absent = torch.tensor(sorted(gone.get(index, ())), dtype=state.dtype)
            state = state.masked_fill(torch.isin(state, absent), 0)
            confidence = torch.zeros(256)
            for label in torch.unique(state).tolist():
                confidence[label] = confidence_of_pass(passes).get(label, 0.5)
            yield TrackedMasks(state.clone(), confidence)

    def stream_points(model, frames, points, protocol):
        state, order = None, []
        passes.append(order)
        for index, frame in enumerate(frames):
            order.append(int(frame[0, 0, 0]) // 10)
            new = points.get(index, torch.tensor(torch.nan))
            state = (
                new
                if state is None
                else torch.where(new.isnan(), state + torch.tensor([1.0, 0.0]), new)
            )
            confidence = [
                confidence_of_pass(passes).get(number, 0.5) for number in range(1, len(state) + 1)
            ]
            is_visible = ~state[:, 0].isnan()
            yield TrackedPoints(state, is_visible, torch.tensor(confidence) * is_visible)

    monkeypatch.setattr(mask_tracker, "stream_masks", stream_masks)
    monkeypatch.setattr(point_tracker, "stream_points", stream_points)
    return passes


def frames(count=FRAMES):
    return (np.full((*SIZE[::-1], 3), 10 * number, np.uint8) for number in range(count))


def mask(**objects):
    """Labels in which each object fills a range of columns, such as `o1=(2, 5)`."""
    labels = np.zeros(SIZE[::-1], np.uint8)
    for name, (start, end) in objects.items():
        labels[4:12, start:end] = int(name[1:])
    return labels


def without_progress(items, count, title):
    return items


def tracker_of_masks(given, scale=SAME, *, to_beginning=False):
    plan = plan_tracking(marked_objects(given), to_beginning=to_beginning)
    return MaskTracker(None, scale, given, "paper", plan)


def tracker_of_points(given, scale=SAME, *, to_beginning=False):
    plan = plan_tracking(marked_points(given), to_beginning=to_beginning)
    return PointTracker(None, scale, given, "paper", plan)


def track_all(tracker, count=FRAMES):
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        if tracker.plan.has_backward_passes:
            passes = tracker.track_backward(frames(count), Path(folder), without_progress)
            opened.enter_context(passes)
        results = list(tracker.track(frames(count)))
        assert not list(Path(folder).iterdir())
        return results


def objects(shown):
    return set(np.unique(shown.labels)) - {0}


def test_frames_before_the_first_mask_are_empty_and_not_computed(propagated):
    shown = track_all(tracker_of_masks({3: mask(o1=(2, 8))}))
    assert [objects(masks) for masks in shown] == [set()] * 3 + [{1}] * 5
    assert propagated == [[3, 4, 5, 6, 7]]


def test_to_the_beginning_tracks_back_from_the_last_mask(propagated):
    given = {2: mask(o1=(2, 8)), 5: mask(o2=(12, 20))}
    shown = track_all(tracker_of_masks(given, to_beginning=True))
    assert [objects(masks) for masks in shown] == [{1, 2}] * 8
    assert propagated == [[5, 4, 3, 2, 1, 0], [2, 3, 4, 5, 6, 7]]


def test_frames_between_two_complete_masks_get_both_passes(propagated):
    given = {1: mask(o1=(2, 8)), 5: mask(o1=(4, 10))}
    shown = track_all(tracker_of_masks(given))
    assert propagated == [[5, 4, 3, 2], [1, 2, 3, 4, 5, 6, 7]]
    assert [objects(masks) for masks in shown] == [set()] + [{1}] * 7


def test_each_object_is_taken_from_the_more_confident_pass(propagated, confidences):
    given = {0: mask(o1=(2, 8), o2=(10, 14)), 4: mask(o1=(4, 10), o2=(12, 16))}
    confidences[:] = [{1: 0.2, 2: 0.9}, {1: 0.8, 2: 0.1}]  # backwards, forwards
    shown = track_all(tracker_of_masks(given))[2]
    assert np.array_equal(shown.labels, mask(o1=(2, 8), o2=(12, 16)))
    assert shown.confidence[1:3].tolist() == pytest.approx([0.8, 0.9])
    confidences[:] = [{1: 0.2, 2: 0.7}, {1: 0.8, 2: 0.9}]
    assert np.array_equal(
        track_all(tracker_of_masks(given))[2].labels, mask(o1=(2, 8), o2=(10, 14))
    )


@pytest.mark.parametrize(("confidence", "taken"), [(0.5, "ffbb"), (0.9, "fffb"), (0.1, "bbbb")])
def test_passes_are_weighted_by_their_confidence_and_distance(
    propagated, confidences, confidence, taken
):
    given = {0: mask(o1=(2, 8)), 5: mask(o1=(12, 18))}
    confidences[:] = [{1: 0.5}, {1: confidence}]  # backwards, forwards
    shown = track_all(tracker_of_masks(given))[1:5]
    for masks, direction in zip(shown, taken, strict=True):
        assert np.array_equal(masks.labels, given[0 if direction == "f" else 5])
        assert masks.confidence[1] == pytest.approx(confidence if direction == "f" else 0.5)


def test_overlapping_pixels_go_to_the_more_confident_object(propagated, confidences):
    given = {0: mask(o1=(2, 8), o2=(10, 14)), 4: mask(o1=(8, 12), o2=(14, 18))}
    confidences[:] = [{1: 0.6, 2: 0.1}, {1: 0.2, 2: 0.5}]
    assert np.array_equal(
        track_all(tracker_of_masks(given))[2].labels, mask(o2=(10, 14), o1=(8, 12))
    )


def test_no_object_is_shown_before_its_first_mask(propagated):
    given = {0: mask(o1=(2, 8)), 3: mask(o2=(12, 20)), 6: mask(o1=(2, 8), o2=(12, 20))}
    shown = track_all(tracker_of_masks(given))
    assert [objects(masks) for masks in shown] == [{1}] * 3 + [{1, 2}] * 5
    assert shown[1].confidence[1:3].tolist() == [0.5, 0]


def test_confidence_is_that_of_the_pass_that_is_shown(propagated):
    given = {2: mask(o1=(2, 8)), 5: mask(o2=(12, 20))}
    shown = track_all(tracker_of_masks(given, to_beginning=True))
    confidence = [masks.confidence[1:3].tolist() for masks in shown]
    assert confidence[:2] == [[0.5, 0.5]] * 2  # backwards
    assert confidence[2:6] == [[1, 0.5], [0.5, 0.5], [0.5, 0.5], [0.5, 1]]
    assert not track_all(tracker_of_masks({3: mask(o1=(2, 8))}))[0].confidence.any()


def test_a_marked_frame_shows_exactly_its_mask_at_the_videos_size(propagated):
    labels = mask(o1=(3, 8), o4=(9, 20))
    labels[5, 5] = 0
    shown = track_all(tracker_of_masks({0: labels}, Scale.of(*SIZE, 8)))
    assert np.array_equal(shown[0].labels, labels)
    assert shown[1].labels.shape == labels.shape
    assert objects(shown[1]) == {1, 4}


def test_an_object_too_small_for_the_tracked_size_is_refused():
    labels = mask(o1=(3, 20))
    labels[0, 0] = 7
    with pytest.raises(InputError, match="object 7 of frame 12 has no pixel left at size 4"):
        check_large_enough({2: labels}, Scale.of(*SIZE, 4), lambda index: index + 10)


def test_points_are_tracked_forward_and_to_the_beginning_backward(propagated):
    nan = np.nan
    given = {
        1: np.array([[4, 4], [nan, nan]], np.float32),
        3: np.array([[nan, nan], [10, 8]], np.float32),
    }
    xs = np.array([located.xy[:, 0].numpy() for located in track_all(tracker_of_points(given))])
    np.testing.assert_array_equal(xs[:, 0], [nan, 4, 5, 6, 7, 8, 9, 10])
    np.testing.assert_array_equal(xs[:, 1], [nan, nan, nan, 10, 11, 12, 13, 14])
    found = track_all(tracker_of_points(given, to_beginning=True))
    xs = np.array([located.xy[:, 0].numpy() for located in found])
    np.testing.assert_array_equal(xs[:, 0], [5, 4, 5, 6, 7, 8, 9, 10])
    np.testing.assert_array_equal(xs[:, 1], [13, 12, 11, 10, 11, 12, 13, 14])


def test_each_point_is_taken_from_the_more_confident_pass(propagated, confidences):
    given = {0: np.array([[4, 4], [9, 9]], np.float32), 4: np.array([[14, 4], [1, 9]], np.float32)}
    confidences[:] = [{1: 0.2, 2: 0.9}, {1: 0.8, 2: 0.1}]  # backwards, forwards
    found = track_all(tracker_of_points(given))[2]
    np.testing.assert_array_equal(found.xy[:, 0].numpy(), [6, 3])
    np.testing.assert_allclose(found.confidence.numpy(), [0.8, 0.9])


def test_points_are_in_the_videos_pixels_at_any_tracked_size(propagated):
    given = {0: np.array([[0, 0], [23, 15], [11.5, 7.5]], np.float32)}
    located = track_all(tracker_of_points(given, Scale.of(*SIZE, 8)))
    np.testing.assert_array_equal(located[0].xy.numpy(), given[0])
    # the stand-in moves points by a pixel of the tracked size, which is two pixels of the video
    np.testing.assert_allclose(located[1].xy[2].numpy(), [13.5, 7.5], atol=1e-5)


def test_a_backward_pass_from_a_frame_beyond_the_video_is_left_out(propagated):
    given = {0: mask(o1=(2, 8)), 3: mask(o1=(4, 10)), 9: mask(o1=(6, 12))}
    shown = track_all(tracker_of_masks(given))
    assert propagated == [[3, 2, 1], [0, 1, 2, 3, 4, 5, 6, 7]]
    assert len(shown) == 8


def track_correction(kind, old, new, *, to_beginning=False):
    """Track `old`, then correct it to `new`. Returns the results of the correction, and for each
    frame whether its result is new."""
    digests = marked_objects if kind is MaskTracker else marked_points
    first = plan_tracking(digests(old), to_beginning=to_beginning)
    previous = dict(enumerate(track_all(kind(None, SAME, old, "paper", first))))
    plan = plan_correction(digests(old), digests(new), to_beginning=to_beginning)
    tracker = kind(None, SAME, new, "paper", plan, previous)
    shown = track_all(tracker)
    return shown, [now is not before for now, before in zip(shown, previous.values(), strict=True)]


def test_a_correction_is_tracked_up_to_the_nearest_marked_frames(propagated):
    old = {0: mask(o1=(0, 6)), 2: mask(o1=(2, 8)), 6: mask(o1=(4, 10))}
    new = {**old, 4: mask(o1=(12, 18))}
    shown, is_new = track_correction(MaskTracker, old, new)
    assert propagated[3:] == [[4, 3], [6, 5], [2, 3, 4, 5]]
    assert is_new == [False, False, False, True, True, True, False, False]
    assert np.array_equal(shown[4].labels, new[4])
    assert np.array_equal(shown[3].labels, old[2])


def test_objects_that_are_not_corrected_do_not_change(propagated):
    old = {0: mask(o1=(0, 6), o2=(18, 22)), 2: mask(o2=(8, 12)), 6: mask(o1=(4, 8))}
    new = {**old, 4: mask(o1=(14, 18))}
    shown, is_new = track_correction(MaskTracker, old, new)
    assert is_new == [False, True, True, True, True, True, False, False]
    assert np.array_equal(shown[4].labels, mask(o1=(14, 18), o2=(8, 12)))
    assert np.array_equal(shown[2].labels, mask(o1=(0, 6), o2=(8, 12)))
    assert np.array_equal(shown[5].labels, mask(o1=(14, 18), o2=(8, 12)))


def test_an_object_that_the_new_passes_do_not_find_stays_as_it_was(propagated, confidences):
    old = {0: mask(o1=(0, 6), o2=(16, 20)), 3: mask(o1=(4, 8)), 7: mask(o1=(6, 10))}
    found = mask(o1=(4, 8)), np.zeros(256, np.float32)
    previous = {index: FrameMasks(*found) for index in range(FRAMES)}
    previous[6] = FrameMasks(mask(o1=(4, 8), o2=(14, 18)), np.full(256, 0.2, np.float32))
    new = {**old, 5: mask(o1=(8, 12))}
    plan = plan_correction(marked_objects(old), marked_objects(new), to_beginning=False)
    shown = track_all(MaskTracker(None, SAME, new, "paper", plan, previous))
    assert np.array_equal(shown[6].labels, mask(o1=(8, 12), o2=(14, 18)))
    assert shown[6].confidence[1:3].tolist() == pytest.approx([0.5, 0.2])


def track_with_gone(given, gone, *, to_beginning=False):
    plan = plan_tracking(marked_objects(given, gone), to_beginning=to_beginning)
    return track_all(MaskTracker(None, SAME, given, "paper", plan, gone=gone))


def columns_of(shown, number):
    """The first column of an object in each frame; None where it is absent."""
    columns = [np.flatnonzero((one.labels == number).any(axis=0)) for one in shown]
    return [int(found[0]) if len(found) else None for found in columns]


def test_an_object_marked_as_gone_is_hidden_until_it_is_marked_again(propagated):
    given = {0: mask(o1=(2, 8), o2=(12, 16)), 6: mask(o1=(4, 10))}
    shown = track_with_gone(given, {3: {1}})
    assert columns_of(shown, 1) == [2, 2, 2, None, None, None, *[4] * (FRAMES - 6)]
    assert columns_of(shown, 2) == [12] * FRAMES
    assert (shown[4].confidence[1], shown[6].confidence[1]) == (1, 1)


def test_a_backward_pass_does_not_show_an_object_that_is_gone(propagated):
    shown = track_with_gone({6: mask(o1=(4, 10))}, {3: {1}}, to_beginning=True)
    assert columns_of(shown, 1) == [*[None] * 6, *[4] * (FRAMES - 6)]


def test_marking_an_object_as_gone_does_not_change_the_others(propagated):
    given = {0: mask(o1=(2, 8), o2=(12, 16))}
    found = mask(o1=(4, 8), o2=(14, 18)), np.full(256, 0.9, np.float32)
    previous = {index: FrameMasks(*found) for index in range(FRAMES)}
    gone = {5: frozenset({1})}
    plan = plan_correction(marked_objects(given), marked_objects(given, gone), to_beginning=False)
    shown = track_all(MaskTracker(None, SAME, given, "paper", plan, previous, gone))
    assert columns_of(shown, 1)[5:] == [None] * (FRAMES - 5)
    assert columns_of(shown, 2)[1:] == [14] * (FRAMES - 1)


def test_a_more_confident_pass_does_not_change_uncorrected_objects(propagated, confidences):
    found = mask(o1=(4, 8), o2=(14, 18)), np.full(256, 0.1, np.float32)
    previous = {index: FrameMasks(*found) for index in range(FRAMES)}
    previous[4] = FrameMasks(mask(o1=(4, 8), o2=(9, 10)), found[1])
    old = {0: found[0]}
    new = {**old, 4: mask(o1=(6, 10))}
    plan = plan_correction(marked_objects(old), marked_objects(new), to_beginning=False)
    confidences[:] = [{1: 0.9, 2: 0.9}]
    shown = track_all(MaskTracker(None, SAME, new, "paper", plan, previous))
    for index in (2, 6):
        assert np.array_equal(shown[index].labels == 2, found[0] == 2)
        assert shown[index].confidence[1:3].tolist() == pytest.approx([0.9, 0.1])


def test_in_a_correction_overlaps_go_to_the_more_confident_object(propagated, confidences):
    old = {0: mask(o1=(0, 4), o2=(10, 14))}
    found = FrameMasks(old[0], np.full(256, 0.6, np.float32))
    previous = {0: found, **dict.fromkeys(range(1, FRAMES), found)}
    new = {**old, 4: mask(o1=(8, 12))}
    plan = plan_correction(marked_objects(old), marked_objects(new), to_beginning=False)
    for confidence, both in (
        (0.9, mask(o2=(10, 14), o1=(8, 12))),
        (0.3, mask(o1=(8, 10), o2=(10, 14))),
    ):
        confidences[:] = [{1: confidence}]
        shown = track_all(MaskTracker(None, SAME, new, "paper", plan, previous))
        assert np.array_equal(shown[6].labels, both)


def test_a_new_object_is_tracked_from_its_first_mask_on(propagated):
    old = {0: mask(o1=(0, 6))}
    shown, is_new = track_correction(MaskTracker, old, {**old, 5: mask(o2=(10, 14))})
    assert propagated[1:] == [[5, 6, 7]]
    assert is_new == [False] * 5 + [True] * 3
    assert objects(shown[4]) == {1}
    assert np.array_equal(shown[7].labels, mask(o1=(0, 6), o2=(10, 14)))


def test_removing_a_mark_tracks_again_from_the_remaining_marks(propagated):
    old = {0: mask(o1=(0, 6)), 3: mask(o1=(10, 14)), 6: mask(o1=(4, 8))}
    shown, is_new = track_correction(MaskTracker, old, {0: old[0], 6: old[6]})
    assert is_new == [False] + [True] * 5 + [False] * 2
    assert np.array_equal(shown[3].labels, old[0])


def test_correcting_a_point_does_not_change_the_others(propagated):
    nan = np.nan
    old = {0: np.array([[4, 4], [9, 9]], np.float32)}
    new = {**old, 4: np.array([[14, 4], [nan, nan]], np.float32)}
    shown, is_new = track_correction(PointTracker, old, new)
    xs = np.array([located.xy[:, 0].numpy() for located in shown])
    assert is_new == [False] + [True] * 7
    np.testing.assert_array_equal(xs[:, 1], [9, 10, 11, 12, 13, 14, 15, 16])
    np.testing.assert_array_equal(xs[4:, 0], [14, 15, 16, 17])


def test_track_ahead_gives_the_same_results_as_track(propagated, tmp_path):
    given = {1: mask(o1=(2, 8)), 5: mask(o1=(4, 10))}
    tracker = tracker_of_masks(given)
    with (
        tracker.track_backward(frames(), tmp_path, without_progress),
        tracker.track_ahead(frames(), tmp_path),
    ):
        ahead = list(tracker.track(frames()))
    for one, other in zip(ahead, track_all(tracker_of_masks(given)), strict=True):
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.confidence, other.confidence)


def test_compressed_masks_are_small_and_restored_exactly(tmp_path):
    masks = CompressedMasks(16, 24)
    masks[57], masks[3] = mask(o1=(2, 8)), mask(o2=(2, 8))
    assert list(masks) == [3, 57]
    assert np.array_equal(masks[57], mask(o1=(2, 8)))
    assert sum(map(len, masks.packed.values())) < 100


def test_a_disk_buffer_reads_in_any_order_and_leaves_no_files(tmp_path):
    with DiskBuffer(tmp_path) as buffer:
        for number in range(100):
            buffer[2 * number] = bytes([number]) * number
        assert [buffer[number] for number in (198, 0, 100)] == [b"c" * 99, b"", b"2" * 50]
        buffer[7] = b"more"
        assert (len(buffer), buffer[7], buffer[2]) == (101, b"more", b"\x01")
        assert (7 in buffer, 9 in buffer) == (True, False)
        assert not list(tmp_path.iterdir())
