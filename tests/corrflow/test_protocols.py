"""Propagation protocols: several references, objects that enter late, points, several videos in
step, and other encoders."""

import itertools
import resource
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import corrflow
from corrflow import CorrFlow, Encoder, InputError, ModelConfig, Protocol
from corrflow.encoders.resnet import ResNetConfig
from corrflow.model import weights_digest
from corrflow.propagation import (
    PROTOCOLS,
    find_protocol,
    stream,
    stream_masks,
    stream_points,
    stream_points_together,
    stream_together,
)
from corrflow.propagation.labels import Copied, MaskLabels, merge_given_labels
from corrflow.propagation.references import LATE_REFERENCES, Reference, References
from corrflow.propagation.video import remembered
from corrflow.whitening import Whitening

TRACKING = [name for name, protocol in PROTOCOLS.items() if protocol.propagates]
SIDE = 16


def colors(frames):
    """Features that separate colours sharply."""
    return 40 * F.normalize(F.avg_pool2d(frames, 4) - 0.5, dim=1)


class FunctionEncoder(Encoder):
    """A function as an encoder."""

    def __init__(self, encode, stride, channels=3):
        super().__init__()
        self.encode, self.stride, self.channels = encode, stride, channels

    def forward(self, frames_n3hw):
        return self.encode(frames_n3hw)


def encoding(encode, stride, channels=3, scale=1.0, attention="auto"):
    """A model whose encoder is a function."""
    config = ModelConfig(inverse_temperature=scale)
    return CorrFlow(config, attention, FunctionEncoder(encode, stride, channels)).eval()


SHARP = encoding(colors, 4)


def scene(walk, size=(40, 64)):
    """Frames `[T, 3, H, W]` with a red square (label 3) and a green one (label 7) on blue, and
    masks of both. `walk`: the columns of the squares in each frame, None if a square is absent."""
    frames, masks = (
        torch.zeros(len(walk), 3, *size),
        torch.zeros(len(walk), *size, dtype=torch.uint8),
    )
    frames[:, 2] = 1.0
    for t, columns in enumerate(walk):
        for (label, channel, row), column in zip(((3, 0, 4), (7, 1, 22)), columns, strict=True):
            if column is not None:
                box = (slice(row, row + SIDE), slice(column, column + SIDE))
                frames[t][(slice(None), *box)] = 0.0
                frames[t][(channel, *box)] = 1.0
                masks[t][box] = label
    return frames, masks


@pytest.mark.parametrize("name", TRACKING)
def test_every_protocol_tracks_two_squares(name):
    frames, masks = scene([(4 + 4 * t, 40 - 4 * t) for t in range(8)])
    tracked = corrflow.propagate(SHARP, frames, masks[0], name)
    assert ((tracked != masks).sum(dim=(1, 2)) <= 10 * 8).all()
    assert set(tracked.unique().tolist()) == {0, 3, 7}


@pytest.mark.parametrize("name", TRACKING)
def test_an_object_that_enters_late_does_not_change_earlier_frames(name):
    frames, masks = scene([(4 + 4 * t, 40 - 4 * t if t >= 3 else None) for t in range(8)])
    alone = corrflow.propagate(SHARP, frames, masks[0], name)
    given = {0: masks[0], 3: torch.where(masks[3] == 7, 7, 0)}
    tracked = corrflow.propagate(SHARP, frames, given, name)
    assert torch.equal(tracked[:3], alone[:3])
    assert torch.equal(tracked[3] == 7, masks[3] == 7)
    assert torch.equal(tracked[3] == 3, (alone[3] == 3) & (masks[3] != 7))
    assert ((tracked != masks).sum(dim=(1, 2))[3:] <= 10 * 8).all()


def test_frames_before_the_first_mask_are_empty():
    frames, masks = scene([(4 + 4 * t, None) for t in range(6)])
    tracked = corrflow.propagate(SHARP, frames, {2: masks[2]}, "memory")
    assert not tracked[:2].any()
    assert torch.equal(tracked[2:], corrflow.propagate(SHARP, frames[2:], masks[2], "memory"))


@pytest.mark.parametrize("name", TRACKING)
def test_references_from_before_an_object_was_given_do_not_outvote_it(name):
    frames, masks = scene([(4 + 4 * t, 76 - 4 * t) for t in range(16)], size=(40, 96))
    tracked = corrflow.propagate(
        SHARP,
        frames,
        {0: torch.where(masks[0] == 3, 3, 0), 8: torch.where(masks[8] == 7, 7, 0)},
        name,
    )
    assert not (tracked[:8] == 7).any()
    assert ((tracked != masks).sum(dim=(1, 2))[8:] <= 10 * 8).all()


