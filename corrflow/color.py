"""Converts colours: RGB to Lab and back, and to the classes that a model predicts (paper, section
3.1).

All functions are batched and run on the device of their inputs. Random changes of the frames are in
`augmentation.py`.

Shapes: n frames, t frames of a clip, k colour classes, h w pixels or cells.
"""

import itertools
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from corrflow.palette import PUBLISHED, Palette

# sRGB primaries to XYZ under D65, rows divided by the white point (0.950456, 1, 1.088754)
RGB_TO_XYZ = (
    (0.412453 / 0.950456, 0.357580 / 0.950456, 0.180423 / 0.950456),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.088754, 0.119193 / 1.088754, 0.950227 / 1.088754),
)
TABLE_SIDE = 33  # entries per axis of the table that OpenCV's float conversion to Lab interpolates
TABLE_STEPS = (TABLE_SIDE**2, TABLE_SIDE, 1)
TABLE_ONE = 1 << 14  # 1.0 in the table's fixed point: 32 intervals of 16 steps of 32
LAB_KNEE = 0.008856  # below this Lab's cube root is replaced by a line

COLORS = 1 << 24  # number of colours of 8 bits each in red, green and blue
RED_SHADES = 16  # shades of red in one step of computing a table of all colours: 1 million colours

InputSpace = Literal["rgb", "lab"]
# what Lab is shifted and divided by for the encoder
LAB_OFFSET, LAB_SCALE = (
    (50.0, 0.0, 0.0),
    (50.0, 128.0, 128.0),
)


