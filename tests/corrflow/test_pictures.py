import numpy as np
import pytest
from PIL import Image

from corrflow import InputError
from corrflow.pictures import PALETTE, read_labels, read_mask, write_mask

COLORS = np.array(PALETTE, np.uint8).reshape(256, 3)


def test_a_mask_comes_back_with_all_256_labels(tmp_path):
    labels_hw = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "m.png", labels_hw)
    np.testing.assert_array_equal(read_labels(tmp_path / "m.png"), labels_hw)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_palette_png_saved_in_colours_is_read_back(tmp_path, mode):
    labels_hw = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(COLORS[labels_hw]).convert(mode).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "m.png"), labels_hw)


def test_a_picture_in_other_colours_is_refused_with_one_of_them(tmp_path):
    picture = COLORS[np.arange(256).reshape(16, 16)]
    picture[3, 5] = (200, 10, 10)
    Image.fromarray(picture).save(tmp_path / "m.png")
    with pytest.raises(
        InputError, match=r"m.png: in colours, and \(200, 10, 10\) is none of the DAVIS palette: expected an indexed or grey PNG"
    ):
        read_labels(tmp_path / "m.png")


def test_a_grey_picture_is_its_numbers_whatever_its_mode(tmp_path):
    Image.effect_noise((8, 8), 50).convert("RGB").save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "m.png"), np.asarray(Image.open(tmp_path / "m.png"))[..., 0])


def test_0_and_255_mean_one_object(tmp_path):
    Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[0, 1], [1, 0]]
    assert read_labels(tmp_path / "m.png").tolist() == [[0, 255], [255, 0]]
    Image.fromarray(np.array([[0, 255], [3, 0]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[0, 255], [3, 0]]


def test_a_label_above_255_is_refused(tmp_path):
    Image.fromarray(np.array([[0, 300], [1, 2]], np.uint16)).save(tmp_path / "m.png")
    with pytest.raises(InputError, match=r"m.png: holds the label 300: expected 0 to 255"):
        read_mask(tmp_path / "m.png")
    Image.fromarray(np.array([[0, 200], [1, 2]], np.uint16)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[0, 200], [1, 2]]
