"""Still images as viewers show them: upright, 8 bits a channel. Which images make up a video is in
`sources.py`."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

GREY16 = {"I;16", "I;16L", "I;16B", "I;16N", "I"}  # Pillow's modes of grey with more than 8 bits
DEPTHS = (8, 10, 12, 14, 16)
# what Pillow raises for damage of one kind or another
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def to_rgb(image: Image.Image, depth: int = 16) -> Image.Image:
    """An opened image as 8-bit RGB, turned upright as its EXIF asks.

    Args:
        image: of any mode.
        depth: bits of a 16-bit grey image that are in use; its values are scaled from so many to 8.

    Raises:
        ValueError: values that `depth` bits can't hold, or fractions, whose range nobody knows.
    """
    if is_turned(image):
        image = ImageOps.exif_transpose(image)
    if image.mode in GREY16:
        image = to_grey8(image, depth)
    if image.mode == "F":
        raise ValueError("holds fractions: expected whole numbers of 8 or 16 bits")
    return image.convert("RGB")


def is_turned(image: Image.Image) -> bool:
    """Whether its EXIF asks for a turn or a mirror image."""
    return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)


def to_grey8(image: Image.Image, depth: int) -> Image.Image:
    """Grey of `depth` bits as grey of 8."""
    grey_hw = np.asarray(image)
    low, high = int(grey_hw.min()), int(grey_hw.max())
    if low < 0 or high >= 1 << depth:
        worst = low if low < 0 else high
        raise ValueError(f"holds the grey value {worst}: expected 0 to {(1 << depth) - 1}")
    return Image.fromarray((grey_hw >> (depth - 8)).astype(np.uint8))


def grey_depth(paths: Iterable[Path]) -> int:
    """How many bits the 16-bit grey images of one video use: 8, 10, 12, 14 or 16.

    Cameras store 10 to 14 bits in files of 16, and say nowhere how many: the largest value of the
    whole video tells.
    """
    highest = 0
    for path in paths:
        try:
            with Image.open(path) as image:
                if image.mode in GREY16:
                    highest = max(highest, int(np.asarray(image).max()))
        except UNREADABLE:
            continue  # who reads the frame will say so
    return next((depth for depth in DEPTHS if highest < 1 << depth), DEPTHS[-1])
