"""Reads image files as viewers show them: upright, with 8 bits per channel. How masks are
interpreted is in `masks.py`.

Shapes: h w pixels, 3 colour channels last, as Pillow has them.
"""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from corrflow.errors import InputError

# Pillow's grey modes of more than 8 bits
GREY16 = {"I;16", "I;16L", "I;16B", "I;16N", "I"}
DEPTHS = (8, 10, 12, 14, 16)
# the exceptions that Pillow raises for damaged files
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def load_image(path: Path, kind: str) -> Image.Image:
    """Read an image file and orient it as its EXIF says.

    Args:
        path: a file in any format that Pillow reads.
        kind: what error messages call it, such as `frame`.

    Raises:
        InputError: the file does not exist, or is not a readable image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image) if is_rotated(image) else image
            upright.format = image.format
            return upright
    except FileNotFoundError:
        raise InputError(f"{kind} {path}: no such file") from None
    except UNREADABLE as error:
        raise InputError(f"{kind} {path}: not a readable image ({error})") from None


def is_rotated(image: Image.Image) -> bool:
    """Whether the EXIF orientation asks for a rotation or a flip."""
    return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)


def to_rgb(image: Image.Image, depth: int, name: str) -> Image.Image:
    """Convert an image to 8-bit RGB.

    Args:
        image: an image of any mode.
        depth: number of bits that a 16-bit grey image uses; its values are scaled from these to 8.
        name: what error messages call the image.

    Raises:
        InputError: a value needs more than `depth` bits, or the image holds fractions, whose range
            is unknown.
    """
    if image.mode == "F":
        raise InputError(f"{name}: holds fractions: expected whole numbers of 8 or 16 bits")
    return (to_grey8(image, depth, name) if image.mode in GREY16 else image).convert("RGB")


def to_grey8(image: Image.Image, depth: int, name: str) -> Image.Image:
    """Scale grey from `depth` to 8 bits; InputError names a value that needs more than `depth`."""
    grey_hw = np.asarray(image)
    low, high = int(grey_hw.min()), int(grey_hw.max())
    if low < 0 or high >= 1 << depth:
        worst = low if low < 0 else high
        limit = (1 << depth) - 1
        raise InputError(f"{name}: holds the grey value {worst}: expected 0 to {limit}")
    return Image.fromarray((grey_hw >> (depth - 8)).astype(np.uint8))


def grey_depth(highest: int) -> int:
    """The number of bits that 16-bit grey images use, by their highest value: 8, 10, 12, 14 or 16.

    Cameras store 10 to 14 bits in 16-bit files without saying how many.
    """
    return next((depth for depth in DEPTHS if highest < 1 << depth), DEPTHS[-1])


def video_depth(paths: tuple[Path, ...]) -> int | None:
    """One depth for all frames of a video, so that its brightness does not flicker.

    It follows from the highest value in all frames, which are only read if the first one is 16-bit
    grey. If it is not, the depth is None.

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
        return ""  # reading the frame will raise the error


def highest_grey(image: Image.Image) -> int:
    """The highest value of a 16-bit grey image; 0 for any other image."""
    return int(np.asarray(image).max()) if image.mode in GREY16 else 0
