"""Following forwards and backwards, with a propagation that only repeats what it was told: what is
shown where, and from which pass."""

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
def sure():
    """How sure each pass is of what, 0.5 if nothing is said."""
    return []


@pytest.fixture
def seen(monkeypatch, sure):
    """The frames' numbers as the propagation is given them, a list for each pass."""
    passes = []

    def told(passes):
        return sure[(len(passes) - 1) % len(sure)] if sure else {}

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
                confidence[label] = told(passes).get(label, 0.5)
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
            confidence = [told(passes).get(number, 0.5) for number in range(1, len(state) + 1)]
            is_visible = ~state[:, 0].isnan()
            yield TrackedPoints(state, is_visible, torch.tensor(confidence) * is_visible)

    monkeypatch.setattr(mask_tracker, "stream_masks", stream_masks)
    monkeypatch.setattr(point_tracker, "stream_points", stream_points)
    return passes


def frames(count=FRAMES):
    return (np.full((*SIZE[::-1], 3), 10 * number, np.uint8) for number in range(count))


def mask(**objects):
    """Labels with the columns that each object has: `o1=(2, 5)`."""
    labels = np.zeros(SIZE[::-1], np.uint8)
    for name, (start, end) in objects.items():
        labels[4:12, start:end] = int(name[1:])
    return labels


def unreported(things, count, what):
    return things


def masks_of(given, scale=SAME, *, to_beginning=False):
    plan = plan_tracking(marked_objects(given), to_beginning=to_beginning)
    return MaskTracker(None, scale, given, "paper", plan)


def points_of(given, scale=SAME, *, to_beginning=False):
    plan = plan_tracking(marked_points(given), to_beginning=to_beginning)
    return PointTracker(None, scale, given, "paper", plan)


def followed(follower, count=FRAMES):
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        if follower.plan.has_backward_passes:
            passes = follower.track_backward(frames(count), Path(folder), unreported)
            opened.enter_context(passes)
        shown = list(follower.track(frames(count)))
        assert not list(Path(folder).iterdir())
        return shown


def objects(shown):
    return set(np.unique(shown.labels)) - {0}


def test_nothing_is_shown_before_the_first_mask_and_nothing_computed(seen):
    shown = followed(masks_of({3: mask(o1=(2, 8))}))
    assert [objects(masks) for masks in shown] == [set()] * 3 + [{1}] * 5
    assert seen == [[3, 4, 5, 6, 7]]


def test_to_the_beginning_fills_the_frames_before_from_the_last_mask_on(seen):
    given = {2: mask(o1=(2, 8)), 5: mask(o2=(12, 20))}
    shown = followed(masks_of(given, to_beginning=True))
    assert [objects(masks) for masks in shown] == [{1, 2}] * 8
    assert seen == [[5, 4, 3, 2, 1, 0], [2, 3, 4, 5, 6, 7]]


def test_between_two_masks_of_all_objects_both_passes_go(seen):
    given = {1: mask(o1=(2, 8)), 5: mask(o1=(4, 10))}
    shown = followed(masks_of(given))
    assert seen == [[5, 4, 3, 2], [1, 2, 3, 4, 5, 6, 7]]
    assert [objects(masks) for masks in shown] == [set()] + [{1}] * 7


def test_of_two_passes_each_object_is_taken_from_the_surer(seen, sure):
    given = {0: mask(o1=(2, 8), o2=(10, 14)), 4: mask(o1=(4, 10), o2=(12, 16))}
    sure[:] = [{1: 0.2, 2: 0.9}, {1: 0.8, 2: 0.1}]  # backwards, forwards
    shown = followed(masks_of(given))[2]
    assert np.array_equal(shown.labels, mask(o1=(2, 8), o2=(12, 16)))
    assert shown.confidence[1:3].tolist() == pytest.approx([0.8, 0.9])
    sure[:] = [{1: 0.2, 2: 0.7}, {1: 0.8, 2: 0.9}]
    assert np.array_equal(followed(masks_of(given))[2].labels, mask(o1=(2, 8), o2=(10, 14)))


@pytest.mark.parametrize(("confidence", "taken"), [(0.5, "ffbb"), (0.9, "fffb"), (0.1, "bbbb")])
def test_sureness_counts_by_how_near_a_pass_began(seen, sure, confidence, taken):
    given = {0: mask(o1=(2, 8)), 5: mask(o1=(12, 18))}
    sure[:] = [{1: 0.5}, {1: confidence}]  # backwards, forwards
    shown = followed(masks_of(given))[1:5]
    for masks, way in zip(shown, taken, strict=True):
        assert np.array_equal(masks.labels, given[0 if way == "f" else 5])
        assert masks.confidence[1] == pytest.approx(confidence if way == "f" else 0.5)


