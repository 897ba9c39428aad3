"""Frames and masks on disk: read them, write them, draw the one over the other.

Shapes: h w pixels, 3 colour channels last, as Pillow has them.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from corrflow.errors import InputError
from corrflow.files import atomic_file
from corrflow.metrics import boundary_map

Pixels = NDArray[np.uint8]
OVERLAY_SHARE = 0.5  # of the object's colour in an overlay


def davis_palette() -> list[int]:
    """The palette of the DAVIS and PASCAL VOC annotations: 256 RGB triples, index 1 dark red, 2 dark green, ..."""
    palette = []
    for index in range(256):
        color = [0, 0, 0]
        for bit in range(8):  # three bits of the index at a time, from the most significant bit of the colours down
            for channel in range(3):
                color[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        palette += color
    return palette


PALETTE = davis_palette()


def read_frame(path: Path) -> Pixels:
    """An image as RGB `[H, W, 3]`; InputError if there is none that can be read."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"frame {path}: no such file") from None
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for damage of one kind or another
        raise InputError(f"frame {path}: not a readable image ({error})") from None


def read_mask(path: Path) -> Pixels:
    """A mask as labels `[H, W]`: the indices of a palette image, the numbers of a grey one; 0 and 255 alone mean 0 and 1.

    Raises:
        InputError: no such file, or a picture in full colour.
    """
    try:
        with Image.open(path) as image:
            labels = np.array(image.convert("L") if image.mode in ("1", "LA") else image)
    except FileNotFoundError:
        raise InputError(f"mask {path}: no such file") from None
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for damage of one kind or another
        raise InputError(f"mask {path}: not a readable image ({error})") from None
    if labels.ndim == 3 and (labels[..., :3] == labels[..., :1]).all():  # grey, written as RGB or RGBA
        labels = labels[..., 0]
    if labels.ndim != 2 or labels.min() < 0 or labels.max() > 255:
        raise InputError(f"mask {path}: {list(labels.shape)}: expected an indexed or grey PNG with labels 0 to 255")
    labels = labels.astype(np.uint8)
    return (labels // 255).astype(np.uint8) if set(np.unique(labels)) <= {0, 255} else labels


def write_mask(path: Path, labels_hw: Pixels) -> None:
    """Labels as an indexed PNG with the DAVIS palette."""
    image = Image.frombytes("P", labels_hw.shape[::-1], np.ascontiguousarray(labels_hw).tobytes())
    image.putpalette(PALETTE)
    with atomic_file(path) as file:
        image.save(file, "PNG")


def overlay(frame_hw3: Pixels, labels_hw: Pixels) -> Pixels:
    """A frame with its objects tinted and outlined in the palette's colours; `[H, W, 3]`."""
    colors_hw3 = np.array(PALETTE, dtype=np.uint8).reshape(256, 3)[labels_hw]
    tinted = frame_hw3 * (1 - OVERLAY_SHARE) + colors_hw3 * OVERLAY_SHARE
    out = np.where((labels_hw > 0)[..., None], tinted, frame_hw3).astype(np.uint8)
    for label in np.unique(labels_hw[labels_hw > 0]):
        out[boundary_map(labels_hw == label)] = 255
    return out


def write_jpeg(path: Path, frame_hw3: Pixels) -> None:
    """RGB as JPEG."""
    with atomic_file(path) as file:
        Image.fromarray(frame_hw3).save(file, "JPEG", quality=88)
