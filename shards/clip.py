"""A packed segment to a clip: which of its frames, which crop of them, as pixels. Random draws are addressed by (seed, pass, key)."""

import hashlib
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shards.errors import InputError

CLIP = 3  # what a random draw is for: the first number of its address; see order.py for the others


@dataclass(frozen=True)
class ClipConfig:
    """How clips are cut out of the packed segments."""

    frames: int = 3
    """Frames of a clip (paper, section 4.1)."""
    interval: int = 1
    """Packed frames from one frame of a clip to the next; less in segments too short for it."""
    size: int = 256
    """Side of a clip's square frames, in pixels; a multiple of 4."""
    fit: Literal["squash", "crop"] = "squash"
    """`squash` the whole frame into the square (as the paper's authors did), or `crop` a random one."""
    flip: bool = False
    """Mirror half of the clips."""

    def __post_init__(self) -> None:
        if self.frames < 2 or self.interval < 1 or self.size < 4 or self.size % 4:
            raise InputError(
                f"clip: frames {self.frames}, interval {self.interval}, size {self.size}: "
                "expected at least 2, at least 1, and a multiple of 4"
            )


@dataclass(frozen=True)
class Cut:
    """One visit's choice."""

    frames: tuple[int, ...]
    """Numbers of the frames within the segment."""
    top: float
    left: float
    """Place of the crop, from 0 (top, left) to 1 (bottom, right)."""
    mirrored: bool


def choose_cut(config: ClipConfig, length: int, seed: int, pass_: int, key: str) -> Cut:
    """The clip that a pass takes from the segment `key` of `length` frames."""
    name = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())
    draw = np.random.default_rng([seed, CLIP, pass_, name])
    interval = min(config.interval, (length - 1) // (config.frames - 1))
    if interval < 1:
        raise InputError(f"sample {key}: {length} frames: too few for a clip of {config.frames}")
    first = int(draw.integers(length - (config.frames - 1) * interval))
    top, left, coin = draw.random(3).tolist()
    frames = tuple(first + interval * t for t in range(config.frames))
    return Cut(frames, top, left, config.flip and coin < 0.5)


def decode_clip(jpegs: list[bytes], cut: Cut, config: ClipConfig, key: str) -> NDArray[np.uint8]:
    """The chosen frames as uint8 `[T, 3, size, size]`; `jpegs` are those frames alone."""
    frames = []
    for number, jpeg in zip(cut.frames, jpegs, strict=True):
        try:
            with Image.open(io.BytesIO(jpeg)) as image:
                frames.append(cut_frame(image.convert("RGB"), cut, config))
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for damage of one kind or another
            raise InputError(f"sample {key}: frame {number} is not a readable JPEG ({error})") from None
    clip_thwc = np.stack(frames)
    clip_thwc = clip_thwc[:, :, ::-1] if cut.mirrored else clip_thwc
    return np.ascontiguousarray(clip_thwc.transpose(0, 3, 1, 2))


def cut_frame(image: Image.Image, cut: Cut, config: ClipConfig) -> NDArray[np.uint8]:
    """A square of one frame, uint8 `[size, size, 3]`."""
    side = config.size
    if config.fit == "squash":
        box = (0.0, 0.0, float(image.width), float(image.height))
    else:
        crop = min(side, *image.size)  # a frame smaller than the crop is enlarged
        left, top = round(cut.left * (image.width - crop)), round(cut.top * (image.height - crop))
        box = (left, top, left + crop, top + crop)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=box))
