"""Reads and writes images of frames and masks, and draws masks over frames.

Shapes: h w pixels, 3 colour channels last, as Pillow has them.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from corrflow.files import atomic_file
from corrflow.images import grey_depth, highest_grey, load_image, to_rgb
from corrflow.masks import PALETTE, is_near_white, marked_labels, stored_labels
from corrflow.metrics import boundary_map

Pixels = NDArray[np.uint8]
OVERLAY_SHARE = 0.5  # opacity of an object's colour in an overlay


def read_frame(path: Path, depth: int | None = None) -> Pixels:
    """Read an image as RGB `[H, W, 3]`, oriented as its EXIF says.

    Args:
        path: an image file.
        depth: number of bits that a 16-bit grey image uses, from `images.video_depth` for a video;
            None: as many as its highest value needs.

    Raises:
        InputError: the file does not exist or can't be read, or its values need more bits than
            `depth`.
    """
    image, name = load_image(path, "frame"), f"frame {path}"
    return np.array(to_rgb(image, depth or grey_depth(highest_grey(image)), name))


def read_mask(path: Path) -> Pixels:
    """Read a mask that somebody marked as labels `[H, W]`, oriented as its EXIF says.

    `masks.marked_labels` says how each kind of image is interpreted, and what is refused.

    Raises:
        InputError: the file does not exist or can't be read, or its meaning is not clear.
    """
    return marked_labels(load_image(path, "mask"), f"mask {path}")


def is_white(path: Path, labels_hw: Pixels) -> bool:
    """Whether a mask is marked in white, which does not encode an object's number: no colour of the
    DAVIS palette is as light.

    Args:
        path: the mask's file.
        labels_hw: what `read_mask` returned for it.
    """
    grey_hw = np.asarray(load_image(path, "mask").convert("L"))
    return is_near_white(int(grey_hw[labels_hw > 0].max(initial=0)), 255)


def read_labels(path: Path) -> Pixels:
    """Read the labels `[H, W]` of a benchmark, as they are stored.

    Raises:
        InputError: the file does not exist or can't be read, has colours outside of the DAVIS
            palette, or holds a label above 255.
    """
    return stored_labels(load_image(path, "mask"), f"mask {path}")


def write_mask(path: Path, labels_hw: Pixels) -> None:
    """Write labels as an indexed PNG with the DAVIS palette."""
    image = Image.frombytes("P", labels_hw.shape[::-1], np.ascontiguousarray(labels_hw).tobytes())
    image.putpalette(PALETTE)
    with atomic_file(path) as file:
        image.save(file, "PNG")


def overlay(frame_hw3: Pixels, labels_hw: Pixels) -> Pixels:
    """Tint the objects in a frame in the palette's colours and outline them in white; `[H, W,
    3]`."""
    colors_hw3 = np.array(PALETTE, dtype=np.uint8).reshape(256, 3)[labels_hw]
    tinted = frame_hw3 * (1 - OVERLAY_SHARE) + colors_hw3 * OVERLAY_SHARE
    out = np.where((labels_hw > 0)[..., None], tinted, frame_hw3).astype(np.uint8)
    for label in np.unique(labels_hw[labels_hw > 0]):
        out[boundary_map(labels_hw == label)] = 255
    return out


def write_jpeg(path: Path, frame_hw3: Pixels) -> None:
    """Write an RGB frame as JPEG."""
    with atomic_file(path) as file:
        Image.fromarray(frame_hw3).save(file, "JPEG", quality=88)
