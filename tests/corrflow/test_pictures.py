import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw, ImageFilter

from corrflow import InputError
from corrflow.benchmarks.benchmark import read_frames
from corrflow.images import video_depth
from corrflow.masks import PALETTE
from corrflow.pictures import read_frame, read_labels, read_mask, write_mask

COLORS = np.array(PALETTE, np.uint8).reshape(256, 3)


def test_a_written_mask_reads_back_with_all_256_labels(tmp_path):
    labels_hw = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "m.png", labels_hw)
    np.testing.assert_array_equal(read_labels(tmp_path / "m.png"), labels_hw)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_mask_saved_in_palette_colours_reads_back_as_labels(tmp_path, mode):
    labels_hw = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(COLORS[labels_hw]).convert(mode).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "m.png"), labels_hw)


def test_the_error_for_colours_outside_the_palette_names_one(tmp_path):
    picture = COLORS[np.arange(256).reshape(16, 16)]
    picture[3, 5] = (200, 10, 10)
    Image.fromarray(picture).save(tmp_path / "m.png")
    with pytest.raises(
        InputError,
        match=(
            r"m.png: in colours, and \(200, 10, 10\) is not in the DAVIS palette: expected an "
            r"indexed or grey PNG"
        ),
    ):
        read_labels(tmp_path / "m.png")


def test_a_grey_image_saved_as_rgb_is_read_as_its_values(tmp_path):
    Image.effect_noise((8, 8), 50).convert("RGB").save(tmp_path / "m.png")
    np.testing.assert_array_equal(
        read_labels(tmp_path / "m.png"), np.asarray(Image.open(tmp_path / "m.png"))[..., 0]
    )


def squares(*values, background=0, side=12):
    """A picture with a square for each value, side by side."""
    picture_hw = np.full((side + 8, 4 + len(values) * (side + 4)), background, np.uint16)
    for index, value in enumerate(values):
        left = 4 + index * (side + 4)
        picture_hw[4 : 4 + side, left : left + side] = value
    return picture_hw.astype(np.uint8) if picture_hw.max() < 256 else picture_hw


