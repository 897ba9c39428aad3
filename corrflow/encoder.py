"""A frame to features at stride 4. What is done with the features is in `model.py`.

Shapes: b batch, c channels, h w rows and columns of cells.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from corrflow.errors import InputError
from corrflow.winograd import convolve

STRIDE = 4
# channels from which Winograd convolution is faster: 1.7 to 2.3 times; of 64 channels 0.8 to 1.1
# times (docs/performance.md)
WORTHWHILE = 128


@dataclass(frozen=True)
class EncoderConfig:
    """The ResNet variant of the paper (section 4.1): four stages, no max-pool, stride 4 in all."""

    widths: tuple[int, int, int, int] = (64, 128, 256, 256)
    """Channels of the four stages; the stem has as many as the first. The second stage halves the
    size."""
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    """Basic blocks in each stage."""
    features: int = 64
    """Channels of the features that are compared."""

    def __post_init__(self) -> None:
        numbers = (*self.widths, *self.depths, self.features)
        if len(self.widths) != 4 or len(self.depths) != 4 or min(numbers) < 1:
            raise InputError(
                f"encoder {self}: expected four widths, four depths and features, all at least 1"
            )


LARGE = EncoderConfig(depths=(3, 4, 6, 3))
"""The blocks of a ResNet-34: 11,859,840 parameters, 51.4 GMAC for a frame of 256x256."""


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with padding 1 and without bias, computed directly or by Winograd
    convolution."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__(c_in, c_out, 3, stride, 1, bias=False)
        self.winograd = False
        self.worthwhile = stride == 1 and min(c_in, c_out) >= WORTHWHILE

    def forward(self, x_bchw: Tensor) -> Tensor:
        """`[B, c_in, H, W]` to `[B, c_out, H / stride, W / stride]`."""
        return convolve(x_bchw, self.weight) if self.winograd else super().forward(x_bchw)


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; ReLU after the sum."""

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
        # in place: normalisation does not need its output again, and a new tensor a block costs its
        # pages on the CPU
        out_bchw: Tensor = self.activation(self.residual(x_bchw).add_(self.shortcut(x_bchw)))
        return out_bchw


def stage(c_in: int, c_out: int, depth: int, stride: int) -> nn.Sequential:
    """`depth` blocks, of which the first changes width and size."""
    return nn.Sequential(
        *(Block(c_in if i == 0 else c_out, c_out, stride if i == 0 else 1) for i in range(depth))
    )


class Encoder(nn.Module):
    """RGB in [0, 1], `[B, 3, H, W]`, to features `[B, C, H/4, W/4]`. No mean or deviation is
    subtracted (paper, section 4.1).

    The default has 5,291,648 parameters and costs 23.6 GMAC for a frame of 256x256.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        w1, w2, w3, w4 = config.widths
        d1, d2, d3, d4 = config.depths
        self.stem = nn.Sequential(
            nn.Conv2d(3, w1, 7, 2, 3, bias=False), nn.BatchNorm2d(w1), nn.ReLU(inplace=True)
        )
        self.layer1 = stage(w1, w1, d1, stride=1)
        self.layer2 = stage(w1, w2, d2, stride=2)
        self.layer3 = stage(w2, w3, d3, stride=1)
        self.layer4 = stage(w3, w4, d4, stride=1)
        self.head = nn.Conv2d(w4, config.features, 3, 1, 1)
        for module in self.modules():
            # the head starts small, else the first affinities are hard
            if isinstance(module, nn.Conv2d) and module is not self.head:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def use_winograd(self, yes: bool) -> bool:
        """Whether convolutions for which that pays go Winograd convolution; may be changed at any
        time. Returns whether any does now."""
        convolutions = [module for module in self.modules() if isinstance(module, Conv3x3)]
        for convolution in convolutions:
            convolution.winograd = yes and convolution.worthwhile
        return any(convolution.winograd for convolution in convolutions)

    def forward(self, frames_b3hw: Tensor) -> Tensor:
        """`[B, 3, H, W]` to `[B, C, H/4, W/4]`."""
        x_bchw = self.stem(frames_b3hw)
        features_bchw: Tensor = self.head(
            self.layer4(self.layer3(self.layer2(self.layer1(x_bchw))))
        )
        return features_bchw
