"""Interprets an image as a mask: which pixels are which object. Files are read in `pictures.py`.

Shapes: h w pixels, 3 colour channels last, as Pillow has them.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from corrflow.errors import InputError
from corrflow.images import GREY16

Labels = NDArray[np.uint8]
Numbers = NDArray[np.int64]
LOSSY = {"JPEG", "MPO"}  # formats whose compression changes an object's number
# Grey values up to this one are object numbers, not shades: an eighth of white looks black, and
# nobody marks more objects than that.
MOST_OBJECTS = 31
# An object has a flat square at least this wide, in pixels, and a soft edge has none: in discs that
# were blurred, resized or stored as JPEG, no shade between the outer eighths of the range had one.
FLAT = 5
MANY = 64  # distinct values that suggest a wide soft edge; masks have fewer object numbers
NAMED = 8  # how many values an error message lists
VOID = 255  # of PASCAL VOC: the border around objects, which is not an object


def davis_palette() -> list[int]:
    """The palette of DAVIS and PASCAL VOC: 256 RGB triples, index 1 dark red, 2 dark green, ..."""
    palette = []
    for index in range(256):
        color = [0, 0, 0]
        for bit in range(8):  # three bits of the index at a time, from the colours' highest bit
            for channel in range(3):
                color[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        palette += color
    return palette


PALETTE = davis_palette()


def stored_labels(image: Image.Image, name: str) -> Labels:
    """The labels `[H, W]` of a benchmark's image, as they are stored.

    They are the indices of a palette image, the values of a grey image, or the indices of the
    colours in the DAVIS palette. Transparency is ignored.

    Raises:
        InputError: the image has other colours, fractions, or a label outside of 0 to 255.
    """
    if image.mode in ("P", "PA"):
        return indices(image)
    grey_hw = grey_values(image, name)
    return labels_of_colors(rgb(image), name) if grey_hw is None else in_range(grey_hw, name)


def marked_labels(image: Image.Image, name: str) -> Labels:
    """The objects `[H, W]` that somebody marked, in any of these ways; 0 is the background.

    - If transparency varies, what is at least half opaque is object 1. Several objects can be told
      apart by their palette index, if what is transparent has index 0, or by DAVIS colours.
    - In a palette image the indices are the objects. But if the colours in use are greys up to
      white and are white on black, or if black is not the first entry, the colours decide.
    - A grey image is white on black, cut at half of its range to object 1, if all of it is near
      black or near white, apart from edges, however soft. It holds object numbers if none is above
      31, or if there is no white and each value fills a flat square as wide as an object.
    - Other colours are looked up in the DAVIS palette.
    - Label 255 beside others is PASCAL VOC's void, not an object.

    Raises:
        InputError: the image is none of these, or could be two of them; names its values or
            colours.
    """
    labels_hw = labels_with_void(image, name)
    has_others = ((labels_hw > 0) & (labels_hw < VOID)).any()
    return np.where(labels_hw == VOID, np.uint8(0), labels_hw) if has_others else labels_hw


def labels_with_void(image: Image.Image, name: str) -> Labels:
    """The labels `[H, W]` that somebody marked, with 255 for void."""
    alpha_hw = varying_alpha(image)
    if alpha_hw is not None:
        return labels_of_alpha(image, alpha_hw, name)
    if image.mode in ("P", "PA"):
        return labels_of_palette(image, name)
    grey_hw = grey_values(image, name)
    if grey_hw is None:
        return labels_of_colors(rgb(image), name)
    return labels_of_grey(grey_hw, name, exact=image.format not in LOSSY)


def indices(image: Image.Image) -> Labels:
    """The indices `[H, W]` of a palette image, with or without transparency."""
    stored = np.asarray(image)
    return np.array(stored[..., 0] if stored.ndim == 3 else stored)


def rgb(image: Image.Image) -> Labels:
    """The colours `[H, W, 3]`; transparent pixels keep the colour that is stored."""
    return np.asarray(image.convert("RGBA" if image.mode == "RGBa" else "RGB"))[..., :3]


def grey_values(image: Image.Image, name: str) -> Numbers | None:
    """The values `[H, W]` of a grey image, even if it is stored as RGB; None if it is not grey.

    Raises:
        InputError: the image holds fractions.
    """
    if image.mode == "F":
        raise InputError(f"{name}: holds fractions: expected whole numbers")
    if image.mode in ("1", "L", "LA", "La"):
        return np.asarray(image.convert("L"), dtype=np.int64)
    if image.mode in GREY16:
        return np.asarray(image, dtype=np.int64)
    colors_hw3 = rgb(image)
    is_grey = (colors_hw3 == colors_hw3[..., :1]).all()
    return colors_hw3[..., 0].astype(np.int64) if is_grey else None


def in_range(labels_hw: Numbers, name: str) -> Labels:
    """Convert values to labels; InputError names one that is not from 0 to 255."""
    low, high = int(labels_hw.min()), int(labels_hw.max())
    if low < 0 or high > 255:
        worst = high if high > 255 else low
        expected = "expected 0 to 255, what an indexed PNG can hold"
        raise InputError(f"{name}: holds the label {worst}: {expected}")
    return labels_hw.astype(np.uint8)


def varying_alpha(image: Image.Image) -> Labels | None:
    """The opacity of each pixel, `[H, W]` from 0 to 255; None if all are equal."""
    if not image.has_transparency_data or image.mode in GREY16:
        return None
    alpha_hw = np.asarray(image.convert("RGBA").getchannel("A"))
    return None if alpha_hw.min() == alpha_hw.max() else alpha_hw


def labels_of_alpha(image: Image.Image, alpha_hw: Labels, name: str) -> Labels:
    """The labels of what is at least half opaque: one object, or several of flat colours.

    Raises:
        InputError: there are several objects in colours outside of the DAVIS palette; names one
            colour.
    """
    shown_hw = alpha_hw > 127
    if image.mode in ("P", "PA"):
        index_hw = indices(image)
        if ((index_hw > 0) == shown_hw).all() and len(np.unique(index_hw)) <= 1 + MOST_OBJECTS:
            return index_hw
    colors_hw3 = np.where(shown_hw[..., None], rgb(image.convert("RGBA")), 0).astype(np.uint8)
    # a soft edge may change the colours a little
    solid = np.unique(color_codes(colors_hw3[shown_hw & (alpha_hw == alpha_hw.max())]))
    if len(solid) > MOST_OBJECTS:  # a cutout of a photograph
        return shown_hw.astype(np.uint8)
    labels_hw, known_hw = palette_places(colors_hw3)
    if known_hw.all() and not (colors_hw3 == colors_hw3[..., :1]).all():
        return labels_hw
    return shown_hw.astype(np.uint8) if len(solid) <= 1 else labels_of_colors(colors_hw3, name)


def labels_of_palette(image: Image.Image, name: str) -> Labels:
    """The labels of a palette image: its indices, unless the colours in use say otherwise.

    Raises:
        InputError: either could be meant.
    """
    index_hw, palette = indices(image), palette_of(image)
    used = np.unique(index_hw)
    greys = palette[used, 0].astype(np.int64)
    if (palette[used] == palette[used, :1]).all() and is_near_white(int(greys.max()), 255):
        grey_hw = palette[index_hw, 0].astype(np.int64)
        if is_white_on_black(grey_hw, 255, exact=True):
            return np.asarray(grey_hw > 127, dtype=np.uint8)
        if (greys == used).all():
            return labels_of_grey(grey_hw, name, exact=True)
    first_is_black = not palette[0].any()
    black = [int(index) for index in used if not palette[index].any()]
    if used[0] or first_is_black or not black:
        return index_hw
    labels_hw, known_hw = palette_places(palette[index_hw])
    if known_hw.all():
        return labels_hw
    color = tuple(palette[0].tolist())
    problem = f"{name}: its palette has black at entry {black[0]} and {color} at entry 0"
    raise InputError(f"{problem}: expected the background at entry 0")


def palette_of(image: Image.Image) -> Labels:
    """The palette `[256, 3]` of a palette image, padded with black."""
    colors = image.getpalette("RGB") or []
    return np.array(colors + [0] * (768 - len(colors)), dtype=np.uint8).reshape(256, 3)


def labels_of_grey(grey_hw: Numbers, name: str, *, exact: bool) -> Labels:
    """The labels of a grey image: 1 for white on black, or the object numbers that it holds.

    Args:
        grey_hw: values of 8 or 16 bits.
        name: what error messages call the mask.
        exact: whether the values are as they were drawn, which they are not in a lossy format.

    Raises:
        InputError: the image is neither, or could be both; names its values.
    """
    values, white = np.unique(grey_hw), 255 if grey_hw.max() < 256 else 65535
    if exact and values[0] >= 0 and values[-1] <= MOST_OBJECTS:
        return grey_hw.astype(np.uint8)
    if is_white_on_black(grey_hw, white, exact=exact):
        return (2 * grey_hw > white).astype(np.uint8)
    if not is_near_white(int(values[-1]), white):
        labels_hw = in_range(grey_hw, name)
        one, objects = len(values) == 2, values[1:]
        if exact and not values[0] and (one or np.isin(objects, flat_values(grey_hw)).all()):
            return labels_hw
    more = f" and {len(values) - NAMED} more" if len(values) > NAMED else ""
    problem = f"{name}: grey {', '.join(map(str, values[:NAMED]))}{more}"
    kinds = f"white on black, objects' numbers up to {MOST_OBJECTS}, or an indexed PNG"
    raise InputError(f"{problem}: can't tell shades from objects: expected {kinds}")


def is_white_on_black(grey_hw: Numbers, white: int, *, exact: bool) -> bool:
    """Whether everything except edges is near black or near white, and some of it is near white."""
    values = np.unique(grey_hw)
    if values[0] < 0 or not is_near_white(int(values[-1]), white):
        return False
    # with hard edges and a single white, every value counts; otherwise many come from soft edges or
    # noise, and only flat ones count
    is_hard = not is_shade(values, white).any() and np.count_nonzero(8 * values >= 7 * white) == 1
    flat = values if is_hard else flat_values(grey_hw)
    dark = np.count_nonzero(8 * flat <= white)
    has_numbers = exact and dark > 1 and len(values) < MANY  # white is then the void
    return not has_numbers and not is_shade(flat, white).any()


def is_shade(values: Numbers, white: int) -> NDArray[np.bool_]:
    """Which values are neither near black nor near white, outside of the outer eighths."""
    return np.asarray((8 * values > white) & (8 * values < 7 * white))


def is_near_white(value: int, white: int) -> bool:
    """Whether a value is in the lightest eighth of the range."""
    return 8 * value >= 7 * white


def flat_values(grey_hw: Numbers) -> Numbers:
    """The values that fill a square of FLAT pixels to a side somewhere."""
    lowest_hw = minimum_filter(grey_hw, FLAT, mode="constant", cval=-1)
    highest_hw = maximum_filter(grey_hw, FLAT, mode="constant", cval=-1)
    return np.unique(grey_hw[lowest_hw == highest_hw])


def labels_of_colors(colors_hw3: Labels, name: str) -> Labels:
    """Indices of colours `[H, W, 3]` in the DAVIS palette; InputError names one that is not in
    it."""
    labels_hw, known_hw = palette_places(colors_hw3)
    if not known_hw.all():
        color = tuple(int(value) for value in colors_hw3[~known_hw][0])
        problem = f"{name}: in colours, and {color} is not in the DAVIS palette"
        raise InputError(f"{problem}: expected an indexed or grey PNG")
    return labels_hw


def palette_places(colors_hw3: Labels) -> tuple[Labels, NDArray[np.bool_]]:
    """Indices of colours in the DAVIS palette, and whether each colour is in it, both `[H, W]`."""
    codes_hw = color_codes(colors_hw3)
    palette = color_codes(np.array(PALETTE).reshape(256, 3))
    order = palette.argsort()
    labels_hw = order[np.searchsorted(palette[order], codes_hw).clip(max=255)]
    return labels_hw.astype(np.uint8), np.asarray(palette[labels_hw] == codes_hw)


def color_codes(colors: NDArray[np.integer]) -> Numbers:
    """Encode each colour as one number, `[..., 3]` to `[...]`."""
    return np.asarray(colors.astype(np.int64) @ (1 << 16, 1 << 8, 1))
