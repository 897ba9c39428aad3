"""Converts still images to what viewers show: upright, 8 bits per channel. Which images make up a
video is in `sources.py`."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

GREY16 = {"I;16", "I;16L", "I;16B", "I;16N", "I"}  # Pillow's modes of grey with more than 8 bits
DEPTHS = (8, 10, 12, 14, 16)
# all that Pillow raises for damaged images
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def to_rgb(image: Image.Image, depth: int = 16) -> Image.Image:
    """Convert an opened image to 8-bit RGB, rotated upright as its EXIF says.

    Args:
        image: of any mode.
        depth: number of bits that a 16-bit grey image uses; its values are scaled from these to 8.

    Raises:
        ValueError: a value does not fit into `depth` bits, or values are fractions, whose range is
            unknown.
    """
    if is_rotated(image):
        image = ImageOps.exif_transpose(image)
    if image.mode in GREY16:
        image = to_grey8(image, depth)
    if image.mode == "F":
        raise ValueError("holds fractions: expected whole numbers of 8 or 16 bits")
    return image.convert("RGB")


def is_rotated(image: Image.Image) -> bool:
    """Whether an image's EXIF asks for a rotation or mirroring."""
    return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)


def to_grey8(image: Image.Image, depth: int) -> Image.Image:
    """Convert grey of `depth` bits to grey of 8 bits."""
    grey_hw = np.asarray(image)
    low, high = int(grey_hw.min()), int(grey_hw.max())
    if low < 0 or high >= 1 << depth:
        worst = low if low < 0 else high
        raise ValueError(f"holds the grey value {worst}: expected 0 to {(1 << depth) - 1}")
    return Image.fromarray((grey_hw >> (depth - 8)).astype(np.uint8))


def grey_depth(paths: Iterable[Path]) -> int:
    """How many bits the 16-bit grey images of one video use: 8, 10, 12, 14 or 16.

    Cameras store 10 to 14 bits in 16-bit files without saying how many, so the largest value of the
    whole video decides.
    """
    highest = 0
    for path in paths:
        try:
            with Image.open(path) as image:
                if image.mode in GREY16:
                    highest = max(highest, int(np.asarray(image).max()))
        except UNREADABLE:
            continue  # the damage will be reported when the frame is read
    return next((depth for depth in DEPTHS if highest < 1 << depth), DEPTHS[-1])
