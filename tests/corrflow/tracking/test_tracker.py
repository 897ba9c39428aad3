"""Following forwards and backwards, with a propagation that only repeats what it was told: what is
shown where, and from which pass."""

import numpy as np
import pytest
import torch

from corrflow import InputError
from corrflow.propagation import TrackedMasks, TrackedPoints
from corrflow.scale import Scale
from corrflow.tracking import tracker as module
from corrflow.tracking.disk_buffer import CompressedMasks, DiskBuffer
from corrflow.tracking.tracker import MaskTracker, PointTracker

SIZE = 24, 16  # of the video, width and height
SAME = Scale.of(*SIZE, 999)
FRAMES = 8


@pytest.fixture
def seen(monkeypatch):
    """The frames' numbers as the propagation is given them, a list for each pass."""
    passes = []

    def stream_masks(model, frames, labels, protocol):
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
            confidence = torch.zeros(256)
            confidence[torch.unique(state).long()] = 0.5
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
            yield TrackedPoints(state, ~state[:, 0].isnan(), torch.ones(len(state)))

    monkeypatch.setattr(module, "stream_masks", stream_masks)
    monkeypatch.setattr(module, "stream_points", stream_points)
    return passes


def frames(count=FRAMES):
    return (np.full((*SIZE[::-1], 3), 10 * number, np.uint8) for number in range(count))


def mask(**objects):
    """Labels with the columns that each object has: `o1=(2, 5)`."""
    labels = np.zeros(SIZE[::-1], np.uint8)
    for name, (start, end) in objects.items():
        labels[4:12, start:end] = int(name[1:])
    return labels


def unreported(things, what):
    return things


def followed(follower, tmp_path=None):
    if tmp_path is None:
        return list(follower.track(frames()))
    with follower.track_backward(frames(), tmp_path, unreported):
        return list(follower.track(frames()))


def objects(shown):
    return set(np.unique(shown.labels)) - {0}


def test_nothing_is_shown_before_the_first_mask_and_nothing_computed(seen):
    shown = followed(MaskTracker(None, SAME, {3: mask(o1=(2, 8))}, "paper"))
    assert [objects(masks) for masks in shown] == [set()] * 3 + [{1}] * 5
    assert seen == [[3, 4, 5, 6, 7]]


def test_backwards_fills_the_frames_before_from_the_last_first_mask_on(seen, tmp_path):
    given = {2: mask(o1=(2, 8)), 5: mask(o2=(12, 20))}
    shown = followed(MaskTracker(None, SAME, given, "paper"), tmp_path)
    assert [objects(masks) for masks in shown] == [{1, 2}] * 8
    assert seen == [[5, 4, 3, 2, 1, 0], [2, 3, 4, 5, 6, 7]]
    assert not list(tmp_path.iterdir())


def test_confidence_is_that_of_the_pass_that_is_shown(seen, tmp_path):
    given = {2: mask(o1=(2, 8)), 5: mask(o2=(12, 20))}
    shown = followed(MaskTracker(None, SAME, given, "paper"), tmp_path)
    told = [masks.confidence[1:3].tolist() for masks in shown]
    assert told[:2] == [[0.5, 0.5]] * 2  # backwards
    assert told[2:6] == [[1, 0.5], [0.5, 0.5], [0.5, 0.5], [0.5, 1]]
    assert not followed(MaskTracker(None, SAME, {3: mask(o1=(2, 8))}, "paper"))[0].confidence.any()


def test_an_object_comes_from_the_forward_pass_from_its_mask_on_and_goes_before_others(
    seen, tmp_path
):
    given = {2: mask(o1=(2, 12)), 5: mask(o2=(8, 20))}
    shown = followed(MaskTracker(None, SAME, given, "paper"), tmp_path)
    assert (shown[3].labels[6, 8:12] == 1).all()  # where both passes want a pixel
    assert (shown[3].labels[6, 12:20] == 2).all()
    assert np.array_equal(shown[5].labels, np.where(given[5] > 0, given[5], given[2]))


def test_a_mask_is_shown_as_it_was_given_at_the_videos_size(seen):
    labels = mask(o1=(3, 8), o4=(9, 20))
    labels[5, 5] = 0
    shown = followed(MaskTracker(None, Scale.of(*SIZE, 8), {0: labels}, "paper"))
    assert np.array_equal(shown[0].labels, labels)
    assert shown[1].labels.shape == labels.shape
    assert objects(shown[1]) == {1, 4}


def test_an_object_too_small_for_the_tracked_size_is_refused():
    labels = mask(o1=(3, 20))
    labels[0, 0] = 7
    with pytest.raises(InputError, match="object 7 of frame 2 has no pixel left at size 4"):
        MaskTracker(None, Scale.of(*SIZE, 4), {2: labels}, "paper")


def test_points_come_forwards_from_their_frame_and_backwards_before_it(seen, tmp_path):
    nan = np.nan
    given = {
        1: np.array([[4, 4], [nan, nan]], np.float32),
        3: np.array([[nan, nan], [10, 8]], np.float32),
    }
    xs = np.array(
        [located.xy[:, 0].numpy() for located in followed(PointTracker(None, SAME, given, "paper"))]
    )
    np.testing.assert_array_equal(xs[:, 0], [nan, 4, 5, 6, 7, 8, 9, 10])
    np.testing.assert_array_equal(xs[:, 1], [nan, nan, nan, 10, 11, 12, 13, 14])
    xs = np.array(
        [
            located.xy[:, 0].numpy()
            for located in followed(PointTracker(None, SAME, given, "paper"), tmp_path)
        ]
    )
    np.testing.assert_array_equal(xs[:, 0], [5, 4, 5, 6, 7, 8, 9, 10])
    np.testing.assert_array_equal(xs[:, 1], [13, 12, 11, 10, 11, 12, 13, 14])


def test_points_are_told_in_the_videos_pixels_whatever_the_tracked_size(seen):
    given = {0: np.array([[0, 0], [23, 15], [11.5, 7.5]], np.float32)}
    located = followed(PointTracker(None, Scale.of(*SIZE, 8), given, "paper"))
    np.testing.assert_array_equal(located[0].xy.numpy(), given[0])
    # a pixel at half the size is two
    np.testing.assert_allclose(located[1].xy[2].numpy(), [13.5, 7.5], atol=1e-5)


def test_a_frame_beyond_the_end_is_noticed_on_the_way_back(seen, tmp_path):
    follower = MaskTracker(None, SAME, {9: mask(o1=(2, 8))}, "paper")
    with pytest.raises(InputError, match="frame 9: the video has 8 frames: expected 0 to 7"):
        follower.track_backward(frames(), tmp_path, unreported)


def test_masks_are_kept_small_and_come_back(tmp_path):
    masks = CompressedMasks(16, 24)
    masks[57], masks[3] = mask(o1=(2, 8)), mask(o2=(2, 8))
    assert list(masks) == [3, 57]
    assert np.array_equal(masks[57], mask(o1=(2, 8)))
    assert sum(map(len, masks.packed.values())) < 100


def test_a_spool_gives_its_records_in_any_order_and_leaves_nothing(tmp_path):
    with DiskBuffer(tmp_path) as spool:
        for number in range(100):
            spool.append(bytes([number]) * number)
        assert [spool[number] for number in (99, 0, 50)] == [b"c" * 99, b"", b"2" * 50]
        spool.append(b"more")
        assert (len(spool), spool[100], spool[1]) == (101, b"more", b"\x01")
        assert not list(tmp_path.iterdir())
