"""A packed segment to a clip: which of its frames, decoded, cropped and flipped as
`augmentation.py` draws it."""

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

from shards.errors import DataError, check_range
from shards.reading.augmentation import (
    ClipAugmentation,
    augment_frame,
    clip_draws,
    draw_augmentation,
)


@dataclass(frozen=True)
class ClipConfig:
    """How clips are cut out of the packed segments."""

    frames: int = 3
    """Frames of a clip (paper, section 4.1)."""
    interval: tuple[int, ...] = (1,)
    """Packed frames from one frame of a clip to the next. Of several intervals each clip takes one
    at random; in a segment that is too short, it takes what fits."""
    clips_per_segment: int = 1
    """Clips that an epoch takes of each segment; more than one saves reading."""
    size: int = 256
    """Side of a clip's square frames, in pixels; a multiple of the encoder's stride."""
    fit: Literal["squash", "crop"] = "squash"
    """`squash` resizes the whole frame to the square (as the paper's authors did); `crop` takes a
    random square, an augmentation."""
    flip: bool = False
    """Augmentation: mirror half of the clips."""
    shift: int = 0
    """Augmentation: the most pixels by which each frame's crop is moved, independently of the other
    frames', so that what stands still moves, and the edge of a crop is no landmark. For `crop`
    alone."""

    def __post_init__(self) -> None:
        check_range("clip", self, "frames", 2)
        check_range("clip", self, "interval clips_per_segment size", 1)
        check_range("clip", self, "shift", 0)
        if not self.interval:
            raise DataError("clip: no interval: expected one or more")
        if self.shift and self.fit != "crop":
            raise DataError(f"clip: shift {self.shift}: expected with fit crop, is {self.fit}")


@dataclass(frozen=True)
class ClipSample:
    """What one visit takes of a segment."""

    frames: tuple[int, ...]
    """Numbers of the frames within the segment."""
    augmentation: ClipAugmentation


def sample_clip(
    config: ClipConfig, length: int, seed: int, epoch: int, key: str, visit: int = 0
) -> ClipSample:
    """The clip that a visit takes from the segment `key` of `length` frames."""
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
    """A frame that can't be used: its place in the clip, and what is wrong with it."""

    def __init__(self, place: int, reason: str = "is not a readable JPEG") -> None:
        super().__init__(place, reason)
        self.place, self.reason = place, reason


def decode_clip(jpegs: list[bytes], cut: ClipSample, config: ClipConfig, out_t3ss: Tensor) -> None:
    """The chosen frames, cut, into `out_t3ss`, uint8 `[T, 3, size, size]`; decoded on its device.

    Args:
        jpegs: those frames alone.
        cut: what is taken of them.
        config: the size.
        out_t3ss: is written. On CUDA nvJPEG rounds a little differently from what CPUs do.

    Raises:
        DamagedFrameError: names the first one.
    """
    # on the CPU each frame is cut while it is still in the cache
    frames = (
        decode_on(out_t3ss.device, jpegs)
        if out_t3ss.device.type == "cuda"
        else map(decode_frame, jpegs, itertools.count())
    )
    shape: torch.Size | None = None
    for place, (frame, out_3ss) in enumerate(zip(frames, out_t3ss.unbind(), strict=True)):
        if shape is not None and frame.shape != shape:
            sizes = (
                f"{frame.shape[2]}x{frame.shape[1]}, the clip's first frame {shape[2]}x{shape[1]}"
            )
            raise DamagedFrameError(place, f"is {sizes}: expected the same size")
        shape = frame.shape
        out_3ss.copy_(cut_frame(frame, cut, config, place))


def decode_frame(jpeg: bytes, place: int) -> Tensor:
    """uint8 `[3, H, W]`; by torchvision, twice as fast as Pillow, and the same pixels, which a test
    holds."""
    if (decode := torchvision_decoder()) is None:
        return decode_with_pillow(jpeg, place)
    try:
        frame: Tensor = decode(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8))
    except (RuntimeError, ValueError):  # the second for no bytes at all
        raise DamagedFrameError(place) from None
    return frame


def decode_with_pillow(jpeg: bytes, place: int) -> Tensor:
    """The plain way to do the same."""
    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    # what Pillow raises for damage of one kind or another
    except (OSError, ValueError, SyntaxError):
        raise DamagedFrameError(place) from None


def decode_on(device: torch.device, jpegs: list[bytes]) -> list[Tensor]:
    """All frames at once, by nvJPEG."""
    if (decode := torchvision_decoder()) is None:
        raise DataError("stream: decode device: expected a torchvision that has io.decode_jpeg")
    try:
        decoded: list[Tensor] = decode(
            [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs], device=device
        )
        return decoded
    except RuntimeError:  # which one it was, the other decoder knows
        return [decode_frame(jpeg, place).to(device) for place, jpeg in enumerate(jpegs)]


@cache
def torchvision_decoder() -> Callable[..., Any] | None:
    """Its JPEG decoder; None if it has none any more: it is to be taken out some day."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None
    warnings.filterwarnings(
        "ignore", message=".*TorchVision are deprecated", category=DeprecationWarning
    )
    return partial(decode_jpeg, mode=ImageReadMode.RGB)


def cut_frame(frame_3hw: Tensor, cut: ClipSample, config: ClipConfig, place: int) -> Tensor:
    """A square of the clip's frame `place`, uint8 `[3, size, size]`."""
    crop = config.fit == "crop"
    return augment_frame(frame_3hw, cut.augmentation, place, config.size, crop=crop)
