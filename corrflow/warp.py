"""A frame and a warped view of it: correspondence that is known without labels, for a loss on where each cell was found.

Shapes: b frames, c channels, h w cells of stride 4, H W pixels, s sides of the window, k its cells.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from corrflow.encoder import STRIDE
from corrflow.errors import InputError

# keeps the log of a weight that is 0 finite; so small that one who is sure of the wrong cell still learns: gradients end where p < EPSILON
EPSILON = 1e-20


@dataclass(frozen=True)
class WarpConfig:
    """How views are made, if any are: the loss has weight 0 as released."""

    weight: float = 0.0
    """Of the loss on known correspondence, beside those on colours; 0: no views are made."""
    degrees: float = 20.0
    """A view is turned by up to so much, to either side."""
    zoom: float = 1.4
    """It is scaled by up to this factor, or its inverse, and each side by up to a third of that again."""
    shift: float = 12.0
    """It is moved by up to so many pixels along each side."""
    tint: float = 0.3
    """Its contrast and the gain of each channel change by up to this share, and its brightness by a fifth of it."""

    def __post_init__(self) -> None:
        if min(self.weight, self.degrees, self.shift, self.tint) < 0 or self.tint >= 1 or self.zoom < 1:
            raise InputError(f"warp: {self}: expected weight, degrees, shift >= 0, zoom >= 1, tint from 0 to below 1")


class Views(NamedTuple):
    """Warped views of one frame of each clip."""

    frame: int
    """Which frame of the clip."""
    views_b3hw: Tensor
    """As the encoder is shown them, `[B, 3, H, W]`."""
    places_bhw2: Tensor
    """Where each cell of the view is in the frame, x and y in cells, `[B, h, w, 2]`."""

    def parts(self, count: int) -> list["Views"]:
        """Those of the same clips, divided evenly."""
        divided = zip(self.views_b3hw.chunk(count), self.places_bhw2.chunk(count), strict=True)
        return [Views(self.frame, *part) for part in divided]


def make_views(rgb_b3hw: Tensor, config: WarpConfig, draw: torch.Generator, own: slice, total: int) -> tuple[Tensor, Tensor]:
    """Warped and tinted views of RGB in [0, 1], and the place in the frame of each of their cells: `Views` has the shapes.

    The draws are made for the `total` clips of the global batch; `own` are those that `rgb_b3hw` holds.
    """
    unit = (torch.rand(total, 12, generator=draw) * 2 - 1)[own]
    height, width = rgb_b3hw.shape[-2:]
    theta_b23 = affine(unit[:, :6], config, height, width).to(rgb_b3hw.device)
    where_bhw2 = F.affine_grid(theta_b23, list(rgb_b3hw.shape), align_corners=False)
    views_b3hw = F.grid_sample(rgb_b3hw, where_bhw2, padding_mode="border", align_corners=False)
    cells = [len(rgb_b3hw), 1, height // STRIDE, width // STRIDE]
    places_bhw2 = F.affine_grid(theta_b23, cells, align_corners=False)
    size = places_bhw2.new_tensor([cells[3], cells[2]])
    return tinted(views_b3hw, unit[:, 6:].to(rgb_b3hw.device), config.tint), ((places_bhw2 + 1) * size - 1) / 2


def affine(unit_b6: Tensor, config: WarpConfig, height: int, width: int) -> Tensor:
    """Numbers from -1 to 1 to maps from a view's coordinates to its frame's, as `affine_grid` has them: `[B, 2, 3]`."""
    turn = unit_b6[:, 0] * math.radians(config.degrees)
    zoom = math.log(config.zoom) * unit_b6[:, 1]
    aspect = math.log(config.zoom) / 3 * unit_b6[:, 2]
    along_x, along_y = (zoom + aspect).exp(), (zoom - aspect).exp()
    ratio = height / width  # a turn is one of pixels
    rows = [
        torch.stack([turn.cos() * along_x, -turn.sin() * along_y * ratio, unit_b6[:, 3] * 2 * config.shift / width], dim=1),
        torch.stack([turn.sin() * along_x / ratio, turn.cos() * along_y, unit_b6[:, 4] * 2 * config.shift / height], dim=1),
    ]
    return torch.stack(rows, dim=1)


def tinted(rgb_b3hw: Tensor, unit_b6: Tensor, tint: float) -> Tensor:
    """Other contrast, gains and brightness, as the numbers from -1 to 1 say; clipped to [0, 1]."""
    contrast = (1 + tint * unit_b6[:, 0]).view(-1, 1, 1, 1)
    gain = (1 + tint * unit_b6[:, 1:4])[..., None, None]
    brightness = (tint / 5 * unit_b6[:, 4]).view(-1, 1, 1, 1)
    middle = rgb_b3hw.mean(dim=(1, 2, 3), keepdim=True)
    return (((rgb_b3hw - middle) * contrast + middle) * gain + brightness).clamp(0, 1)


def place_codes(batch: int, height: int, width: int, side: int, device: torch.device) -> Tensor:
    """One-hot codes of cells, no two alike in any window of `side` cells: `[B, side^2, h, w]`. Copied, they tell where from."""
    rows, columns = torch.arange(height, device=device) % side, torch.arange(width, device=device) % side
    code_hw = rows[:, None] * side + columns
    return F.one_hot(code_hw, side * side).movedim(-1, 0).float().expand(batch, -1, -1, -1)


def place_loss(copied_bkhw: Tensor, places_bhw2: Tensor, radius: int) -> Tensor:
    """Cross entropy of where cells were copied from, with where they come from; 0 for those that the window can't find. Mean over cells.

    Args:
        copied_bkhw: `place_codes` of the frame, copied to the view.
        places_bhw2: where each of its cells is in the frame; between cells, the four around it share it.
        radius: of the window, in cells.
    """
    height, width = copied_bkhw.shape[-2:]
    side, first_bhw2, last_bhw2 = 2 * radius + 1, places_bhw2.floor(), places_bhw2.ceil()
    rows, columns = torch.meshgrid(*(torch.arange(n, device=copied_bkhw.device) for n in (height, width)), indexing="ij")
    own_hw2 = torch.stack([columns, rows], dim=-1)
    ends_2 = own_hw2.new_tensor([width - 1, height - 1])
    inside = (first_bhw2 >= 0) & (last_bhw2 <= ends_2) & (first_bhw2 >= own_hw2 - radius) & (last_bhw2 <= own_hw2 + radius)
    found_bhw = inside.all(dim=-1).float()
    beyond_bhw2 = places_bhw2 - first_bhw2  # a cell's share of what lies between it and the one before
    (x0, y0), (x1, y1) = first_bhw2.long().unbind(dim=-1), last_bhw2.long().unbind(dim=-1)
    x_share, y_share = beyond_bhw2.unbind(dim=-1)
    loss_bhw = torch.zeros_like(found_bhw)
    for y, of_rows in ((y0, 1 - y_share), (y1, y_share)):
        for x, of_columns in ((x0, 1 - x_share), (x1, x_share)):
            mass_bhw = copied_bkhw.gather(1, (y % side * side + x % side)[:, None])[:, 0]
            loss_bhw = loss_bhw - of_rows * of_columns * (mass_bhw + EPSILON).log()
    return (loss_bhw * found_bhw).mean()  # over all cells: the mean over clips is then that of their parts, however they are divided
