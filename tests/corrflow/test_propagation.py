import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SHARED

import corrflow
from corrflow import CorrFlow, InputError, ModelConfig, Protocol, load_model
from corrflow.encoders.resnet import ResNetConfig
from corrflow.propagation import labels, stream, stream_masks

SMALL = ModelConfig(ResNetConfig((4, 4, 8, 8), (1, 1, 1, 1), 8), radius=2)


class Matcher(CorrFlow):
    """A model whose features are the mean colours of cells, sharply compared, so that it tracks
    correctly."""

    def encode(self, frames):
        return 40 * F.normalize(F.avg_pool2d(frames, 4) - 0.5, dim=1)


def moving_square(count=6, step=4):
    frames, masks = torch.zeros(count, 3, 40, 48), torch.zeros(count, 40, 48, dtype=torch.uint8)
    frames[:, 2] = 1.0
    for t in range(count):
        frames[t, :, 8:24, 4 + step * t : 20 + step * t] = torch.tensor([1.0, 0.0, 0.0])[
            :, None, None
        ]
        masks[t, 8:24, 4 + step * t : 20 + step * t] = 3
    return frames, masks


def test_a_moving_square_is_tracked_except_for_rounded_corners():
    frames, masks = moving_square()
    tracked = corrflow.propagate(Matcher(), frames, masks[0])
    wrong = (tracked != masks).sum(dim=(1, 2))
    assert wrong[0] == 0
    assert (wrong <= 4 * 3).all()
    assert set(tracked.unique().tolist()) == {0, 3}


COLUMNS, ROWS = torch.arange(48).expand(40, -1), torch.arange(40)[:, None]


@pytest.mark.parametrize(
    "thin",
    [(COLUMNS >= 18) & (COLUMNS < 22), (COLUMNS - ROWS).abs() < 4],
    ids=["half of two cells", "aslant"],
)
def test_a_static_object_keeps_its_thin_parts(thin):
    tracked = corrflow.propagate(
        Matcher(),
        torch.zeros(20, 3, 40, 48),
        thin.byte(),
        protocol=Protocol("of each place itself", radius=0),
    )
    kept = tracked[-1] == 1
    assert (kept & thin).sum() >= 0.9 * (kept | thin).sum()


@pytest.mark.parametrize(("protocol", "cubic"), [("paper", True), ("memory", False)])
def test_masks_are_upsampled_cubically_if_only_decisions_are_remembered(
    monkeypatch, protocol, cubic
):
    used, original = [], labels.upsample
    monkeypatch.setattr(
        labels,
        "upsample",
        lambda *given, cubic: (used.append(cubic), original(*given, cubic=cubic))[1],
    )
    frames, masks = moving_square(count=3)
    corrflow.propagate(Matcher(), frames, masks[0], protocol)
    assert used == [cubic, cubic]


def test_identity_keeps_the_first_labels_and_needs_no_model():
    frames, masks = moving_square()
    assert torch.equal(
        corrflow.propagate(None, frames, masks[0], protocol="identity"),
        masks[:1].expand(len(masks), -1, -1),
    )


def test_masks_have_the_size_of_the_frames_and_bytes_equal_floats():
    frames = (torch.rand(3, 3, 37, 51) * 255).byte()
    labels = torch.randint(0, 3, (37, 51))
    from_bytes = corrflow.propagate(CorrFlow(SMALL).eval(), frames, labels)
    assert from_bytes.shape == (3, 37, 51)
    torch.manual_seed(1)
    model = CorrFlow(SMALL).eval()
    assert torch.equal(
        corrflow.propagate(model, frames, labels),
        corrflow.propagate(model, frames.float() / 255, labels),
    )


def test_frames_are_read_one_at_a_time_and_encoded_once():
    read, encoded, model = [], [], Matcher()
    encode = model.encode
    model.encode = lambda frames: (encoded.append(len(frames)), encode(frames))[1]

    def camera():
        for t, frame in enumerate(moving_square()[0]):
            read.append(t)
            yield frame

    results = stream(model, camera(), moving_square()[1][0])
    next(results)
    next(results)
    assert read == [0, 1]
    assert encoded == [1, 1]


def test_an_object_that_moves_beyond_the_window_is_not_found():
    frames, masks = moving_square(count=2, step=24)
    tracked = corrflow.propagate(
        Matcher(), frames, masks[0], protocol=Protocol("short-sighted", radius=4)
    )
    # from this part of its new position, no window reaches the old one
    assert not (tracked[1] == 3)[:, 36:].any()
    assert (corrflow.propagate(Matcher(), frames, masks[0])[1] == 3)[:, 36:].any()


