"""Image files as viewers show them: upright, 8 bits a channel. What a mask means is in `masks.py`.

Shapes: h w pixels, 3 colour channels last, as Pillow has them.
"""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from corrflow.errors import InputError

# Pillow's modes of grey with more than 8 bits
GREY16 = {"I;16", "I;16L", "I;16B", "I;16N", "I"}
DEPTHS = (8, 10, 12, 14, 16)
# what Pillow raises for damage of one kind or another
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def load_image(path: Path, kind: str) -> Image.Image:
    """Read an image file, turned upright as its EXIF asks.

    Args:
        path: of a file in any format that Pillow reads.
        kind: what errors call it, such as `frame`.

    Raises:
        InputError: there is no such file, or no image can be read from it.
    """
    try:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image) if is_turned(image) else image
            upright.format = image.format
            return upright
    except FileNotFoundError:
        raise InputError(f"{kind} {path}: no such file") from None
    except UNREADABLE as error:
        raise InputError(f"{kind} {path}: not a readable image ({error})") from None


def is_turned(image: Image.Image) -> bool:
    """Whether its EXIF asks for a turn or a mirror image."""
    return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)


def to_rgb(image: Image.Image, depth: int, name: str) -> Image.Image:
    """An image as 8-bit RGB.

    Args:
        image: of any mode.
        depth: the bits of a 16-bit grey image that are in use; its values are scaled from so many
            to 8.
        name: what errors call the image.

    Raises:
        InputError: it holds values that `depth` bits can't, or fractions, whose range nobody knows.
    """
    if image.mode == "F":
        raise InputError(f"{name}: holds fractions: expected whole numbers of 8 or 16 bits")
    return (to_grey8(image, depth, name) if image.mode in GREY16 else image).convert("RGB")


def to_grey8(image: Image.Image, depth: int, name: str) -> Image.Image:
    """Grey of `depth` bits as grey of 8; InputError names a value that `depth` bits can't hold."""
    grey_hw = np.asarray(image)
    low, high = int(grey_hw.min()), int(grey_hw.max())
    if low < 0 or high >= 1 << depth:
        worst = low if low < 0 else high
        limit = (1 << depth) - 1
        raise InputError(f"{name}: holds the grey value {worst}: expected 0 to {limit}")
    return Image.fromarray((grey_hw >> (depth - 8)).astype(np.uint8))


def grey_depth(highest: int) -> int:
    """How many bits 16-bit grey images use, by their highest value: 8, 10, 12, 14 or 16.

    Cameras store 10 to 14 bits in files of 16, and say nowhere how many.
    """
    return next((depth for depth in DEPTHS if highest < 1 << depth), DEPTHS[-1])


def video_depth(paths: tuple[Path, ...]) -> int | None:
    """The depth that all frames of a video have in common, so that its light does not flicker.

    It follows from the highest value of all frames, which are read for it only if the first one is
    16-bit grey; None if it is not.

    Raises:
        InputError: names a frame that can't be read.
    """
    if load_mode(paths[0]) not in GREY16:
        return None
    images = (load_image(path, "frame") for path in paths)
    return grey_depth(max(highest_grey(image) for image in images))


def load_mode(path: Path) -> str:
    """Pillow's mode of an image file, from its header; empty if it can't be read."""
    try:
        with Image.open(path) as image:
            return image.mode
    except UNREADABLE:
        return ""  # who reads the frame will say so


def highest_grey(image: Image.Image) -> int:
    """The highest value of a 16-bit grey image; 0 of any other."""
    return int(np.asarray(image).max()) if image.mode in GREY16 else 0