def test_where_two_objects_want_a_pixel_the_surer_has_it(seen, sure):
    given = {0: mask(o1=(2, 8), o2=(10, 14)), 4: mask(o1=(8, 12), o2=(14, 18))}
    sure[:] = [{1: 0.6, 2: 0.1}, {1: 0.2, 2: 0.5}]
    assert np.array_equal(followed(masks_of(given))[2].labels, mask(o2=(10, 14), o1=(8, 12)))


def test_no_object_is_shown_before_its_first_mask(seen):
    given = {0: mask(o1=(2, 8)), 3: mask(o2=(12, 20)), 6: mask(o1=(2, 8), o2=(12, 20))}
    shown = followed(masks_of(given))
    assert [objects(masks) for masks in shown] == [{1}] * 3 + [{1, 2}] * 5
    assert shown[1].confidence[1:3].tolist() == [0.5, 0]


def test_confidence_is_that_of_the_pass_that_is_shown(seen):
    given = {2: mask(o1=(2, 8)), 5: mask(o2=(12, 20))}
    shown = followed(masks_of(given, to_beginning=True))
    told = [masks.confidence[1:3].tolist() for masks in shown]
    assert told[:2] == [[0.5, 0.5]] * 2  # backwards
    assert told[2:6] == [[1, 0.5], [0.5, 0.5], [0.5, 0.5], [0.5, 1]]
    assert not followed(masks_of({3: mask(o1=(2, 8))}))[0].confidence.any()


def test_a_mask_is_shown_as_it_was_given_at_the_videos_size(seen):
    labels = mask(o1=(3, 8), o4=(9, 20))
    labels[5, 5] = 0
    shown = followed(masks_of({0: labels}, Scale.of(*SIZE, 8)))
    assert np.array_equal(shown[0].labels, labels)
    assert shown[1].labels.shape == labels.shape
    assert objects(shown[1]) == {1, 4}


def test_an_object_too_small_for_the_tracked_size_is_refused():
    labels = mask(o1=(3, 20))
    labels[0, 0] = 7
    with pytest.raises(InputError, match="object 7 of frame 12 has no pixel left at size 4"):
        check_large_enough({2: labels}, Scale.of(*SIZE, 4), lambda place: place + 10)


def test_points_come_forwards_from_their_frame_and_backwards_before_it(seen):
    nan = np.nan
    given = {
        1: np.array([[4, 4], [nan, nan]], np.float32),
        3: np.array([[nan, nan], [10, 8]], np.float32),
    }
    xs = np.array([located.xy[:, 0].numpy() for located in followed(points_of(given))])
    np.testing.assert_array_equal(xs[:, 0], [nan, 4, 5, 6, 7, 8, 9, 10])
    np.testing.assert_array_equal(xs[:, 1], [nan, nan, nan, 10, 11, 12, 13, 14])
    found = followed(points_of(given, to_beginning=True))
    xs = np.array([located.xy[:, 0].numpy() for located in found])
    np.testing.assert_array_equal(xs[:, 0], [5, 4, 5, 6, 7, 8, 9, 10])
    np.testing.assert_array_equal(xs[:, 1], [13, 12, 11, 10, 11, 12, 13, 14])


def test_of_two_passes_each_point_is_taken_from_the_surer(seen, sure):
    given = {0: np.array([[4, 4], [9, 9]], np.float32), 4: np.array([[14, 4], [1, 9]], np.float32)}
    sure[:] = [{1: 0.2, 2: 0.9}, {1: 0.8, 2: 0.1}]  # backwards, forwards
    found = followed(points_of(given))[2]
    np.testing.assert_array_equal(found.xy[:, 0].numpy(), [6, 3])
    np.testing.assert_allclose(found.confidence.numpy(), [0.8, 0.9])


def test_points_are_told_in_the_videos_pixels_whatever_the_tracked_size(seen):
    given = {0: np.array([[0, 0], [23, 15], [11.5, 7.5]], np.float32)}
    located = followed(points_of(given, Scale.of(*SIZE, 8)))
    np.testing.assert_array_equal(located[0].xy.numpy(), given[0])
    # a pixel at half the size is two
    np.testing.assert_allclose(located[1].xy[2].numpy(), [13.5, 7.5], atol=1e-5)


def test_a_pass_from_a_frame_that_can_not_be_read_is_left_out(seen):
    given = {0: mask(o1=(2, 8)), 3: mask(o1=(4, 10)), 9: mask(o1=(6, 12))}
    shown = followed(masks_of(given))
    assert seen == [[3, 2, 1], [0, 1, 2, 3, 4, 5, 6, 7]]
    assert len(shown) == 8