@pytest.mark.parametrize(("hardening", "share"), [(0.0, 0.7), (0.2, 0.76), (0.5, 0.85), (1.0, 1.0)])
def test_hardening_mixes_the_decision_into_the_remembered_shares(hardening, share):
    """An object of 4x4 cells is copied with a share of 0.7; the decision gives it all of its
    inner cells."""
    _, masks = scene([(4, None)])
    protocol = Protocol("some", hardening=hardening)
    labels = MaskLabels({0: masks[0]}, 4, torch.device("cpu"), protocol)
    labels.decode(0, None, torch.zeros(3, 40, 64))
    whole_khw = labels.encode(0, None)
    copied_khw = torch.stack([1 - 0.7 * whole_khw[1], 0.7 * whole_khw[1]])
    labels.decode(1, Copied(copied_khw), torch.zeros(3, 40, 64))
    kept_khw = remembered(labels, 1, copied_khw, hardening)
    assert (kept_khw[1, 2:4, 2:4] - share).abs().max() < 1e-6
    assert (kept_khw.sum(dim=0) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("name", TRACKING)
def test_earlier_references_do_not_undo_a_correction(name):
    frames, masks = scene([(4, 40)] * 12)
    mistaken = torch.where(masks[0] == 7, 3, masks[0])  # both squares as one object
    tracked = corrflow.propagate(SHARP, frames, {0: mistaken, 6: masks[6]}, name)
    assert not (tracked[:6] == 7).any()
    assert ((tracked != masks).sum(dim=(1, 2))[6:] <= 10 * 8).all()


def test_a_new_mask_of_an_object_replaces_its_tracked_mask():
    frames, masks = scene([(4, 40)] * 4)
    moved = torch.zeros_like(masks[0])
    moved[30:40, 0:8] = 3
    for name in TRACKING:
        tracked = corrflow.propagate(SHARP, frames, {0: masks[0], 2: moved}, name)
        alone = corrflow.propagate(SHARP, frames, masks[0], name)
        assert torch.equal(tracked[2] == 3, moved == 3)
        assert torch.equal(tracked[2] == 7, (alone[2] == 7) & (moved != 3))


@pytest.mark.parametrize("name", TRACKING)
def test_a_lost_object_has_an_empty_mask(name):
    frames, masks = scene([(4, 40), (4, 40), (4, None), (4, None), (4, None), (4, None)])
    tracked = corrflow.propagate(SHARP, frames, masks[0], name)
    assert (tracked[1] == 7).any()
    assert not (tracked[2:] == 7).any()
    assert (tracked[2:] == 3).any(dim=2).any(dim=1).all()


def test_only_a_protocol_with_memory_recovers_a_lost_object():
    frames, masks = scene([(4, 40), (4, 40), (4, None), (4, None), (4, 40), (4, 40)])
    assert (corrflow.propagate(SHARP, frames, masks[0], "memory")[-1] == 7).any()
    assert not (corrflow.propagate(SHARP, frames, masks[0], "paper")[-1] == 7).any()


@pytest.mark.parametrize("name", [*TRACKING, "identity"])
def test_videos_tracked_in_step_equal_each_tracked_alone(name):
    walks = (
        [(4 + 4 * t, None) for t in range(5)],
        [(4, 40 - 4 * t) for t in range(8)],
        [(None, 8 + 4 * t) for t in range(3)],
    )
    videos = [scene(walk) for walk in walks]
    together = [[], [], []]
    for outputs in stream_together(
        SHARP, [frames for frames, _ in videos], [masks[0] for _, masks in videos], name
    ):
        for video, labels in outputs.items():
            together[video].append(labels)
    for (frames, masks), tracked in zip(videos, together, strict=True):
        assert torch.equal(torch.stack(tracked), corrflow.propagate(SHARP, frames, masks[0], name))


def test_videos_in_step_must_share_their_size_and_label_frames():
    small, large = scene([(4, None)] * 2), scene([(4, None)] * 2, size=(40, 68))
    with pytest.raises(InputError, match="expected the same size"):
        next(stream_together(SHARP, [small[0], large[0]], [small[1][0], large[1][0]]))
    with pytest.raises(InputError, match="labels in the same frames"):
        next(stream_together(SHARP, [small[0], small[0]], [{0: small[1][0]}, {1: small[1][1]}]))


def camera(count):
    """Frames `[3, 64, 96]` of a wall on which no two places look alike. The camera moves by a cell
    to the right in each frame."""
    texture = torch.rand(1, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    wall = F.interpolate(texture, scale_factor=8, mode="bicubic").clamp(0, 1)[0]
    return [wall[:, 8:72, 16 + 4 * t : 112 + 4 * t] for t in range(count)]


NEIGHBOURS = encoding(
    lambda x: F.unfold(F.avg_pool2d(x, 4) - 0.5, 3, padding=1).view(
        len(x), 27, x.shape[2] // 4, -1
    ),
    4,
    channels=27,
    scale=100,
)


@pytest.mark.parametrize("name", TRACKING)
def test_points_are_tracked_and_one_may_enter_late(name):
    nan = float("nan")
    given = {
        0: torch.tensor([[60.0, 30.0], [nan, nan]]),
        2: torch.tensor([[nan, nan], [70.0, 20.0]]),
    }
    found = list(stream_points(NEIGHBOURS, camera(6), given, name))
    assert found[1].xy[1].isnan().all()
    assert [point.visible.tolist() for point in found] == [[True, False]] * 2 + [[True, True]] * 4
    for t, point in enumerate(found):
        assert (point.xy[0] - torch.tensor([60.0 - 4 * t, 30.0])).abs().max() < 2.0, t
        assert (
            t < 2 or (point.xy[1] - torch.tensor([70.0 - 4 * (t - 2), 20.0])).abs().max() < 2.0
        ), t
    assert torch.equal(found[2].xy[1], torch.tensor([70.0, 20.0]))


@pytest.mark.parametrize("name", TRACKING)
def test_points_tracked_in_step_equal_those_of_each_video_alone(name):
    nan = float("nan")
    videos = [camera(6), [], camera(4)[::-1]]
    points = [
        {0: torch.tensor([[60.0, 30.0], [nan, nan]]), 2: torch.tensor([[nan, nan], [70.0, 20.0]])},
        torch.zeros(1, 2),
        {0: torch.tensor([[40.0, 10.0]]), 2: torch.tensor([[41.5, 11.0]])},
    ]
    together = [[], [], []]
    for outputs in stream_points_together(NEIGHBOURS, videos, points, name):
        for video, located in outputs.items():
            together[video].append(located)
    for frames, given, tracked in zip(videos, points, together, strict=True):
        alone = list(stream_points(NEIGHBOURS, frames, given, name))
        assert len(tracked) == len(alone) == len(frames)
        for one, other in zip(tracked, alone, strict=True):
            torch.testing.assert_close(one.xy, other.xy, rtol=0, atol=1e-3, equal_nan=True)
            assert torch.equal(one.visible, other.visible)
            torch.testing.assert_close(one.confidence, other.confidence)


def test_the_appearance_model_does_not_affect_points():
    points = torch.tensor([[60.0, 30.0], [64.0, 30.0]])  # a single point has no shares to reweight
    for one, other in zip(
        stream_points(NEIGHBOURS, camera(4), points, "memory"),
        stream_points(NEIGHBOURS, camera(4), points, "appearance"),
        strict=True,
    ):
        assert torch.equal(one.xy, other.xy)
        assert torch.equal(one.confidence, other.confidence)


def test_a_point_in_its_given_frame_is_returned_unchanged():
    frames, _ = scene([(4, 40)] * 2)
    for xy in ((0.0, 0.0), (63.0, 39.0), (17.3, 22.8)):
        located = next(stream_points(SHARP, frames, torch.tensor([xy]), "memory"))
        assert torch.equal(located.xy, torch.tensor([xy]))
        assert located.confidence.tolist() == [1.0]


def test_a_point_on_distinctive_texture_is_located_within_a_pixel():
    protocol = Protocol(
        "exact",
        anchors=(0,),
        recent=(1,),
        radius=12,
        top_k=4,
        temperature=0.005,
        hardening=0.0,
    )
    located = list(stream_points(NEIGHBOURS, camera(5), torch.tensor([[60.0, 30.0]]), protocol))
    for t, point in enumerate(located):
        assert (point.xy[0] - torch.tensor([60.0 - 4 * t, 30.0])).abs().max() < 1.0, t
        assert point.visible.all()


def test_a_point_whose_surface_vanishes_is_hidden_and_stays_in_place():
    frames, _ = scene([(4, 40), (4, 40), (4, None), (4, None)])
    for name in ("paper", "memory"):
        found = list(stream_points(SHARP, frames, torch.tensor([[48.0, 30.0]]), name))
        assert [bool(point.visible) for point in found] == [True, True, False, False]
        assert torch.equal(found[3].xy, found[1].xy)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (torch.tensor([[64.0, 3.0]]), "point 64,3 of frame 0: expected x up to 63 and y up to 39"),
        (torch.tensor([[3.0, -1.0]]), "point 3,-1 of frame 0"),
        (torch.tensor([1.0, 2.0]), r"points of frame 0, \[2\]: expected \[K, 2\]"),
        ({0: torch.zeros(2, 2), 1: torch.zeros(3, 2)}, r"points: \[2, 3\] of them"),
        (torch.zeros(0, 2), r"points: \[0\] of them"),
        ({-1: torch.zeros(2, 2)}, "points of frame -1"),
        (torch.tensor([[3.0, float("nan")]]), "point 3,nan of frame 0"),
    ],
)
def test_invalid_points_are_refused(points, words):
    with pytest.raises(InputError, match=words):
        next(stream_points(SHARP, scene([(4, 40)])[0], points))