@lru_cache
def constant(
    rows: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """A constant table as a tensor, cached on its device: a copy in each step would wait for the
    device."""
    return torch.tensor(rows, dtype=dtype, device=device)


def rgb_to_lab(rgb_n3hw: Tensor) -> Tensor:
    """Convert sRGB in [0, 1] to CIE Lab (D65), `[N, 3, H, W]`: L in [0, 100], a and b in about
    [-127, 127]."""
    linear = torch.where(rgb_n3hw > 0.04045, ((rgb_n3hw + 0.055) / 1.055) ** 2.4, rgb_n3hw / 12.92)
    xyz = torch.einsum(
        "xc,nchw->nxhw", constant(RGB_TO_XYZ, rgb_n3hw.dtype, rgb_n3hw.device), linear
    )
    f = torch.where(xyz > LAB_KNEE, xyz.clamp_min(LAB_KNEE) ** (1 / 3), 7.787 * xyz + 16 / 116)
    lightness = torch.where(xyz[:, 1] > LAB_KNEE, 116 * f[:, 1] - 16, 903.3 * xyz[:, 1])
    return torch.stack([lightness, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], dim=1)


def lab_to_rgb(lab_n3hw: Tensor) -> Tensor:
    """The inverse of `rgb_to_lab`, clipped to [0, 1]; for display."""
    fy = (lab_n3hw[:, 0] + 16) / 116
    f = torch.stack([fy + lab_n3hw[:, 1] / 500, fy, fy - lab_n3hw[:, 2] / 200], dim=1)
    xyz = torch.where(f**3 > LAB_KNEE, f**3, (f - 16 / 116) / 7.787)
    linear = torch.einsum(
        "cx,nxhw->nchw", torch.linalg.inv(lab_n3hw.new_tensor(RGB_TO_XYZ)), xyz
    ).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def to_input_space(rgb_n3hw: Tensor, space: InputSpace) -> Tensor:
    """Convert RGB in [0, 1] to an encoder's colour space, `[N, 3, H, W]`: RGB itself, or Lab scaled
    to about [-1, 1], with a and b 0 for grey."""
    if space == "rgb":
        return rgb_n3hw
    middle, reach = (
        x[:, None, None] for x in constant((LAB_OFFSET, LAB_SCALE), rgb_n3hw.dtype, rgb_n3hw.device)
    )
    shown_n3hw: Tensor = (rgb_to_lab(rgb_n3hw) - middle) / reach
    return shown_n3hw


def from_input_space(input_n3hw: Tensor, space: InputSpace) -> Tensor:
    """The inverse of `to_input_space`, clipped to [0, 1] for Lab; for display."""
    if space == "rgb":
        return input_n3hw
    middle, reach = (
        x[:, None, None]
        for x in constant((LAB_OFFSET, LAB_SCALE), input_n3hw.dtype, input_n3hw.device)
    )
    return lab_to_rgb(input_n3hw * reach + middle)


def quantize_colors(
    rgb_n3hw: Tensor, palette: Palette = PUBLISHED, lightness: float = 1.0
) -> Tensor:
    """Find the nearest class of each pixel, in the palette's space, ab or Lab: int64 `[N, H, W]`
    from RGB in [0, 1]. `lightness` is the weight of L."""
    color_nhwx = table_ab(rgb_n3hw) if len(palette[0]) == 2 else rgb_to_lab(rgb_n3hw).movedim(1, -1)
    centers_kx = constant(palette, torch.float32, rgb_n3hw.device)
    if len(palette[0]) == 3 and lightness != 1:
        weights_x = constant(((lightness, 1.0, 1.0),), torch.float32, rgb_n3hw.device)[0]
        color_nhwx, centers_kx = color_nhwx * weights_x, centers_kx * weights_x
    # |x - c|^2 without |x|^2, which is the same for all k
    score_pk = torch.addmm(
        centers_kx.square().sum(dim=1), color_nhwx.flatten(0, 2), centers_kx.T, alpha=-2
    )
    return score_pk.argmin(dim=1).view(color_nhwx.shape[:3])


class ColorClassifier:
    """Finds the class of each pixel of uint8 frames with one lookup, exactly as `quantize_colors`.

    The class is a function of 24 bits. A table of all colours takes 16 MB, and as long to compute
    as the same number of pixels. On the CPU it is made only after that many pixels have been
    computed directly, so that a short use does not wait for it.
    """

    def __init__(self, palette: Palette, lightness: float) -> None:
        self.palette, self.lightness = palette, lightness
        self.table: Tensor | None = None
        """uint8 `[2^24]`, indexed by red, green and blue."""
        self.pixels = 0
        """Number of pixels computed directly so far."""

    def __call__(self, frames_n3hw: Tensor) -> Tensor:
        """The classes of uint8 RGB, int64 `[N, H, W]`."""
        if self.table is None or self.table.device != frames_n3hw.device:
            self.pixels += frames_n3hw.numel() // 3
            if frames_n3hw.device.type == "cpu" and self.pixels < COLORS:
                return quantize_colors(frames_n3hw.float() / 255, self.palette, self.lightness)
            self.table = self.make_table(frames_n3hw.device)
        red, green, blue = frames_n3hw.int().unbind(dim=1)
        return self.table[(red << 16) | (green << 8) | blue].long()

    def make_table(self, device: torch.device) -> Tensor:
        """Compute the classes of all colours, a few shades of red at a time."""
        shades = torch.arange(256, device=device, dtype=torch.float32) / 255
        parts = []
        for reds in torch.split(shades, RED_SHADES):
            colors_p3 = torch.cartesian_prod(reds, shades, shades)
            classes_1p1 = quantize_colors(
                colors_p3.T[None, ..., None], self.palette, self.lightness
            )
            parts.append(classes_1p1.flatten().byte())
        return torch.cat(parts)


def table_ab(rgb_n3hw: Tensor) -> Tensor:
    """Compute Lab's a and b as the method's authors did: float32 `[N, H, W, 2]` from RGB in [0, 1].

    They used OpenCV's float conversion, which interpolates a table of 33 x 33 x 33 colours in
    integers. It is up to 0.35 off the formula of `rgb_to_lab`, which is enough to change the class
    of 4 pixels in 1,000. The result here equals OpenCV's to the last bit, apart from rounding in
    the table itself.
    """
    fixed = (rgb_n3hw * TABLE_ONE).round().int()
    corner, sixteenths = fixed >> 9, (fixed >> 5) & 15
    weights = [(16 - sixteenths[:, c], sixteenths[:, c]) for c in range(3)]
    places = [
        (corner[:, c] * step, (corner[:, c] + 1).clamp_max(TABLE_SIDE - 1) * step)
        for c, step in enumerate(TABLE_STEPS)
    ]
    table = ab_table(rgb_n3hw.device)
    # both a and b are divided by 16^3 below; adding half of that rounds them
    total = torch.full_like(fixed[:, 0], 2048 + (2048 << 32), dtype=torch.int64)
    for r, g, b in itertools.product((0, 1), repeat=3):
        total.addcmul_(
            table[places[0][r] + places[1][g] + places[2][b]],
            weights[0][r] * weights[1][g] * weights[2][b],
        )
    return torch.stack([total >> 44, (total >> 12) & 0xFFFFF], dim=-1).float() / 64 - 128


@lru_cache
def ab_table(device: torch.device) -> Tensor:
    """The table `[33^3]` of a and b, in 64ths above -128. Both are packed into one int64 (a from
    bit 32 on), so that one lookup finds them."""
    axis = torch.linspace(0, 1, TABLE_SIDE, dtype=torch.float64)
    lab_1p = rgb_to_lab(torch.cartesian_prod(axis, axis, axis).T[None, :, :, None])[0, :, :, 0]
    a, b = ((lab_1p[1:] + 128) * 64).round().long()
    packed: Tensor = a << 32 | b
    return packed.to(device)


def class_colors(
    probabilities_nkhw: Tensor, lightness_nhw: Tensor, palette: Palette = PUBLISHED
) -> Tensor:
    """The mean colour under class probabilities, as RGB in [0, 1], `[N, 3, H, W]`; for display.
    `lightness_nhw` is the L to use with a palette of ab."""
    color_nxhw = torch.einsum(
        "nkhw,kx->nxhw", probabilities_nkhw, probabilities_nkhw.new_tensor(palette)
    )
    return lab_to_rgb(
        torch.cat([lightness_nhw[:, None], color_nxhw], dim=1)
        if color_nxhw.shape[1] == 2
        else color_nxhw
    )


def labels_to_soft_grid(labels_nhw: Tensor, classes: int, stride: int) -> Tensor:
    """Convert integer labels to the share of each label in each cell, `[N, classes, H/stride,
    W/stride]`, with a sum of 1.

    An average of class *indices* would be a class that may not be in the cell at all.
    """
    n, height, width = labels_nhw.shape
    h, w = height // stride, width // stride
    cells_nhsws = labels_nhw[:, : h * stride, : w * stride].reshape(n, h, stride, w, stride)
    cells_ps = cells_nhsws.transpose(2, 3).reshape(n * h * w, stride**2).long()
    # counting needs no map of pixels for each class, and sums of integers do not depend on order
    counts_pk = torch.zeros(len(cells_ps), classes, device=labels_nhw.device)
    counts_pk.scatter_add_(1, cells_ps, torch.ones_like(cells_ps, dtype=counts_pk.dtype))
    shares_pk = counts_pk / stride**2
    return shares_pk.view(n, h, w, classes).permute(0, 3, 1, 2).contiguous()
