"""Cuts clips from packed segments: chooses frames, decodes them, and crops and flips them as drawn
in `augmentation.py`."""

import io
import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from shards.errors import DataError, check_choice, check_range
from shards.reading.augmentation import (
    ClipAugmentation,
    augment_frame,
    clip_draws,
    draw_augmentation,
)

Fit = Literal["squash", "crop"]


@dataclass(frozen=True)
class ClipConfig:
    """How clips are cut from the packed segments."""

    frames: int = 3
    """Number of frames in a clip (paper, section 4.1)."""
    interval: tuple[int, ...] = (1,)
    """Distance between the frames of a clip, in packed frames. If several are given, each clip
    takes one at random, among those that fit into the segment. If none fits, it takes the largest
    possible one."""
    clips_per_segment: int = 1
    """Number of clips that an epoch takes from each segment; more than one saves reading."""
    size: int = 256
    """Side of a clip's square frames, in pixels; a multiple of the encoder's stride."""
    fit: Fit = "squash"
    """`squash` resizes the whole frame to the square (as the paper's authors did); `crop` takes a
    random square, an augmentation."""
    flip: bool = False
    """Augmentation: mirror half of the clips."""
    shift: int = 0
    """Augmentation: largest number of pixels by which each frame's crop is moved, independently of
    the other frames, so that static content moves, too, and crop edges give no hint of position.
    Only with fit `crop`."""

    def __post_init__(self) -> None:
        check_choice("clip: fit", self.fit, Fit)
        check_range("clip", self, "frames", 2)
        check_range("clip", self, "interval clips_per_segment size", 1)
        check_range("clip", self, "shift", 0)
        if not self.interval:
            raise DataError("clip: no interval: expected one or more")
        if self.shift and self.fit != "crop":
            raise DataError(f"clip: shift {self.shift}: expected with fit crop, is {self.fit}")


@dataclass(frozen=True)
class ClipSample:
    """The clip that one visit cuts from a segment."""

    frames: tuple[int, ...]
    """Indices of the frames within the segment."""
    augmentation: ClipAugmentation


def sample_clip(
    config: ClipConfig, length: int, seed: int, epoch: int, key: str, visit: int = 0
) -> ClipSample:
    """Draw the clip that a visit cuts from the segment `key` of `length` frames; DataError if the
    segment is too short."""
    widest = (length - 1) // (config.frames - 1)
    if widest < 1:
        raise DataError(f"sample {key}: {length} frames: too few for a clip of {config.frames}")
    draws = clip_draws(seed, epoch, visit, key)
    fitting = [interval for interval in config.interval if interval <= widest] or [widest]
    interval = fitting[int(draws("interval").integers(len(fitting)))]
    first = int(draws("first").integers(length - (config.frames - 1) * interval))
    frames = tuple(first + interval * t for t in range(config.frames))
    augmentation = draw_augmentation(draws, config.frames, flip=config.flip, shift=config.shift)
    return ClipSample(frames, augmentation)


class DamagedFrameError(Exception):
    """A frame of a clip can't be used. Holds its index in the clip, and what is wrong with it."""

    def __init__(self, index: int, reason: str = "is not a readable JPEG") -> None:
        super().__init__(index, reason)
        self.index, self.reason = index, reason


def decode_clip(jpegs: list[bytes], cut: ClipSample, config: ClipConfig, out_t3ss: Tensor) -> None:
    """Decode a clip's frames on the device of `out_t3ss`, and cut them into it.

    Args:
        jpegs: the frames of the clip.
        cut: which clip it is, with its augmentation.
        config: size and fit of the clip.
        out_t3ss: written to, uint8 `[T, 3, size, size]`. On CUDA, nvJPEG rounds slightly
            differently from decoders on CPUs.

    Raises:
        DamagedFrameError: a frame can't be used; names the first one.
    """
    # on the CPU, each frame is cut while it is still in the cache
    frames = (
        decode_on(out_t3ss.device, jpegs)
        if out_t3ss.device.type == "cuda"
        else map(decode_frame, jpegs, itertools.count())
    )
    shape: torch.Size | None = None
    for index, (frame, out_3ss) in enumerate(zip(frames, out_t3ss.unbind(), strict=True)):
        if shape is not None and frame.shape != shape:
            sizes = (
                f"{frame.shape[2]}x{frame.shape[1]}, the clip's first frame {shape[2]}x{shape[1]}"
            )
            raise DamagedFrameError(index, f"is {sizes}: expected the same size")
        shape = frame.shape
        out_3ss.copy_(cut_frame(frame, cut, config, index))


def decode_frame(jpeg: bytes, index: int) -> Tensor:
    """Decode a JPEG to uint8 `[3, H, W]`. Torchvision is twice as fast as Pillow and gives the same
    pixels, as a test checks."""
    if (decode := torchvision_decoder()) is None:
        return decode_with_pillow(jpeg, index)
    try:
        frame: Tensor = decode(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8))
    except (RuntimeError, ValueError):  # ValueError: an empty file
        raise DamagedFrameError(index) from None
    return frame


def decode_with_pillow(jpeg: bytes, index: int) -> Tensor:
    """The same with Pillow: reference and fallback."""
    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    # all that Pillow raises for damaged images
    except (OSError, ValueError, SyntaxError):
        raise DamagedFrameError(index) from None


def decode_on(device: torch.device, jpegs: list[bytes]) -> list[Tensor]:
    """Decode all frames at once on a CUDA device, with nvJPEG."""
    if (decode := torchvision_decoder()) is None:
        raise DataError("stream: decode device: expected a torchvision that has io.decode_jpeg")
    try:
        decoded: list[Tensor] = decode(
            [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs], device=device
        )
        return decoded
    except RuntimeError:  # decoding one by one tells which frame is damaged
        return [decode_frame(jpeg, index).to(device) for index, jpeg in enumerate(jpegs)]


@cache
def torchvision_decoder() -> Callable[..., Any] | None:
    """Torchvision's JPEG decoder; None in releases without it, as it is deprecated."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None
    warnings.filterwarnings(
        "ignore", message=".*TorchVision are deprecated", category=DeprecationWarning
    )
    return partial(decode_jpeg, mode=ImageReadMode.RGB)


def cut_frame(frame_3hw: Tensor, cut: ClipSample, config: ClipConfig, index: int) -> Tensor:
    """Cut a square from the clip's frame number `index`, uint8 `[3, size, size]`."""
    crop = config.fit == "crop"
    return augment_frame(frame_3hw, cut.augmentation, index, config.size, crop=crop)
