"""The interface of encoders.

Shapes: n frames, c channels, h w cells, H W pixels.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from corrflow.errors import InputError


class EncoderConfig(ABC):
    """Everything that a checkpoint must hold so that an encoder can be built again, besides its
    weights."""

    @abstractmethod
    def build(self, *, pretrained: bool = False) -> "Encoder":
        """Make the encoder.

        Args:
            pretrained: load the published weights instead of random ones.

        Raises:
            InputError: there is no such encoder, or it has no published weights.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Convert to plain types for a checkpoint; `registry.read_config` reads them back."""


class Encoder(nn.Module, ABC):
    """Computes features of frames at a stride. An encoder of your own sets `stride` and `channels`,
    and implements `forward`."""

    stride: int
    """Pixels between neighbouring cells of the features."""
    channels: int
    """Number of feature channels."""
    config: EncoderConfig | None = None
    """The configuration that it was built from; None for one that was made by hand, which can't be
    saved."""

    @abstractmethod
    def forward(self, frames_n3hw: Tensor) -> Tensor:
        """Compute the features.

        Args:
            frames_n3hw: floating `[N, 3, H, W]`, H and W multiples of the stride; RGB in [0, 1], or
                Lab scaled to about [-1, 1], depending on `ModelConfig.input`.

        Returns:
            `[N, channels, H / stride, W / stride]`.
        """

    def accelerate(self, device: torch.device, *, half: bool, winograd: bool) -> None:
        """Move the encoder to `device`, and make it as fast as possible there; results change by
        rounding only.

        Args:
            device: the device to move to.
            half: the encoder will be called under autocast to bfloat16.
            winograd: use Winograd convolution where it is faster; an encoder without it ignores
                this.
        """
        # channels last is faster for tensor cores and for bfloat16 on the CPU, but slower for
        # float32 there
        last = device.type == "cuda" or half
        layout = torch.channels_last if last else torch.contiguous_format
        self.to(device).to(memory_format=layout)


def check_encoder(encoder: object) -> None:
    """Raise InputError for what is not an encoder, or does not set its stride and channels."""
    if not isinstance(encoder, Encoder):
        expected = "expected a corrflow.Encoder, or a model from corrflow.load_model"
        raise InputError(f"encoder {encoder!r}: {expected}")
    for name in ("stride", "channels"):
        value = getattr(encoder, name, None)
        if not isinstance(value, int) or value < 1:
            raise InputError(
                f"encoder {type(encoder).__name__}: {name} {value}: expected a positive integer"
            )


def check_features(features: object, frames_n3hw: Tensor, encoder: Encoder) -> None:
    """Raise InputError if an encoder's features do not match its stride and channels."""
    n, _, height, width = frames_n3hw.shape
    expected = [n, encoder.channels, height // encoder.stride, width // encoder.stride]
    found = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
    if found != expected:
        raise InputError(
            f"encoder: frames {list(frames_n3hw.shape)} became {found}: expected "
            f"{expected}: {encoder.channels} channels at stride {encoder.stride}"
        )
