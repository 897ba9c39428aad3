"""The sizes of the measured work, and its clips. Shapes: b clips, t frames, H W pixels."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from corrflow.errors import InputError, check_range
from corrflow.speed.released import STRIDE


@dataclass(frozen=True)
class Sizes:
    """The sizes of the measured work."""

    batch: int = 2
    """Frames or clips per call."""
    height: int = 256
    """Height of frames, in pixels."""
    width: int = 256
    """Width of frames, in pixels."""
    radius: int = 6
    """Radius of the attention window, in cells of 4 pixels."""
    channels: int = 64
    """Channels of the features."""

    def __post_init__(self) -> None:
        check_range("bench", self, "batch height width channels", 1)
        check_range("bench", self, "radius", 0)
        if self.height % STRIDE or self.width % STRIDE:
            raise InputError(
                f"bench: height {self.height}, width {self.width}: expected multiples of {STRIDE}"
            )

    @property
    def area(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.height // STRIDE, self.width // STRIDE


def clips_of(sizes: Sizes) -> Tensor:
    """Make clips, uint8 `[B, 3, 3, H, W]`: smooth random pictures that move a little."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(
        sizes.batch, 3, sizes.height // 16 + 1, sizes.width // 16 + 1, generator=draw
    )
    large = F.interpolate(coarse, (sizes.height + 8, sizes.width + 8), mode="bicubic").clamp(0, 1)
    frames = [
        large[..., 4 * t : 4 * t + sizes.height, 4 * t : 4 * t + sizes.width] for t in range(3)
    ]
    return (torch.stack(frames, dim=1) * 255).byte()
