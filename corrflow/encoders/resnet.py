"""The paper's encoder, a ResNet of stride 4, and larger, smaller and coarser variants of it.

Shapes: n frames, c channels, h w rows and columns of cells.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from corrflow.encoders.encoder import Encoder, EncoderConfig
from corrflow.encoders.winograd import convolve
from corrflow.errors import InputError, check_range

# from this number of channels on, Winograd convolution is faster, 1.7 to 2.3 times; with 64
# channels its speed is 0.8 to 1.1 times that of direct convolution (docs/performance.md)
WINOGRAD_CHANNELS = 128


@dataclass(frozen=True)
class ResNetConfig(EncoderConfig):
    """The ResNet variant of the paper (section 4.1): four stages, no max-pool, total stride 4."""

    widths: tuple[int, int, int, int] = (64, 128, 256, 256)
    """Channels of the four stages; the stem has as many as the first stage."""
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    """Basic blocks in each stage."""
    features: int = 64
    """Channels of the features."""
    strides: tuple[int, int, int, int] = (1, 2, 1, 1)
    """Strides of the four stages; the stem has stride 2."""

    def __post_init__(self) -> None:
        check_range("encoder", self, "widths depths strides features", 1)
        if {len(numbers) for numbers in (self.widths, self.depths, self.strides)} != {4}:
            raise InputError(f"encoder {self}: expected four widths, depths and strides")

    @property
    def stride(self) -> int:
        """The total stride, in pixels."""
        return 2 * math.prod(self.strides)

    def build(self, *, pretrained: bool = False) -> "ResNet":
        """Make the encoder with random weights from torch's global generator; InputError if
        pretrained weights are asked for."""
        if pretrained:
            raise InputError(
                "encoder: the ResNet of stride 4 has no published weights of its own: expected a "
                "checkpoint, or torchvision:NAME or timm:NAME"
            )
        return ResNet(self)

    def to_dict(self) -> dict[str, Any]:
        """The fields of the configuration, in a dict."""
        return asdict(self)


VARIANTS = {
    "resnet18": ResNetConfig(),  # the paper's
    # the depths of a ResNet-34: 11,859,840 parameters, 51.4 GMAC for a frame of 256x256
    "resnet34": ResNetConfig(depths=(3, 4, 6, 3)),
    # the encoder of the model `fast`: 3.8 GMAC for a frame of 256x256
    "resnet18-stride8": ResNetConfig(widths=(32, 64, 192, 192), strides=(1, 2, 2, 1)),
    "resnet18-half": ResNetConfig(widths=(32, 64, 128, 128)),  # a quarter of the arithmetic
    "resnet10-tiny": ResNetConfig((8, 16, 32, 32), (1, 1, 1, 1), 16),  # for quick tests
}


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with padding 1 and without bias, computed directly or by Winograd
    convolution."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__(c_in, c_out, 3, stride, 1, bias=False)
        self.winograd = False
        self.worthwhile = stride == 1 and min(c_in, c_out) >= WINOGRAD_CHANNELS

    def forward(self, x_bchw: Tensor) -> Tensor:
        """`[B, c_in, H, W]` to `[B, c_out, H / stride, W / stride]`."""
        return convolve(x_bchw, self.weight) if self.winograd else super().forward(x_bchw)


class Block(nn.Module):
    """A basic residual block: two 3x3 convolutions and a shortcut, with ReLU after the sum."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            Conv3x3(c_in, c_out, stride),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
            Conv3x3(c_out, c_out),
            nn.BatchNorm2d(c_out),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """`[B, c_in, H, W]` to `[B, c_out, H / stride, W / stride]`."""
        # in place: backward of the normalisation does not need its output, and on the CPU a new
        # tensor per block would cost page faults
        out_bchw: Tensor = self.activation(self.residual(x_bchw).add_(self.shortcut(x_bchw)))
        return out_bchw


def stage(c_in: int, c_out: int, depth: int, stride: int) -> nn.Sequential:
    """A stage of `depth` blocks; the first changes channels and size."""
    return nn.Sequential(
        *(Block(c_in if i == 0 else c_out, c_out, stride if i == 0 else 1) for i in range(depth))
    )


class ResNet(Encoder):
    """The ResNet encoder: frames `[N, 3, H, W]` to features `[N, C, H/stride, W/stride]`. The input
    is not normalised by mean and standard deviation (paper, section 4.1).

    The default has stride 4, 5,291,648 parameters and costs 23.6 GMAC for a frame of 256x256.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = config.features
        self.stride = config.stride
        w1, w2, w3, w4 = config.widths
        d1, d2, d3, d4 = config.depths
        s1, s2, s3, s4 = config.strides
        self.stem = nn.Sequential(
            nn.Conv2d(3, w1, 7, 2, 3, bias=False), nn.BatchNorm2d(w1), nn.ReLU(inplace=True)
        )
        self.layer1 = stage(w1, w1, d1, s1)
        self.layer2 = stage(w1, w2, d2, s2)
        self.layer3 = stage(w2, w3, d3, s3)
        self.layer4 = stage(w3, w4, d4, s4)
        self.head = nn.Conv2d(w4, config.features, 3, 1, 1)
        for module in self.modules():
            # the head keeps its smaller default initialisation; otherwise the first affinities
            # would be nearly one-hot
            if isinstance(module, nn.Conv2d) and module is not self.head:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def accelerate(self, device: torch.device, *, half: bool, winograd: bool) -> None:
        """As in `Encoder.accelerate`; with `winograd`, convolutions with many channels use Winograd
        convolution."""
        super().accelerate(device, half=half, winograd=winograd)
        if self.use_winograd(winograd):
            self.to(memory_format=torch.channels_last)  # its preferred layout

    def use_winograd(self, yes: bool) -> bool:
        """Switch Winograd convolution on or off for 3x3 convolutions with many channels, at any
        time; returns whether any layer uses it now."""
        convolutions = [module for module in self.modules() if isinstance(module, Conv3x3)]
        for convolution in convolutions:
            convolution.winograd = yes and convolution.worthwhile
        return any(convolution.winograd for convolution in convolutions)

    def forward(self, frames_n3hw: Tensor) -> Tensor:
        """`[N, 3, H, W]` to `[N, C, H/stride, W/stride]`."""
        x_nchw = self.stem(frames_n3hw)
        x_nchw = self.layer2(self.layer1(x_nchw))
        x_nchw = self.layer4(self.layer3(x_nchw))
        features_nchw: Tensor = self.head(x_nchw)
        return features_nchw