def test_labels_beyond_the_end_of_the_video_are_refused():
    frames, masks = scene([(4, 40)] * 3)
    with pytest.raises(
        InputError, match=r"labels or points of frame 7: the video has 3 frames: expected 0 to 2"
    ):
        corrflow.propagate(SHARP, frames, {0: masks[0], 7: masks[0]})
    with pytest.raises(InputError, match="frame 3: the video has 3 frames"):
        list(stream_points(SHARP, frames, {3: torch.zeros(1, 2)}))


@pytest.mark.parametrize("kind", [torch.bool, torch.uint16, torch.int64, "numpy"])
def test_masks_of_any_integer_type_are_accepted(kind):
    frames, masks = scene([(4, None)] * 2)
    one = (masks[0] > 0).to(torch.uint8)
    given = one.numpy() if kind == "numpy" else one.to(kind)
    assert torch.equal(
        corrflow.propagate(SHARP, frames, {0: given}), corrflow.propagate(SHARP, frames, one)
    )


def test_background_fills_cells_that_a_changed_label_had_entirely():
    old = torch.zeros(3, 1, 2)
    old[2] = torch.tensor([1.0 + 1e-7, 0.5])
    old[1, 0, 1] = 0.5
    new = torch.zeros(3, 1, 2)
    new[2, 0, 0] = 0.25
    merged = merge_given_labels(old, new, torch.tensor([False, False, True])[:, None, None])
    torch.testing.assert_close(merged[:, 0], torch.tensor([[0.75, 0.0], [0.0, 1.0], [0.25, 0.0]]))


