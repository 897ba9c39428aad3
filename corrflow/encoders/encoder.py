"""What the rest of the project needs to know of an encoder.

Shapes: n frames, c channels, h w cells, H W pixels.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from corrflow.errors import InputError


class EncoderConfig(ABC):
    """All that a checkpoint must say of an encoder so that it can be built again."""

    @abstractmethod
    def build(self, *, pretrained: bool = False) -> "Encoder":
        """Make the encoder.

        Args:
            pretrained: begin with the weights that its makers published, not at random.

        Raises:
            InputError: there is no such encoder, or no published weights of it.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain types for a checkpoint, from which `registry.read_config` makes it again."""


class Encoder(nn.Module, ABC):
    """Frames to features at a stride. An encoder of your own sets `stride` and `channels`, and
    writes `forward`."""

    stride: int
    """Pixels from one cell of the features to the next."""
    channels: int
    """Of the features."""
    config: EncoderConfig | None = None
    """How it was built; None for one that was made by hand, which can't be saved."""

    @abstractmethod
    def forward(self, frames_n3hw: Tensor) -> Tensor:
        """Compute the features.

        Args:
            frames_n3hw: floating `[N, 3, H, W]`, H and W multiples of the stride; RGB in [0, 1], or
                Lab brought to about [-1, 1] if `ModelConfig.input` says so.

        Returns:
            `[N, channels, H / stride, W / stride]`.
        """

    def accelerate(self, device: torch.device, *, half: bool, winograd: bool) -> None:
        """Move to `device` and be computed there as fast as can be: same results up to rounding.

        Args:
            device: where it goes.
            half: it is going to be called under autocast to bfloat16.
            winograd: use Winograd convolution where that pays; an encoder that has none ignores it.
        """
        # tensor cores want channels last, and so does bfloat16 on the CPU; float32 there is slower
        last = device.type == "cuda" or half
        layout = torch.channels_last if last else torch.contiguous_format
        self.to(device).to(memory_format=layout)


def check_encoder(encoder: Encoder) -> None:
    """InputError for one that does not say its stride and its channels."""
    for name in ("stride", "channels"):
        value = getattr(encoder, name, None)
        if not isinstance(value, int) or value < 1:
            raise InputError(
                f"encoder {type(encoder).__name__}: {name} {value}: expected a whole number from 1 "
                "on"
            )


def check_features(features: object, frames_n3hw: Tensor, encoder: Encoder) -> None:
    """InputError if an encoder's features are not as its stride and channels say."""
    n, _, height, width = frames_n3hw.shape
    expected = [n, encoder.channels, height // encoder.stride, width // encoder.stride]
    found = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
    if found != expected:
        raise InputError(
            f"encoder: frames {list(frames_n3hw.shape)} became {found}: expected "
            f"{expected}: {encoder.channels} channels at stride {encoder.stride}"
        )