def corrected(kind, old, new, *, to_beginning=False):
    """An earlier tracking, and what becomes of it; it says of each frame whether it is new."""
    digests = marked_objects if kind is MaskTracker else marked_points
    first = plan_tracking(digests(old), to_beginning=to_beginning)
    previous = dict(enumerate(followed(kind(None, SAME, old, "paper", first))))
    plan = plan_correction(digests(old), digests(new), to_beginning=to_beginning)
    follower = kind(None, SAME, new, "paper", plan, previous)
    shown = followed(follower)
    return shown, [now is not before for now, before in zip(shown, previous.values(), strict=True)]


def test_a_correction_is_tracked_to_the_nearest_frames_that_are_marked(seen):
    old = {0: mask(o1=(0, 6)), 2: mask(o1=(2, 8)), 6: mask(o1=(4, 10))}
    new = {**old, 4: mask(o1=(12, 18))}
    shown, is_new = corrected(MaskTracker, old, new)
    assert seen[3:] == [[4, 3], [6, 5], [2, 3, 4, 5]]
    assert is_new == [False, False, False, True, True, True, False, False]
    assert np.array_equal(shown[4].labels, new[4])
    assert np.array_equal(shown[3].labels, old[2])


def test_objects_that_are_not_corrected_stay_where_they_were(seen):
    old = {0: mask(o1=(0, 6), o2=(18, 22)), 2: mask(o2=(8, 12)), 6: mask(o1=(4, 8))}
    new = {**old, 4: mask(o1=(14, 18))}
    shown, is_new = corrected(MaskTracker, old, new)
    assert is_new == [False, True, True, True, True, True, False, False]
    assert np.array_equal(shown[4].labels, mask(o1=(14, 18), o2=(8, 12)))
    assert np.array_equal(shown[2].labels, mask(o1=(0, 6), o2=(8, 12)))
    assert np.array_equal(shown[5].labels, mask(o1=(14, 18), o2=(8, 12)))


def test_an_object_that_a_correction_does_not_find_again_stays_where_it_was(seen, sure):
    old = {0: mask(o1=(0, 6), o2=(16, 20)), 3: mask(o1=(4, 8)), 7: mask(o1=(6, 10))}
    found = mask(o1=(4, 8)), np.zeros(256, np.float32)
    previous = {place: FrameMasks(*found) for place in range(FRAMES)}
    previous[6] = FrameMasks(mask(o1=(4, 8), o2=(14, 18)), np.full(256, 0.2, np.float32))
    new = {**old, 5: mask(o1=(8, 12))}
    plan = plan_correction(marked_objects(old), marked_objects(new), to_beginning=False)
    shown = followed(MaskTracker(None, SAME, new, "paper", plan, previous))
    assert np.array_equal(shown[6].labels, mask(o1=(8, 12), o2=(14, 18)))
    assert shown[6].confidence[1:3].tolist() == pytest.approx([0.5, 0.2])


def gone_in(given, gone, *, to_beginning=False):
    plan = plan_tracking(marked_objects(given, gone), to_beginning=to_beginning)
    return followed(MaskTracker(None, SAME, given, "paper", plan, gone=gone))


def columns_of(shown, number):
    """Of each frame, where the object begins; None where it is not there."""
    columns = [np.flatnonzero((one.labels == number).any(axis=0)) for one in shown]
    return [int(found[0]) if len(found) else None for found in columns]


def test_an_object_that_is_gone_is_shown_nowhere_until_it_is_marked_again(seen):
    given = {0: mask(o1=(2, 8), o2=(12, 16)), 6: mask(o1=(4, 10))}
    shown = gone_in(given, {3: {1}})
    assert columns_of(shown, 1) == [2, 2, 2, None, None, None, *[4] * (FRAMES - 6)]
    assert columns_of(shown, 2) == [12] * FRAMES
    assert (shown[4].confidence[1], shown[6].confidence[1]) == (1, 1)


def test_what_comes_back_from_a_later_frame_ends_where_the_object_is_gone(seen):
    shown = gone_in({6: mask(o1=(4, 10))}, {3: {1}}, to_beginning=True)
    assert columns_of(shown, 1) == [*[None] * 6, *[4] * (FRAMES - 6)]


def test_a_correction_that_an_object_is_gone_leaves_the_others(seen):
    given = {0: mask(o1=(2, 8), o2=(12, 16))}
    found = mask(o1=(4, 8), o2=(14, 18)), np.full(256, 0.9, np.float32)
    previous = {place: FrameMasks(*found) for place in range(FRAMES)}
    gone = {5: frozenset({1})}
    plan = plan_correction(marked_objects(given), marked_objects(given, gone), to_beginning=False)
    shown = followed(MaskTracker(None, SAME, given, "paper", plan, previous, gone))
    assert columns_of(shown, 1)[5:] == [None] * (FRAMES - 5)
    assert columns_of(shown, 2)[1:] == [14] * (FRAMES - 1)