def test_videos_in_step_need_labels_for_each_video():
    frames, masks = scene([(4, None)])
    for videos, labels in (([], []), ([frames], []), ([frames], [masks[0], masks[0]])):
        with pytest.raises(InputError, match="expected labels for each, and at least 1"):
            stream_together(SHARP, videos, labels)


def test_the_digest_of_an_encoder_needs_its_name():
    with pytest.raises(InputError, match="encoder: no name"):
        weights_digest(SHARP)


def test_propagation_falls_back_from_a_backend_that_lacks_support():
    # triton does not support 900 channels, nor tensors on the CPU unless it is interpreted
    wide = encoding(
        lambda x: F.avg_pool2d(x, 8).repeat(1, 300, 1, 1), 8, channels=900, attention="triton"
    )
    frames, masks = scene([(4, 40)] * 2)
    for name in ("paper", "memory"):
        assert corrflow.propagate(wide, frames, masks[0], name).shape == masks.shape


def test_a_video_without_frames_has_no_points():
    assert list(stream_points(SHARP, [], torch.zeros(1, 2))) == []


def empty_reference(*, given):
    return Reference(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.tensor([[given]]))


def test_references_follow_the_protocol_and_stay_bounded():
    for name in TRACKING:
        protocol = find_protocol(name)
        references = References(protocol, SHARP)
        for number in range(3, 90):  # the first mask was in frame 3
            wanted = {3 + a for a in protocol.anchors} | {number - back for back in protocol.recent}
            assert references.select_frames(number) == sorted(
                frame for frame in wanted if 3 <= frame < number
            )
            references.remember(number, empty_reference(given=number == 3))
        assert len(references.kept) <= len(protocol.anchors) + max(protocol.recent)


