import numpy as np
import pytest
import torch

from corrflow import InputError, color
from corrflow.palette import (
    LAB64,
    PUBLISHED,
    Target,
    TargetConfig,
    fit_palette,
    palette_digest,
    read_palette,
    write_palette,
)


def test_the_default_classes_are_the_published_ones():
    assert TargetConfig().targets() == (Target(PUBLISHED, 1.0, 1.0),)
    assert len(PUBLISHED) == 16


@pytest.mark.parametrize("text", ["1.5,-2\n0,7.25\n", "50,1.5,-2\n20,0,7.25\n99,-3,-3\n"])
def test_a_palette_written_to_a_file_reads_back_the_same(tmp_path, text):
    path = tmp_path / "p.csv"
    path.write_text(text)
    palette = read_palette(path)
    write_palette(palette, tmp_path / "again.csv")
    assert (
        read_palette(tmp_path / "again.csv")
        == palette
        == TargetConfig(str(path)).targets()[0].palette
    )
    assert palette_digest(palette) == palette_digest(read_palette(tmp_path / "again.csv"))
    assert palette_digest(palette) != palette_digest(palette[::-1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "0 lines"),
        ("1,2\n", "1 lines"),
        ("1,2\n1,2,3\n", r"numbers: expected"),
        ("1\n2\n", r"2 lines of \[1\] numbers"),
        ("a,b\n1,2\n", "could not convert string to float: 'a'"),
        ("1,nan\n1,2\n", "not finite"),
        ("0,0\n" * 300, "300 lines"),
    ],
)
def test_a_file_that_is_not_a_palette_is_refused(tmp_path, text, words):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_palette(tmp_path / "p.csv")


def test_a_missing_palette_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: can't be read"):
        TargetConfig(str(tmp_path / "none.csv")).targets()
    with pytest.raises(InputError, match=r"none\.csv: can't be read"):
        TargetConfig(second_palette=str(tmp_path / "none.csv")).targets()


def test_a_second_palette_is_a_second_target():
    first, second = TargetConfig(
        second_palette=str(LAB64), second_share=0.25, lightness=0.5
    ).targets()
    assert (first, second) == (Target(PUBLISHED, 0.75, 0.5), Target(read_palette(LAB64), 0.25, 0.5))
    assert np.array(second.palette).shape == (64, 3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"second_share": 0.0}, "second_share 0.0: expected more than 0"),
        ({"second_share": 1.0}, "second_share 1.0: expected less than 1"),
        ({"lightness": 0.0}, "lightness 0.0: expected more than 0"),
    ],
)
def test_targets_without_weight_are_refused(settings, words):
    with pytest.raises(InputError, match=f"target: {words}"):
        TargetConfig(**settings)


def test_the_largest_clusters_come_first_in_a_fitted_palette():
    draw = np.random.default_rng(0)
    centers, counts = np.array([[-40.0, 10.0], [5.0, 5.0], [60.0, -30.0]]), (50, 200, 100)
    points = np.concatenate(
        [c + draw.normal(0, 1, (n, 2)) for c, n in zip(centers, counts, strict=True)]
    )
    found = fit_palette(points, 3)
    np.testing.assert_allclose(found, centers[[1, 2, 0]], atol=0.5)
    assert fit_palette(points, 3) == found


def test_the_weight_of_lightness_decides_which_colours_are_merged():
    lab = np.array(
        [[20.0, 0.0, 0.0], [60.0, 0.0, 0.0], [20.0, 15.0, 0.0], [60.0, 15.0, 0.0]], dtype=np.float32
    ).repeat(5, axis=0)
    assert sorted(fit_palette(lab, 2)) == [(20.0, 7.5, 0.0), (60.0, 7.5, 0.0)]
    assert sorted(fit_palette(lab, 2, lightness=0.1)) == [(40.0, 0.0, 0.0), (40.0, 15.0, 0.0)]


def test_a_shadow_changes_the_lab_class_unless_lightness_weighs_little():
    palette = ((30.0, 0.0, 0.0), (60.0, 10.0, 0.0))
    shadow = color.lab_to_rgb(torch.tensor([40.0, 9.0, 0.0])[None, :, None, None])
    assert color.quantize_colors(shadow, palette).item() == 0
    assert color.quantize_colors(shadow, palette, lightness=0.3).item() == 1


def test_more_classes_than_colours_are_refused():
    with pytest.raises(InputError, match="the pixels have 2 distinct colours"):
        fit_palette(np.array([[0.0, 1.0], [2.0, 3.0], [0.0, 1.0]]), 3)
    with pytest.raises(InputError, match="expected 2 to 256"):
        fit_palette(np.zeros((9, 2)), 1)


def test_lab_classes_separate_light_from_dark():
    palette = ((10.0, 0.0, 0.0), (90.0, 0.0, 0.0), (54.0, 80.0, 67.0))
    # dark, light, red
    rgb = torch.tensor([[0.05, 0.95, 1.0], [0.05, 0.95, 0.0], [0.05, 0.95, 0.0]])[None, :, None]
    classes = color.quantize_colors(rgb, palette)
    assert classes.tolist() == [[[0, 1, 2]]]
    shown = color.class_colors(
        color.labels_to_soft_grid(classes, 3, stride=1), torch.zeros(1, 1, 3), palette
    )
    torch.testing.assert_close(shown, rgb, atol=0.1, rtol=0)


def test_every_pixel_gets_its_nearest_class():
    rgb = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    lab = color.rgb_to_lab(rgb)[0].flatten(1).T
    for palette, colors in (
        (((50.0, 0.0, 0.0), (30.0, 20.0, 20.0), (70.0, -30.0, 5.0)), lab),
        (PUBLISHED[:5], lab[:, 1:]),
    ):
        distance = torch.cdist(colors, torch.tensor(palette))
        found = color.quantize_colors(rgb, palette).flatten()
        chosen = distance.gather(1, found[:, None])[:, 0]
        # ab comes from a table with errors of up to 0.35
        assert (chosen <= distance.min(dim=1).values + 0.7).all()
