"""A packed segment to a clip: which of its frames, which crop of them, as pixels. Draws are
addressed by (seed, pass, visit, key)."""

import hashlib
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
from torch.nn import functional

from shards.errors import InputError

CLIP = 3  # what a random draw is for: the first number of its address; see order.py for the others


@dataclass(frozen=True)
class ClipConfig:
    """How clips are cut out of the packed segments."""

    frames: int = 3
    """Frames of a clip (paper, section 4.1)."""
    interval: tuple[int, ...] = (1,)
    """Packed frames from one frame of a clip to the next; of several, each clip takes one at
    random; less in segments too short for it."""
    clips_per_segment: int = 1
    """Clips that a pass takes of each segment; more than one spares reading."""
    size: int = 256
    """Side of a clip's square frames, in pixels; a multiple of the encoder's stride."""
    fit: Literal["squash", "crop"] = "squash"
    """`squash` the whole frame into the square (as the paper's authors did), or `crop` a random
    one."""
    flip: bool = False
    """Mirror half of the clips."""
    shift: int = 0
    """Most pixels by which each frame's crop is moved, apart from the others': what stands still
    moves, and the edge of a crop is no landmark. For `crop` alone."""

    def __post_init__(self) -> None:
        if (
            self.frames < 2
            or not self.interval
            or min(self.interval) < 1
            or self.clips_per_segment < 1
            or self.size < 1
        ):
            raise InputError(
                f"clip: frames {self.frames}, interval {self.interval}, clips_per_segment "
                f"{self.clips_per_segment}, size {self.size}: "
                "expected at least 2, and at least 1 of the others"
            )
        if self.shift < 0 or (self.shift and self.fit != "crop"):
            raise InputError(
                f"clip: fit {self.fit}, shift {self.shift}: expected a shift of at least 0, and "
                "one of crops alone"
            )


@dataclass(frozen=True)
class ClipSample:
    """One visit's choice."""

    frames: tuple[int, ...]
    """Numbers of the frames within the segment."""
    top: float
    left: float
    """Place of the crop, from 0 (top, left) to 1 (bottom, right)."""
    mirrored: bool
    shifts: tuple[tuple[float, float], ...] = ()
    """Pixels down and right by which the crops of single frames are moved; none: none is."""


def sample_clip(
    config: ClipConfig, length: int, seed: int, pass_: int, key: str, visit: int = 0
) -> ClipSample:
    """The clip that a visit takes from the segment `key` of `length` frames."""
    name = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())
    draw = np.random.default_rng([seed, CLIP, pass_, visit, name])
    widest = (length - 1) // (config.frames - 1)
    if widest < 1:
        raise InputError(f"sample {key}: {length} frames: too few for a clip of {config.frames}")
    fitting = [interval for interval in config.interval if interval <= widest] or [widest]
    interval = fitting[int(draw.integers(len(fitting)))]
    first = int(draw.integers(length - (config.frames - 1) * interval))
    top, left, coin = draw.random(3).tolist()
    frames = tuple(first + interval * t for t in range(config.frames))
    moved = (
        ((draw.random((config.frames, 2)) * 2 - 1) * config.shift).tolist() if config.shift else []
    )
    return ClipSample(
        frames, top, left, config.flip and coin < 0.5, tuple((down, right) for down, right in moved)
    )


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
            raise DamagedFrameError(place, f"is {sizes}: expected one size")
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
    except (
        OSError,
        ValueError,
        SyntaxError,
    ):
        raise DamagedFrameError(place) from None


def decode_on(device: torch.device, jpegs: list[bytes]) -> list[Tensor]:
    """All frames at once, by nvJPEG."""
    if (decode := torchvision_decoder()) is None:
        raise InputError("stream: decode device: expected a torchvision that has io.decode_jpeg")
    try:
        found: list[Tensor] = decode(
            [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs], device=device
        )
        return found
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
    side, (height, width) = config.size, frame_3hw.shape[-2:]
    if config.fit == "crop":
        crop = min(side, height, width)  # a frame smaller than the crop is enlarged
        down, right = cut.shifts[place] if cut.shifts else (0.0, 0.0)
        top = min(max(round(cut.top * (height - crop) + down), 0), height - crop)
        left = min(max(round(cut.left * (width - crop) + right), 0), width - crop)
        frame_3hw = frame_3hw[:, top : top + crop, left : left + crop]
    if frame_3hw.shape[-2:] != (side, side):
        # uint8 is resized as it is on the CPU alone
        pixels = frame_3hw if frame_3hw.device.type == "cpu" else frame_3hw.float()
        resized = functional.interpolate(
            pixels[None], (side, side), mode="bilinear", antialias=True
        )[0]
        frame_3hw = (
            resized if resized.dtype == torch.uint8 else resized.round_().clamp_(0, 255).byte()
        )
    return frame_3hw.flip(-1) if cut.mirrored else frame_3hw