def test_only_the_last_few_frames_with_new_objects_stay_references():
    references = References(PROTOCOLS["memory"], SHARP)
    for number in range(200):
        references.remember(number, empty_reference(given=number % 10 == 0))
    assert [frame for frame in references.select_frames(200) if frame < 179] == [0, 160, 170]
    assert len(references.kept) <= 1 + LATE_REFERENCES + 20


def test_agreement_compares_with_the_given_frame_at_any_distance():
    def frame(rows, columns):
        """Features of a red object on blue, and the shares of background and object."""
        is_object_hw = torch.zeros(8, 8, dtype=torch.bool)
        is_object_hw[rows, columns] = True
        shares_2hw = torch.stack([~is_object_hw, is_object_hw]).float()
        return torch.stack([*shares_2hw, torch.zeros(8, 8)])[None], shares_2hw[None]

    start, end = slice(0, 4), slice(4, 8)
    protocol = Protocol("near", anchors=(0,), radius=4, top_k=5, temperature=0.05, hardening=0.0)
    references = References(protocol, SHARP, with_agreement=True)
    given, moved = frame(start, start), frame(end, end)
    references.remember(0, Reference(*given, torch.tensor([[False, True]])))
    for copied, expected in (
        (moved, [1, 1]),  # far outside of the window of one cell
        (frame(slice(4, 6), end), [48 / 56, 8 / 16]),
        (given, [32 / 64, 0]),
    ):
        agreement_bk = references.agreement(moved[0], copied[1])
        torch.testing.assert_close(
            agreement_bk, torch.tensor([expected]).float(), rtol=0, atol=1e-4
        )
    assert references.agreement(moved[0], None) is None
    references.with_agreement = False
    assert references.agreement(moved[0], moved[1]) is None


def test_an_object_that_gradually_changes_colour_loses_confidence():
    red, green, blue = torch.eye(3)[:, :, None, None]
    frames = blue.repeat(9, 1, 40, 64)
    frames[:, :, 24:36, 40:52] = green  # is not an object
    for number, frame_3hw in enumerate(frames):
        frame_3hw[:, 4:16, 4:16] = torch.lerp(red, green, number / 8)[0]
    mask = torch.zeros(40, 64, dtype=torch.uint8)
    mask[4:16, 4:16] = 1
    recent_only = replace(PROTOCOLS["memory"], anchors=())
    tracked, tracked_by_recent = (
        list(stream_masks(SHARP, frames, mask, protocol)) for protocol in ("memory", recent_only)
    )
    for masks in (tracked[-1], tracked_by_recent[-1]):
        assert (masks.labels == 1).sum() > 100
    assert tracked_by_recent[-1].confidence[1] > 0.8
    assert tracked[1].confidence[1] > 0.8
    assert tracked[-1].confidence[1] < 0.2


@pytest.mark.parametrize("name", ["paper", "memory"])
def test_memory_use_does_not_grow_over_ten_thousand_frames(name):
    draw = torch.Generator().manual_seed(0)
    frames = (torch.rand(8, 3, 32, 48, generator=draw) * 255).byte()
    labels = torch.zeros(32, 48, dtype=torch.uint8)
    labels[8:24, 8:24] = 1
    encoder = FunctionEncoder(lambda x: F.avg_pool2d(x, 8), stride=8)
    tracked = stream(encoder, itertools.islice(itertools.cycle(frames), 10_000), labels, name)
    for _ in itertools.islice(tracked, 1_000):
        pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in tracked) == 9_000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 9_000 * 6 // 4, "a quarter of the features alone that 9,000 frames would be"


def test_features_are_computed_once_per_frame():
    encoded = []
    counting = FunctionEncoder(lambda x: (encoded.append(len(x)), colors(x))[1], stride=4)
    frames, masks = scene([(4, 40)] * 9)
    corrflow.propagate(counting, frames, masks[0], "memory")
    assert encoded == [1] * 9


