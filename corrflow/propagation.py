"""Labels through a video of any length, in bounded memory: the first frame's labels are copied from frame to frame.

Where frames and labels come from, and what is scored, is in `benchmarks/`. Shapes: t frames, k labels, h w cells at stride 4, H W pixels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from corrflow.color import shrink_labels
from corrflow.encoder import STRIDE
from corrflow.errors import InputError
from corrflow.model import CorrFlow


@dataclass(frozen=True)
class Protocol:
    """How labels travel at test time."""

    name: str
    propagates: bool = True
    """False: each frame gets the first frame's labels, the identity baseline."""
    radius: int = 6
    """Half the side of the window, in cells of 4 pixels."""


PROTOCOLS = {
    # Lai & Xie, section 4.2: the previous frame alone, hard labels at each step, native size
    "paper": Protocol("paper"),
    "identity": Protocol("identity", propagates=False),
}


def find_protocol(protocol: str | Protocol) -> Protocol:
    """A protocol by its name; InputError lists the names."""
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]


def propagate(model: CorrFlow | None, frames: Iterable[Tensor] | Tensor, labels: Tensor, protocol: str | Protocol = "paper") -> Tensor:
    """Track the labels of the first frame through a video (paper, section 4.2).

    Args:
        model: from `load_model`; None will do for `identity`.
        frames: `[T, 3, H, W]`, or any iterable of `[3, H, W]`: uint8, or floating in [0, 1]. Any H and W.
        labels: whole numbers `[H, W]`, the first frame's: 0 for background, one number for each object, at most 255.
        protocol: `paper` (previous frame, argmax at each step), `identity` (the first labels for ever), or one of your own.

    Returns:
        uint8 `[T, H, W]`: labels of every frame, the first as given. `stream` yields them one at a time, in bounded memory.

    Raises:
        InputError: sizes that differ, labels out of range, an unknown protocol, no frame at all.
    """
    tracked = list(stream(model, frames, labels, protocol))
    if not tracked:
        raise InputError("propagate: no frames: expected at least one")
    return torch.stack(tracked)


@torch.inference_mode()
def stream(
    model: CorrFlow | None, frames: Iterable[Tensor] | Tensor, labels: Tensor, protocol: str | Protocol = "paper"
) -> Iterator[Tensor]:
    """`propagate`, frame by frame: yields uint8 `[H, W]` on the CPU; holds one frame and the features of two."""
    chosen = find_protocol(protocol)
    labels = torch.as_tensor(labels)
    if labels.ndim != 2 or labels.is_floating_point() or int(labels.min()) < 0 or int(labels.max()) > 255:
        raise InputError(f"labels {list(labels.shape)} of {labels.dtype}: expected whole numbers 0 to 255, [H, W]")
    numbers, dense_hw = torch.unique(labels, return_inverse=True)  # labels may leave numbers out; channels do not
    if chosen.propagates and model is None:
        raise InputError(f"protocol {chosen.name}: needs a model")
    device = torch.device("cpu") if model is None else next(model.parameters()).device
    numbers, dense_hw, previous = numbers.cpu(), dense_hw.to(device), None
    for index, frame in enumerate(map(torch.as_tensor, frames)):
        if frame.shape != (3, *labels.shape):
            raise InputError(f"frame {index} is {list(frame.shape)}, expected {[3, *labels.shape]}: the size of the labels")
        if model is not None and chosen.propagates:
            features = encode_frame(model, frame.to(device))
            if previous is not None:
                dense_hw = copy_labels(model, features, previous, dense_hw, len(numbers), chosen.radius)
            previous = features
        yield numbers[dense_hw.cpu()].to(torch.uint8)


def encode_frame(model: CorrFlow, frame_3hw: Tensor) -> Tensor:
    """Features `[1, C, h, w]` of one frame of any size, as in eval mode: a look must not change BatchNorm's statistics."""
    was_training = model.training
    features: Tensor = model.eval().encode(padded(unit_range(frame_3hw)[None]))
    model.train(was_training)
    return features


def copy_labels(model: CorrFlow, target: Tensor, reference: Tensor, labels_hw: Tensor, classes: int, radius: int) -> Tensor:
    """One hop: shrink the labels to shares, copy them, enlarge, and take the likeliest; int64 `[H, W]` to the same."""
    height, width = labels_hw.shape
    shares_1khw = shrink_labels(padded(labels_hw[None, None].float())[0], classes)
    copied_1khw = model.copy(target, reference, shares_1khw, radius)
    enlarged = F.interpolate(copied_1khw, scale_factor=STRIDE, mode="bilinear", align_corners=False)
    return enlarged[0, :, :height, :width].argmax(dim=0)


def unit_range(frames: Tensor) -> Tensor:
    """uint8 to [0, 1]; floating frames are there already."""
    return frames if frames.is_floating_point() else frames.float() / 255


def padded(x_nchw: Tensor) -> Tensor:
    """Repeat the last row and column until both sides are multiples of the stride."""
    height, width = x_nchw.shape[-2:]
    return F.pad(x_nchw, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
