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
    """A mask as labels `[H, W]`, as `read_labels`, but 0 and 255 alone mean 0 and 1: DAVIS-2016's way of one object."""
    labels_hw = read_labels(path)
    return (labels_hw // 255).astype(np.uint8) if set(np.unique(labels_hw)) <= {0, 255} else labels_hw


def read_labels(path: Path) -> Pixels:
    """Labels `[H, W]`: the indices of a palette image, the numbers of a grey one, the places of colours in the DAVIS palette.

    Raises:
        InputError: no such file, a picture in other colours, a label above 255.
    """
    try:
        with Image.open(path) as image:
            labels = np.array(image.convert("L") if image.mode in ("1", "LA") else image)
    except FileNotFoundError:
        raise InputError(f"mask {path}: no such file") from None
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for damage of one kind or another
        raise InputError(f"mask {path}: not a readable image ({error})") from None
    if labels.ndim == 3:
        labels = labels_of_colors(path, labels[..., :3])
    if labels.min() < 0 or labels.max() > 255:
        worst = labels.max() if labels.max() > 255 else labels.min()
        raise InputError(f"mask {path}: holds the label {worst}: expected 0 to 255, what an indexed PNG can hold")
    return np.asarray(labels, dtype=np.uint8)


def labels_of_colors(path: Path, colors_hw3: Pixels) -> Pixels:
    """What a mask saved as RGB says: its one channel if it is grey, else the palette's indices; InputError if it has other colours."""
    if (colors_hw3 == colors_hw3[..., :1]).all():
        return np.asarray(colors_hw3[..., 0])
    codes_hw = colors_hw3.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    palette = np.array(PALETTE).reshape(256, 3) @ (1 << 16, 1 << 8, 1)
    order = palette.argsort()
    labels_hw = order[np.searchsorted(palette[order], codes_hw).clip(max=255)]
    unknown_hw = palette[labels_hw] != codes_hw
    if unknown_hw.any():
        color = tuple(int(value) for value in colors_hw3[unknown_hw][0])
        raise InputError(f"mask {path}: in colours, and {color} is none of the DAVIS palette: expected an indexed or grey PNG")
    return np.asarray(labels_hw, dtype=np.uint8)


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