@pytest.mark.parametrize("stride", [1, 3, 8])
def test_an_encoder_of_any_stride_tracks_frames_of_any_size(stride):
    frames, masks = scene([(4 + 2 * t, 40) for t in range(4)], size=(41, 67))
    encoder = FunctionEncoder(
        lambda x: 40 * F.normalize(F.avg_pool2d(x, stride) - 0.5, dim=1), stride
    )
    for name in TRACKING:
        tracked = corrflow.propagate(
            encoder, frames, masks[0], replace(find_protocol(name), radius=12)
        )
        assert tracked.shape == masks.shape
        assert (tracked == masks).float().mean() > 0.8


def test_an_encoder_with_a_wrong_stride_is_refused():
    frames, masks = scene([(4, 40)])
    words = r"frames \[1, 3, 40, 64\] became \[1, 3, 10, 16\]: expected \[1, 3, 5, 8\].* stride 8"
    with pytest.raises(InputError, match=words):
        corrflow.propagate(FunctionEncoder(colors, stride=8), frames, masks[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"radius": -1},
        {"recent": (0,)},
        {"recent": ()},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"appearance": -0.1},
        {"appearance": float("inf")},
        {"anchors": (-1,)},
        {"block": 0},
        {"hardening": -0.1},
        {"hardening": 1.1},
        {"guided_filter": -1},
        {"short_side": -1},
    ],
)
def test_protocols_with_values_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=f"protocol x: .*{name}.*: expected"):
        Protocol("x", **wrong)


def test_our_model_keeps_its_temperature_and_works_with_every_protocol():
    torch.manual_seed(0)
    model = CorrFlow(
        ModelConfig(ResNetConfig((4, 4, 8, 8), (1, 1, 1, 1), 8), radius=2, inverse_temperature=0.5)
    ).eval()
    frames, masks = scene([(4, 40), (8, 36)])
    for name in TRACKING:
        assert corrflow.propagate(model, frames, masks[0], name).shape == masks.shape
    by_hand = encoding(model.encode, 4, channels=8, scale=0.5)
    assert torch.equal(
        corrflow.propagate(by_hand, frames, masks[0]), corrflow.propagate(model, frames, masks[0])
    )


def test_propagation_does_not_import_training():
    line = "import sys, corrflow.propagation; sys.exit('corrflow.training' in sys.modules)"
    import subprocess

    assert subprocess.run([sys.executable, "-c", line], check=False).returncode == 0


def test_whitened_features_have_mean_zero_and_unit_covariance():
    draw = torch.Generator().manual_seed(0)
    mixed_bchw = (
        torch.randn(8, 8, generator=draw) @ torch.randn(2, 8, 60 * 40, generator=draw) + 5
    ).view(2, 8, 60, 40)
    cells_bcp = Whitening.fit(mixed_bchw, 0.0).apply(mixed_bchw).flatten(2)
    torch.testing.assert_close(cells_bcp.mean(dim=2), torch.zeros(2, 8), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        cells_bcp @ cells_bcp.mT / (60 * 40), torch.eye(8).expand(2, 8, 8), atol=1e-3, rtol=0
    )


def test_whitening_does_not_amplify_directions_without_variance():
    features_bchw = torch.zeros(1, 4, 10, 10)
    features_bchw[0, 0] = torch.randn(10, 10, generator=torch.Generator().manual_seed(0))
    whitened = Whitening.fit(features_bchw, 0.5).apply(features_bchw)
    assert whitened.isfinite().all() and whitened[0, 1:].abs().max() < 1e-6
    assert (
        Whitening.fit(torch.ones(1, 4, 3, 3), 0.5).apply(torch.ones(1, 4, 3, 3)).abs().max() < 1e-3
    )


def test_features_are_whitened_by_the_statistics_of_the_first_frame():
    references = References(replace(PROTOCOLS["memory"], whitening=0.2), SHARP)
    first, second = (
        torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(n)) for n in range(2)
    )
    references.prepare(first)
    alone = References(replace(PROTOCOLS["memory"], whitening=0.2), SHARP)
    alone.prepare(first[1:])
    both = references.prepare(second)
    torch.testing.assert_close(both, F.normalize(Whitening.fit(first, 0.2).apply(second), dim=1))
    references.select([1])
    torch.testing.assert_close(references.prepare(second[1:]), alone.prepare(second[1:]))
    torch.testing.assert_close(references.prepare(second[1:]), both[1:])


def test_a_model_name_in_place_of_a_model_is_refused():
    frames, mask = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.ones(32, 32)
    with pytest.raises(InputError, match=r"encoder 'fast': expected .* from corrflow\.load_model"):
        corrflow.propagate("fast", frames, mask)