def test_propagation_does_not_change_a_model_in_training_mode():
    model = CorrFlow(SMALL).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    corrflow.propagate(model, torch.rand(3, 3, 40, 48), moving_square()[1][0])
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (
            torch.zeros(40, 40, dtype=torch.uint8),
            r"frame 0 is \[3, 40, 48\], expected \[3, 40, 40\]",
        ),
        (torch.zeros(40, 48), "expected whole numbers"),
        (torch.full((40, 48), 256), "0 to 255"),
        (torch.zeros(1, 40, 48, dtype=torch.uint8), "expected whole numbers"),
        (torch.zeros(0, 0, dtype=torch.uint8), "expected whole numbers"),
        ({-1: torch.zeros(40, 48, dtype=torch.uint8)}, "labels of frame -1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, words):
    with pytest.raises(InputError, match=words):
        corrflow.propagate(Matcher(), moving_square()[0], labels)


def test_an_unknown_protocol_and_a_video_without_frames_are_refused():
    with pytest.raises(InputError, match="'magic': expected one of paper, memory"):
        corrflow.propagate(Matcher(), moving_square()[0], moving_square()[1][0], protocol="magic")
    with pytest.raises(InputError, match="no frames"):
        corrflow.propagate(Matcher(), [], moving_square()[1][0])


def released_downsampling(labels_nhw, classes):
    """Downsample labels as the released code does, by a defect: to the truncated mean of the label
    numbers of the middle 2x2 pixels of each cell."""
    middle = F.interpolate(
        labels_nhw[:, None].float(), scale_factor=0.25, mode="bilinear", recompute_scale_factor=True
    ).long()
    return F.one_hot(middle[:, 0], classes).movedim(-1, 1).float()


def released_upsampling(shares_khw, stride, cubic):
    """Upsample shares as the released code does: always linearly."""
    return F.interpolate(
        shares_khw[None], scale_factor=stride, mode="bilinear", align_corners=False
    )[0]


@pytest.mark.skipif(
    not (SHARED / "oracle").exists(), reason="the released code's fixtures are not here"
)
@pytest.mark.parametrize("weights", ["base", "tracking"])
@pytest.mark.parametrize("objects", ["binary", "multi"])
def test_masks_equal_the_released_codes_if_labels_are_resized_as_there(
    monkeypatch, tmp_path, weights, objects
):
    base, fixture = (
        np.load(SHARED / "oracle" / name)
        for name in ("state_dict_seed0.npz", "d_inference_car-shadow_120x216.npz")
    )
    state = {name: torch.tensor(base[name]) for name in base.files}
    if weights == "tracking":
        replaced = (name for name in fixture.files if name.startswith("tracking_state/"))
        state |= {
            name.removeprefix("tracking_state/"): torch.tensor(fixture[name]) for name in replaced
        }
    torch.save({"state_dict": state}, tmp_path / "checkpoint.tar")
    monkeypatch.setattr(
        labels,
        "labels_to_soft_grid",
        lambda labels_nhw, classes, stride: released_downsampling(labels_nhw, classes),
    )
    monkeypatch.setattr(labels, "upsample", released_upsampling)
    expected = torch.tensor(fixture[f"{weights}_{objects}_masks"])
    frames = torch.tensor(fixture["frames_rgb"]).movedim(-1, 1)
    assert torch.equal(
        corrflow.propagate(load_model(tmp_path / "checkpoint.tar"), frames, expected[0]), expected
    )


def test_confidence_is_high_for_clear_copies_and_low_for_ambiguous_ones():
    frames, masks = moving_square(count=4)
    tracked = list(stream_masks(Matcher(), frames, masks[0]))
    together = corrflow.propagate(Matcher(), frames, masks[0])
    assert torch.equal(torch.stack([one.labels for one in tracked]), together)
    first, *others = (one.confidence for one in tracked)
    assert (first[3], first.sum()) == (1, 1)  # given, and no other object is
    assert all(0.95 < one[3] <= 1 for one in others)
    # with equal features everywhere, each cell is copied from its whole window
    blank = list(stream_masks(Matcher(), torch.full_like(frames, 0.5), masks[0]))
    assert blank[-1].confidence[3] < 0.5 * others[-1][3]


def test_an_object_marked_as_gone_is_not_copied_to_later_frames():
    frames, masks = moving_square(count=5)
    both = masks.clone()
    both[:, -3:, -3:] = 5
    tracked = list(stream_masks(Matcher(), frames, both[0], "paper", {2: {3}}))
    assert [bool((one.labels == 3).any()) for one in tracked] == [True, True, False, False, False]
    assert tracked[2].confidence[3] == 0
    usual = list(stream_masks(Matcher(), frames, both[0], "paper"))
    assert torch.equal(tracked[2].labels == 5, usual[2].labels == 5)


def test_an_object_that_is_given_again_has_full_confidence():
    frames, masks = moving_square(count=4)
    blank = torch.full_like(frames, 0.5)
    tracked = list(stream_masks(Matcher(), blank, {0: masks[0], 2: masks[2]}))
    confidences = [float(one.confidence[3]) for one in tracked]
    assert (confidences[0], confidences[2]) == (1, 1)
    assert max(confidences[1], confidences[3]) < 1