def test_a_surer_pass_changes_nothing_of_what_a_correction_is_not_about(seen, sure):
    found = mask(o1=(4, 8), o2=(14, 18)), np.full(256, 0.1, np.float32)
    previous = {place: FrameMasks(*found) for place in range(FRAMES)}
    previous[4] = FrameMasks(mask(o1=(4, 8), o2=(9, 10)), found[1])
    old = {0: found[0]}
    new = {**old, 4: mask(o1=(6, 10))}
    plan = plan_correction(marked_objects(old), marked_objects(new), to_beginning=False)
    sure[:] = [{1: 0.9, 2: 0.9}]
    shown = followed(MaskTracker(None, SAME, new, "paper", plan, previous))
    for place in (2, 6):
        assert np.array_equal(shown[place].labels == 2, found[0] == 2)
        assert shown[place].confidence[1:3].tolist() == pytest.approx([0.9, 0.1])


def test_of_two_objects_that_want_a_pixel_the_surer_has_it(seen, sure):
    old = {0: mask(o1=(0, 4), o2=(10, 14))}
    found = FrameMasks(old[0], np.full(256, 0.6, np.float32))
    previous = {0: found, **dict.fromkeys(range(1, FRAMES), found)}
    new = {**old, 4: mask(o1=(8, 12))}
    plan = plan_correction(marked_objects(old), marked_objects(new), to_beginning=False)
    for confidence, both in (
        (0.9, mask(o2=(10, 14), o1=(8, 12))),
        (0.3, mask(o1=(8, 10), o2=(10, 14))),
    ):
        sure[:] = [{1: confidence}]
        shown = followed(MaskTracker(None, SAME, new, "paper", plan, previous))
        assert np.array_equal(shown[6].labels, both)


def test_a_new_object_is_tracked_from_its_first_mask_on(seen):
    old = {0: mask(o1=(0, 6))}
    shown, is_new = corrected(MaskTracker, old, {**old, 5: mask(o2=(10, 14))})
    assert seen[1:] == [[5, 6, 7]]
    assert is_new == [False] * 5 + [True] * 3
    assert objects(shown[4]) == {1}
    assert np.array_equal(shown[7].labels, mask(o1=(0, 6), o2=(10, 14)))


def test_a_correction_that_is_taken_back_is_tracked_from_what_is_left(seen):
    old = {0: mask(o1=(0, 6)), 3: mask(o1=(10, 14)), 6: mask(o1=(4, 8))}
    shown, is_new = corrected(MaskTracker, old, {0: old[0], 6: old[6]})
    assert is_new == [False] + [True] * 5 + [False] * 2
    assert np.array_equal(shown[3].labels, old[0])


def test_a_corrected_point_leaves_the_others(seen):
    nan = np.nan
    old = {0: np.array([[4, 4], [9, 9]], np.float32)}
    new = {**old, 4: np.array([[14, 4], [nan, nan]], np.float32)}
    shown, is_new = corrected(PointTracker, old, new)
    xs = np.array([located.xy[:, 0].numpy() for located in shown])
    assert is_new == [False] + [True] * 7
    np.testing.assert_array_equal(xs[:, 1], [9, 10, 11, 12, 13, 14, 15, 16])
    np.testing.assert_array_equal(xs[4:, 0], [14, 15, 16, 17])


def test_what_is_tracked_ahead_is_what_is_shown(seen, tmp_path):
    given = {1: mask(o1=(2, 8)), 5: mask(o1=(4, 10))}
    follower = masks_of(given)
    with (
        follower.track_backward(frames(), tmp_path, unreported),
        follower.track_ahead(frames(), tmp_path),
    ):
        ahead = list(follower.track(frames()))
    for one, other in zip(ahead, followed(masks_of(given)), strict=True):
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.confidence, other.confidence)


def test_masks_are_kept_small_and_come_back(tmp_path):
    masks = CompressedMasks(16, 24)
    masks[57], masks[3] = mask(o1=(2, 8)), mask(o2=(2, 8))
    assert list(masks) == [3, 57]
    assert np.array_equal(masks[57], mask(o1=(2, 8)))
    assert sum(map(len, masks.packed.values())) < 100


def test_a_buffer_gives_its_records_in_any_order_and_leaves_nothing(tmp_path):
    with DiskBuffer(tmp_path) as buffer:
        for number in range(100):
            buffer[2 * number] = bytes([number]) * number
        assert [buffer[number] for number in (198, 0, 100)] == [b"c" * 99, b"", b"2" * 50]
        buffer[7] = b"more"
        assert (len(buffer), buffer[7], buffer[2]) == (101, b"more", b"\x01")
        assert (7 in buffer, 9 in buffer) == (True, False)
        assert not list(tmp_path.iterdir())
