import numpy as np
import pytest
import torch
from conftest import DATA

from corrflow import color
from corrflow.color import BottleneckConfig

FIXTURE = np.load(DATA / "c_lab_quantisation.npz")


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["natural", "random", "rgbgrid"])
def test_lab_is_that_of_the_standard(name):
    rgb = torch.tensor(FIXTURE[f"{name}_rgb"]).movedim(-1, 0)[None].float() / 255
    lab = color.rgb_to_lab(rgb)[0].movedim(0, -1)
    np.testing.assert_allclose(lab, FIXTURE[f"{name}_lab_skimage"], atol=0.02)


@pytest.mark.parametrize("name", ["natural", "random", "rgbgrid"])
def test_classes_are_the_released_ones(name):
    rgb = torch.tensor(FIXTURE[f"{name}_rgb"]).movedim(-1, 0)[None].float() / 255
    clear = FIXTURE[f"{name}_margin"] > 0.01
    np.testing.assert_array_equal(
        color.quantize_colors(rgb)[0].numpy()[clear], FIXTURE[f"{name}_index"][clear]
    )
    assert clear.mean() > 0.99


@pytest.mark.parametrize("name", ["natural", "random", "rgbgrid"])
def test_a_and_b_are_those_of_the_released_table(name):
    rgb = torch.tensor(FIXTURE[f"{name}_rgb"]).movedim(-1, 0)[None].float() / 255
    difference = np.abs(color.table_ab(rgb)[0].numpy() - FIXTURE[f"{name}_lab"][..., 1:])
    assert difference.max() <= 1 / 64  # one entry of the table is on the verge of rounding
    assert (difference > 0).mean() < 0.002


def test_the_ends_of_the_range_are_in_the_table():
    ends = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]).T[
        None, :, :, None
    ]
    exact = color.rgb_to_lab(ends)[0, 1:, :, 0].T
    torch.testing.assert_close(color.table_ab(ends)[0, :, 0], exact, atol=1 / 64, rtol=0)


def test_lab_goes_back_to_the_same_rgb():
    rgb = torch.rand(2, 3, 8, 8, generator=generator(0))
    torch.testing.assert_close(color.lab_to_rgb(color.rgb_to_lab(rgb)), rgb, atol=2e-5, rtol=0)


def test_shrinking_keeps_every_labels_share_and_invents_none():
    labels = torch.tensor([[0, 0, 0, 5], [0, 0, 0, 5], [0, 0, 0, 5], [0, 0, 0, 5]])[None]
    shares = color.labels_to_soft_grid(labels, 6)
    torch.testing.assert_close(shares[0, :, 0, 0], torch.tensor([0.75, 0, 0, 0, 0, 0.25]))


def test_channels_are_dropped_alike_in_all_frames_and_the_rest_scaled():
    config, frames, seen = BottleneckConfig(keep=0.0), torch.ones(2, 3, 3, 4, 4), set()
    for seed in range(40):
        out = color.drop_channels(frames, config, generator(seed))
        factors = out[0, 0, :, 0, 0]
        assert torch.equal(out, frames * factors[:, None, None])
        assert factors.sum() == pytest.approx(3.0)
        seen.add(tuple(factors.tolist()))
    assert seen == {(0, 1.5, 1.5), (1.5, 0, 1.5), (1.5, 1.5, 0), (3, 0, 0), (0, 3, 0), (0, 0, 3)}


def test_the_share_of_untouched_steps_is_as_configured():
    frames = torch.ones(1, 1, 3, 2, 2)
    kept = [
        torch.equal(color.drop_channels(frames, BottleneckConfig(), generator(seed)), frames)
        for seed in range(1000)
    ]
    assert 0.25 < np.mean(kept) < 0.35


def test_jitter_touches_its_share_of_frames_the_same_however_the_batch_is_divided():
    frames = torch.rand(60, 3, 8, 8, generator=generator(0))
    config = BottleneckConfig(jitter=0.3)
    whole = color.jitter_frames(frames, config, generator(7), slice(0, 60), 60)
    halves = [
        color.jitter_frames(frames[part], config, generator(7), part, 60)
        for part in (slice(0, 30), slice(30, 60))
    ]
    assert torch.equal(whole, torch.cat(halves))
    touched = (whole != frames).flatten(1).any(dim=1)
    assert 8 <= touched.sum() <= 28
    assert (whole - frames)[touched].abs().mean() < 0.1


@pytest.mark.parametrize("space", ["rgb", "lab"])
def test_what_an_encoder_is_shown_goes_back_to_the_same_rgb(space):
    rgb = torch.rand(2, 3, 8, 8, generator=generator(0))
    shown = color.to_input_space(rgb, space)
    torch.testing.assert_close(color.from_input_space(shown, space), rgb, atol=2e-5, rtol=0)
    assert shown.abs().max() <= 1


def test_grey_as_lab_has_no_colour_and_its_lightness():
    grey = torch.tensor([0.0, 0.5, 1.0])[None, None, None].expand(1, 3, 1, 3)
    shown = color.to_input_space(grey, "lab")
    torch.testing.assert_close(shown[0, 1:], torch.zeros(2, 1, 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(shown[0, 0, 0], torch.tensor([-1.0, 0.0678, 1.0]), atol=1e-3, rtol=0)


def test_of_lab_either_a_or_b_is_dropped_and_never_lightness():
    config, frames, seen = BottleneckConfig(keep=0.0), torch.ones(2, 3, 3, 4, 4), set()
    for seed in range(40):
        out = color.drop_channels(frames, config, generator(seed), "lab")
        seen.add(tuple(out[0, 0, :, 0, 0].tolist()))
        assert torch.equal(out, out[:1, :1, :, :1, :1].expand_as(out))
    assert seen == {(1.5, 0, 1.5), (1.5, 1.5, 0)}
