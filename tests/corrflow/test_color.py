import numpy as np
import pytest
import torch
from conftest import DATA

from corrflow import color
from corrflow.palette import LAB64, TargetConfig

FIXTURE = np.load(DATA / "c_lab_quantisation.npz")


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["natural", "random", "rgbgrid"])
def test_lab_equals_that_of_scikit_image(name):
    rgb = torch.tensor(FIXTURE[f"{name}_rgb"]).movedim(-1, 0)[None].float() / 255
    lab = color.rgb_to_lab(rgb)[0].movedim(0, -1)
    np.testing.assert_allclose(lab, FIXTURE[f"{name}_lab_skimage"], atol=0.02)


@pytest.mark.parametrize("name", ["natural", "random", "rgbgrid"])
def test_classes_equal_those_of_the_released_code(name):
    rgb = torch.tensor(FIXTURE[f"{name}_rgb"]).movedim(-1, 0)[None].float() / 255
    clear = FIXTURE[f"{name}_margin"] > 0.01
    np.testing.assert_array_equal(
        color.quantize_colors(rgb)[0].numpy()[clear], FIXTURE[f"{name}_index"][clear]
    )
    assert clear.mean() > 0.99


@pytest.mark.parametrize("name", ["natural", "random", "rgbgrid"])
def test_a_and_b_equal_those_of_the_released_table(name):
    rgb = torch.tensor(FIXTURE[f"{name}_rgb"]).movedim(-1, 0)[None].float() / 255
    difference = np.abs(color.table_ab(rgb)[0].numpy() - FIXTURE[f"{name}_lab"][..., 1:])
    assert difference.max() <= 1 / 64  # one entry of the table is close to where rounding changes
    assert (difference > 0).mean() < 0.002


def test_the_table_covers_the_ends_of_the_range():
    ends = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]).T[
        None, :, :, None
    ]
    exact = color.rgb_to_lab(ends)[0, 1:, :, 0].T
    torch.testing.assert_close(color.table_ab(ends)[0, :, 0], exact, atol=1 / 64, rtol=0)


def test_lab_converts_back_to_the_same_rgb():
    rgb = torch.rand(2, 3, 8, 8, generator=generator(0))
    torch.testing.assert_close(color.lab_to_rgb(color.rgb_to_lab(rgb)), rgb, atol=2e-5, rtol=0)


@pytest.mark.parametrize("path", ["", str(LAB64)])
def test_a_classifier_gives_the_same_classes_with_and_without_its_table(path):
    (palette, _, lightness), *_ = TargetConfig(palette=path, lightness=0.3).targets()
    classify = color.ColorClassifier(palette, lightness)
    frames = torch.randint(256, (2, 3, 40, 48), dtype=torch.uint8, generator=generator(0))
    expected = color.quantize_colors(frames.float() / 255, palette, lightness)
    assert torch.equal(classify(frames), expected) and classify.table is None
    classify.pixels = color.COLORS
    assert torch.equal(classify(frames), expected) and len(classify.table) == color.COLORS


def test_downsampling_keeps_the_share_of_each_label_and_adds_no_label():
    labels = torch.tensor([[0, 0, 0, 5], [0, 0, 0, 5], [0, 0, 0, 5], [0, 0, 0, 5]])[None]
    shares = color.labels_to_soft_grid(labels, 6, 4)
    torch.testing.assert_close(shares[0, :, 0, 0], torch.tensor([0.75, 0, 0, 0, 0, 0.25]))


@pytest.mark.parametrize("space", ["rgb", "lab"])
def test_encoder_inputs_convert_back_to_the_same_rgb(space):
    rgb = torch.rand(2, 3, 8, 8, generator=generator(0))
    encoder_input = color.to_input_space(rgb, space)
    torch.testing.assert_close(color.from_input_space(encoder_input, space), rgb, atol=2e-5, rtol=0)
    assert encoder_input.abs().max() <= 1


def test_grey_in_lab_has_only_lightness():
    grey = torch.tensor([0.0, 0.5, 1.0])[None, None, None].expand(1, 3, 1, 3)
    encoder_input = color.to_input_space(grey, "lab")
    torch.testing.assert_close(encoder_input[0, 1:], torch.zeros(2, 1, 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        encoder_input[0, 0, 0], torch.tensor([-1.0, 0.0678, 1.0]), atol=1e-3, rtol=0
    )