def saved(path, picture, **options):
    """Save an array or an image, and return its path."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(path, **options)
    return path


def indexed(index_hw, *colors, **options):
    """An indexed image with a palette of these colours."""
    image = Image.frombytes("P", index_hw.shape[::-1], index_hw.tobytes())
    image.putpalette([channel for color in colors for channel in color])
    return image


WHITE = squares(255, 255, side=40)
SOFT = {
    "blurred": Image.fromarray(WHITE).filter(ImageFilter.GaussianBlur(1.5)),
    "resized": Image.fromarray(WHITE[::2, ::2]).resize(
        WHITE.shape[::-1], Image.Resampling.BILINEAR
    ),
    "resized by lanczos": Image.fromarray(WHITE[::3, ::3]).resize(
        WHITE.shape[::-1], Image.Resampling.LANCZOS
    ),
    "video range": Image.fromarray(WHITE).point(lambda v: 16 + v * 219 // 255),
}


@pytest.mark.parametrize("name", SOFT)
@pytest.mark.parametrize("mode", ["L", "RGB", "LA"])
def test_a_soft_edge_is_thresholded_at_half(tmp_path, name, mode):
    soft = SOFT[name]
    found = read_mask(saved(tmp_path / "m.png", soft.convert(mode)))
    np.testing.assert_array_equal(found, (np.asarray(soft) >= 128).astype(np.uint8))
    assert abs(int(found.sum()) - np.count_nonzero(WHITE)) < 0.06 * np.count_nonzero(WHITE)


@pytest.mark.parametrize("radius", [5, 40])
def test_a_very_soft_edge_is_thresholded_at_half(tmp_path, radius):
    disc = Image.new("L", (600, 500))
    ImageDraw.Draw(disc).ellipse((100, 100, 400, 400), fill=255)
    soft = disc.filter(ImageFilter.GaussianBlur(radius))
    found = read_mask(saved(tmp_path / "m.png", soft))
    np.testing.assert_array_equal(found, (np.asarray(soft) >= 128).astype(np.uint8))


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("name", ["m.jpg", "m.png"])
def test_jpeg_noise_is_not_an_object(tmp_path, quality, name):
    disc = Image.new("L", (120, 100))
    ImageDraw.Draw(disc).ellipse((20, 20, 90, 80), fill=255)
    with Image.open(saved(tmp_path / "noise.jpg", disc, quality=quality)) as image:
        noisy = image.copy()
    if name == "m.jpg":
        saved(tmp_path / name, disc, quality=quality)
    else:
        saved(tmp_path / name, noisy)
    found = read_mask(tmp_path / name)
    np.testing.assert_array_equal(found, (np.asarray(noisy) >= 128).astype(np.uint8))


def test_a_white_box_stored_as_jpeg_is_one_object(tmp_path):
    found = read_mask(saved(tmp_path / "m.jpg", squares(255, side=41), quality=95))
    np.testing.assert_array_equal(found, squares(1, side=41))


def test_object_numbers_stored_as_jpeg_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"m.jpg: grey 0, .*: can't tell shades from objects"):
        read_mask(saved(tmp_path / "m.jpg", squares(1, 2, 3, side=41)))


@pytest.mark.parametrize("white", [255, 65535])
def test_white_of_8_or_16_bits_is_one_object(tmp_path, white):
    found = read_mask(saved(tmp_path / "m.png", squares(white).astype(np.uint16)))
    np.testing.assert_array_equal(found, squares(1))
    assert read_mask(saved(tmp_path / "all.png", np.full((9, 9), white, np.uint16))).all()


def test_a_soft_edge_in_16_bits_is_thresholded_at_half(tmp_path):
    soft = np.asarray(SOFT["blurred"]).astype(np.uint16) * 257
    found = read_mask(saved(tmp_path / "m.png", soft))
    np.testing.assert_array_equal(found, (soft > 32767).astype(np.uint8))


@pytest.mark.parametrize(
    "values", [(1, 2, 3), (31,), (5, 17), (38, 75, 113), (50, 100, 150, 200), (200,), (128,)]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_object_numbers_may_be_far_apart(tmp_path, values, dtype):
    labels_hw = squares(*values)
    found = read_mask(saved(tmp_path / "m.png", labels_hw.astype(dtype)))
    np.testing.assert_array_equal(found, labels_hw)


def test_an_object_may_be_a_single_pixel(tmp_path):
    labels_hw = np.array([[0, 1, 2], [3, 0, 31]], np.uint8)
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "m.png", labels_hw)), labels_hw)


@pytest.mark.parametrize(
    ("picture", "grey"),
    [
        (squares(128, 255), "grey 0, 128, 255"),  # two objects, or one with an uncertain band
        (squares(85, 170, 255), "grey 0, 85, 170, 255"),
        (squares(1, 2, 255), "grey 0, 1, 2, 255"),  # 255 may be an object or void
        (np.array([[0, 255], [3, 0]], np.uint8), "grey 0, 3, 255"),
        (squares(40, background=200), "grey 40, 200"),
        (np.asarray(SOFT["blurred"]) // 2, "grey 0, 1, .* and [0-9]+ more"),  # grey on black
        (squares(30000, 65535), "grey 0, 30000, 65535"),
    ],
)
def test_the_error_for_ambiguous_grey_values_lists_them(tmp_path, picture, grey):
    words = (
        f"m.png: {grey}: can't tell shades from objects: expected white on black, objects' numbers"
    )
    with pytest.raises(InputError, match=words):
        read_mask(saved(tmp_path / "m.png", picture))


@pytest.mark.parametrize("mode", ["P", "RGB"])
def test_pascal_voc_void_is_an_object_only_if_there_is_no_other(tmp_path, mode):
    labels_hw = np.zeros((48, 64), np.uint8)
    labels_hw[8:40, 8:40] = 255
    for value in (255, 15, 1):
        labels_hw[10:38, 10:38] = value
        write_mask(tmp_path / "m.png", labels_hw)
        with Image.open(tmp_path / "m.png") as image:
            image.convert(mode).save(tmp_path / "n.png")
        expected = labels_hw * (labels_hw == value)
        np.testing.assert_array_equal(read_mask(tmp_path / "n.png"), expected)
        np.testing.assert_array_equal(read_labels(tmp_path / "n.png"), labels_hw)


def test_benchmark_labels_are_read_as_stored(tmp_path):
    for name, picture in (("a", squares(128, 255)), ("b", squares(1, 2, 255)), ("c", WHITE)):
        path = saved(tmp_path / f"{name}.png", picture)
        np.testing.assert_array_equal(read_labels(path), picture)


def test_a_label_above_255_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"m.png: holds the label 300: expected 0 to 255"):
        read_mask(saved(tmp_path / "m.png", squares(300, 1)))
    with pytest.raises(InputError, match=r"m.png: holds the label 300: expected 0 to 255"):
        read_labels(tmp_path / "m.png")


def test_fractional_values_are_refused(tmp_path):
    path = saved(tmp_path / "m.tif", squares(1).astype(np.float32) / 2)
    for read in (read_mask, read_labels, read_frame):
        with pytest.raises(InputError, match=r"m.tif: holds fractions: expected whole numbers"):
            read(path)


def with_alpha(mode, color, alpha_hw):
    image = Image.new("RGB", alpha_hw.shape[::-1], color).convert(mode)
    image.putalpha(Image.fromarray(alpha_hw))
    return image


@pytest.mark.parametrize("color", [(255, 255, 255), (0, 0, 0), (200, 10, 10), (128, 128, 128)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_mask_with_transparency_is_read_from_its_alpha_channel(tmp_path, color, mode):
    alpha_hw = np.asarray(SOFT["blurred"])
    found = read_mask(saved(tmp_path / "m.png", with_alpha(mode, color, alpha_hw)))
    np.testing.assert_array_equal(found, (alpha_hw >= 128).astype(np.uint8))


def test_an_object_cut_out_of_a_photograph_is_read_from_its_alpha(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (*WHITE.shape, 3), np.uint8)
    picture = Image.fromarray(noise)
    picture.putalpha(Image.fromarray(WHITE))
    found = read_mask(saved(tmp_path / "m.png", picture))
    np.testing.assert_array_equal(found, WHITE // 255)
    found = read_mask(saved(tmp_path / "p.png", picture.quantize(200)))
    np.testing.assert_array_equal(found, WHITE // 255)


def test_uniform_transparency_is_ignored(tmp_path):
    labels_hw = squares(1, 2, 7)
    for alpha in (0, 100, 255):
        image = Image.fromarray(COLORS[labels_hw])
        image.putalpha(alpha)
        found = read_mask(saved(tmp_path / "m.png", image))
        np.testing.assert_array_equal(found, labels_hw)


def test_several_objects_on_a_transparent_background_stay_separate(tmp_path):
    labels_hw = squares(1, 2, 7)
    image = Image.fromarray(COLORS[labels_hw])
    image.putalpha(Image.fromarray((labels_hw > 0).astype(np.uint8) * 255))
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "m.png", image)), labels_hw)
    own = indexed(labels_hw, (9, 9, 9), *[(30 * n, 200, 40) for n in range(1, 8)])
    found = read_mask(saved(tmp_path / "p.png", own, transparency=0))
    np.testing.assert_array_equal(found, labels_hw)


def test_unknown_colours_on_a_transparent_background_are_refused(tmp_path):
    alpha_hw = squares(255, 255)
    image = with_alpha("RGB", (250, 10, 10), alpha_hw)
    image.paste((10, 250, 10, 255), (20, 4, 32, 16))
    with pytest.raises(InputError, match=r"m.png: in colours, and \(250, 10, 10\) is not in"):
        read_mask(saved(tmp_path / "m.png", image))


def test_soft_alpha_in_a_palette_is_thresholded_at_half(tmp_path):
    alpha_hw = np.asarray(SOFT["resized"])
    levels, index_hw = np.unique(alpha_hw, return_inverse=True)
    image = indexed(
        index_hw.reshape(alpha_hw.shape).astype(np.uint8), *[(255, 255, 255)] * len(levels)
    )
    found = read_mask(saved(tmp_path / "m.png", image, transparency=bytes(levels.tolist())))
    np.testing.assert_array_equal(found, (alpha_hw >= 128).astype(np.uint8))


def test_a_black_and_white_palette_is_read_by_its_colours(tmp_path):
    truth = WHITE // 255
    for name, image in {
        "white first": indexed(1 - truth, (255, 255, 255), (0, 0, 0)),
        "white last": indexed(truth, (0, 0, 0), (255, 255, 255)),
        "quantized": Image.fromarray(WHITE).convert("RGB").quantize(2),
    }.items():
        found = read_mask(saved(tmp_path / f"{name}.png", image))
        np.testing.assert_array_equal(found, truth, err_msg=name)


def test_a_grey_palette_is_thresholded_at_half(tmp_path):
    soft = SOFT["resized"]
    image = soft.convert("RGB").quantize(16)
    found = read_mask(saved(tmp_path / "m.png", image))
    np.testing.assert_array_equal(found, (np.asarray(image.convert("L")) >= 128).astype(np.uint8))


@pytest.mark.parametrize(
    "colors",
    [
        ((0, 0, 0), (255, 255, 255), (128, 128, 128)),
        ((255, 255, 255), (250, 10, 10), (10, 10, 250)),
        ((0, 0, 0), (0, 128, 0), (128, 0, 0)),
        ((10, 20, 30), (20, 30, 40), (30, 40, 50)),
        ((0, 0, 0), (1, 1, 1), (2, 2, 2)),
    ],
)
def test_indices_of_other_palettes_are_object_numbers(tmp_path, colors):
    labels_hw = squares(1, 2)
    found = read_mask(saved(tmp_path / "m.png", indexed(labels_hw, *colors)))
    np.testing.assert_array_equal(found, labels_hw)


def test_grey_colours_of_the_davis_palette_are_objects(tmp_path):
    write_mask(tmp_path / "m.png", squares(7, 56))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), squares(7, 56))


def test_a_reordered_palette_is_read_only_if_it_has_davis_colours(tmp_path):
    labels_hw = squares(1, 2)
    image = indexed(2 - labels_hw, COLORS[2], COLORS[1], COLORS[0])
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "m.png", image)), labels_hw)
    image = indexed(2 - labels_hw, (9, 250, 9), (250, 9, 9), (0, 0, 0))
    words = r"palette has black at entry 2 and \(9, 250, 9\) at entry 0: expected the background at"
    with pytest.raises(InputError, match=words):
        read_mask(saved(tmp_path / "m.png", image))


def test_an_ambiguous_grey_palette_is_refused(tmp_path):
    image = Image.fromarray(squares(128, 255)).convert("P")
    with pytest.raises(InputError, match="grey 0, 128, 255: can't tell shades from objects"):
        read_mask(saved(tmp_path / "m.png", image))


def stored_by_camera(picture, orientation):
    """A picture as a camera that was held rotated stores it, and the EXIF data that says so."""
    back = {
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
    }
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return picture.transpose(back[orientation]), exif


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_frames_and_masks_are_rotated_upright_by_their_exif(tmp_path, orientation):
    frame = Image.fromarray(COLORS[squares(1, 2, 3)])
    stored, exif = stored_by_camera(frame, orientation)
    found = read_frame(saved(tmp_path / "f.png", stored, exif=exif))
    np.testing.assert_array_equal(found, np.asarray(frame))
    stored, exif = stored_by_camera(SOFT["blurred"], orientation)
    for read in (read_mask, read_labels):
        found = read(saved(tmp_path / "m.png", stored, exif=exif))
        assert found.shape == SOFT["blurred"].size[::-1]
    np.testing.assert_array_equal(found, np.asarray(SOFT["blurred"]))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_8_bit_frames_are_converted_as_pillow_does(tmp_path, mode):
    image = Image.effect_noise((40, 30), 90).convert("RGB").convert(mode)
    path = saved(tmp_path / "f.tif", image)
    np.testing.assert_array_equal(read_frame(path), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("depth", [8, 10, 12, 14, 16])
def test_a_grey_frame_is_scaled_by_the_bits_in_use(tmp_path, depth, suffix):
    grey_hw = np.linspace(0, (1 << depth) - 1, 35).astype(np.uint16).reshape(5, 7)
    found = read_frame(saved(tmp_path / f"f.{suffix}", grey_hw))
    expected = (grey_hw >> (depth - 8)).astype(np.uint8)
    np.testing.assert_array_equal(found, np.repeat(expected[..., None], 3, axis=2))


def test_32_bit_and_big_endian_grey_frames_are_scaled_as_well(tmp_path):
    grey_hw = np.array([[0, 4095], [2048, 16]])
    wide = saved(tmp_path / "wide.tif", grey_hw.astype(np.int32))
    swapped = saved(tmp_path / "swapped.tif", grey_hw.astype(">u2"))
    assert [Image.open(path).mode for path in (wide, swapped)] == ["I", "I;16B"]
    for path in (wide, swapped):
        assert read_frame(path)[..., 0].tolist() == [[0, 255], [128, 1]]


@pytest.mark.parametrize("worst", [-1, 65536])
def test_a_grey_value_outside_16_bits_is_refused(tmp_path, worst):
    path = saved(tmp_path / "f.tif", np.array([[0, worst]], np.int32))
    with pytest.raises(InputError, match=f"f.tif: holds the grey value {worst}: expected 0 to"):
        read_frame(path)


def test_all_frames_of_a_video_are_scaled_by_the_same_depth(tmp_path):
    values = (900, 4000, 100)
    frames = [np.full((6, 8), value, np.uint16) for value in values]
    paths = tuple(saved(tmp_path / f"{t}.png", frame) for t, frame in enumerate(frames))
    found = [int(frame[0, 0, 0]) for frame in read_frames(paths, (6, 8))]
    assert found == [value >> 4 for value in values]


def test_frames_are_scanned_for_depth_only_if_the_first_has_16_bits(tmp_path):
    first = saved(tmp_path / "0.png", np.zeros((6, 8), np.uint8))
    assert video_depth((first, tmp_path / "no such file.png")) is None
    first = saved(tmp_path / "0.png", np.zeros((6, 8), np.uint16))
    with pytest.raises(InputError, match=r"frame .*no such file.png: no such file"):
        video_depth((first, tmp_path / "no such file.png"))
