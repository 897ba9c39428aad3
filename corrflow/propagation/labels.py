"""Converts labels to soft maps over cells and back: masks as shares of each cell, points as
Gaussians.

Shapes: k labels or points, h w cells, H W pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from corrflow.color import labels_to_soft_grid
from corrflow.errors import InputError
from corrflow.frames import to_float
from corrflow.propagation.features import pad_to_stride
from corrflow.propagation.guided_filter import move_edges
from corrflow.propagation.protocols import Protocol

SIGMA = 1.0  # of a point's Gaussian, in cells
PEAK_RADIUS = 2  # cells to each side of a map's peak; the point is at their centre of mass
# share of a point's mass that must be near the peak for the point to count as visible. Of 0.1, 0.2,
# ..., 0.7 this separated visible from hidden points best (balanced accuracy 0.79; 0.3: 0.78, 0.5:
# 0.76), with the memory protocol and the pretrained model on four generated videos
VISIBLE_MASS = 0.4

Output = TypeVar("Output")


class Copied(NamedTuple):
    """What a frame copies from the references."""

    shares_khw: Tensor
    """Share of each label in each cell."""
    agreement_k: Tensor | None = None
    """Agreement of each label with the given frames, from 0 to 1 (`References.agreement`); None if
    it was not computed."""


class Labels(ABC, Generic[Output]):
    """The labels of one video: those that were given, and the current state of tracking."""

    given: set[int]
    """Numbers of the frames in which labels are given."""
    channels: int
    exclusive: bool
    """Whether labels compete for each cell: their shares add up to 1."""

    @abstractmethod
    def given_labels(self, number: int) -> Tensor:
        """Which channels are given in frame `number`; bool `[K]`."""

    @abstractmethod
    def decode(self, number: int, copied: Copied | None, frame_3hw: Tensor) -> Output:
        """Decide the labels of a frame; to be called once for each frame, in order.

        Args:
            number: the frame number.
            copied: what was copied from the references; None if there are none, and the last
                decision stays.
            frame_3hw: the frame, uint8 or floating in [0, 1].

        Returns:
            The result for the frame.
        """

    @abstractmethod
    def encode(self, number: int, copied_khw: Tensor | None) -> Tensor:
        """Soft labels `[K, h, w]` to remember for the frame that was decoded last: the decision
        or, if `copied_khw` is given, its shares. Labels that were given in the frame are as
        given."""


class TrackedMasks(NamedTuple):
    """Objects in one frame."""

    labels: Tensor
    """uint8 `[H, W]`: the number of the object in each pixel, 0 for background."""
    confidence: Tensor
    """float32 `[256]`, indexed by object number, from 0 to 1: how clear the copied shares are,
    times how far they agree with the given frames; 1 where the object was given, 0 where it is
    absent."""


class MaskLabels(Labels[TrackedMasks]):
    """Objects as masks. Channel 0 is the background. An object that no reference supports any more
    is empty."""

    exclusive = True

    def __init__(
        self,
        labels: Mapping[int, Tensor],
        stride: int,
        device: torch.device,
        protocol: Protocol,
        gone: Mapping[int, Collection[int]] = MappingProxyType({}),
    ) -> None:
        """Take the given masks.

        Args:
            labels: masks `[H, W]` of integers from 0 to 255, by frame number.
            stride: side of a cell, in pixels.
            device: where to compute.
            protocol: how shares are upsampled (`hardening`), and whether edges are moved
                (`guided_filter`).
            gone: numbers of objects that are known to be absent, by frame number.

        Raises:
            InputError: masks of other values or of different sizes, or no mask at all.
        """
        labels = {
            number: whole_numbers(number, torch.as_tensor(labels_hw))
            for number, labels_hw in labels.items()
        }
        shapes = {labels_hw.shape for labels_hw in labels.values()}
        if len(shapes) != 1:
            raise InputError(
                f"labels of {sorted(map(list, shapes))}: expected at least one mask, and all of "
                "one size"
            )
        self.size = tuple(shapes.pop())
        self.stride = stride
        self.given = labels.keys() | gone.keys()
        self.protocol = protocol.for_frames(self.size)
        numbers = torch.cat([torch.unique(labels_hw) for labels_hw in labels.values()])
        # object numbers may have gaps; channels are consecutive
        self.numbers = torch.unique(torch.cat([numbers.new_zeros(1), numbers]))
        self.channels = len(self.numbers)
        self.dense = {
            number: torch.searchsorted(self.numbers, hw.contiguous()).to(device)
            for number, hw in labels.items()
        }
        self.now_hw = torch.zeros(self.size, dtype=torch.int64, device=device)
        self.marked = {
            number: self.channels_of(number, gone.get(number, ())) for number in self.given
        }
        self.confidence_k = torch.zeros(self.channels, device=device)

    def given_labels(self, number: int) -> Tensor:
        """The objects in the given mask and those given as gone, never the background."""
        nothing_k = torch.zeros(self.channels, dtype=torch.bool, device=self.now_hw.device)
        return self.marked.get(number, nothing_k)

    def channels_of(self, number: int, gone: Collection[int]) -> Tensor:
        """Which channels are given in a frame, in its mask or as gone; bool `[K]`."""
        numbers = self.numbers.to(self.now_hw.device)
        marked_k = torch.isin(numbers, torch.tensor(sorted(gone), device=numbers.device).long())
        if number in self.dense:
            marked_k[torch.unique(self.dense[number])] = True
        marked_k[0] = False
        return marked_k

    def decode(self, number: int, copied: Copied | None, frame_3hw: Tensor) -> TrackedMasks:
        """The masks, on the CPU. Objects in a given mask get exactly its pixels; other objects keep
        what was tracked."""
        if copied is not None:
            self.now_hw = self.argmax(copied.shares_khw, frame_3hw)
            self.confidence_k = label_confidence(copied.shares_khw)
            if copied.agreement_k is not None:
                self.confidence_k = self.confidence_k * copied.agreement_k
        if number in self.given:
            given_hw, marked_k = self.given_mask(number), self.given_labels(number)
            others_hw = self.now_hw.masked_fill(marked_k[self.now_hw], 0)
            self.now_hw = torch.where(given_hw > 0, given_hw, others_hw)
            is_there_k = torch.isin(torch.arange(self.channels, device=given_hw.device), given_hw)
            self.confidence_k = torch.where(marked_k, is_there_k.float(), self.confidence_k)
        labels_hw: Tensor = self.numbers[self.now_hw.cpu()].to(torch.uint8)
        confidence = torch.zeros(256)
        confidence[self.numbers] = self.confidence_k.float().cpu()
        return TrackedMasks(labels_hw, confidence)

    def encode(self, number: int, copied_khw: Tensor | None) -> Tensor:
        """Shares of the labels in each cell, `[K, h, w]`."""
        if copied_khw is None:
            return self.soft_grid(self.now_hw)
        if number not in self.given:
            return copied_khw
        marked_k11 = self.given_labels(number)[:, None, None]
        return merge_given_labels(
            copied_khw, self.soft_grid(self.given_mask(number)) * marked_k11, marked_k11
        )

    def given_mask(self, number: int) -> Tensor:
        """The mask that is given in a frame, as channels `[H, W]`; zeros if there is none."""
        return self.dense.get(number, torch.zeros_like(self.now_hw))

    def argmax(self, copied_khw: Tensor, frame_3hw: Tensor) -> Tensor:
        """Upsample, move edges to those of the frame, and take the label with the largest share of
        each pixel; int64 `[H, W]`."""
        height, width = self.size
        large_khw = upsample(copied_khw, self.stride, cubic=self.protocol.hardening == 1)
        shares_khw = large_khw[:, :height, :width]
        if self.protocol.guided_filter:
            colors_3hw = to_float(frame_3hw.to(shares_khw.device)).to(shares_khw.dtype)
            shares_khw = move_edges(shares_khw, colors_3hw, self.protocol.guided_filter)
        return shares_khw.max(dim=0).indices  # argmax takes 30 times as long on the CPU

    def soft_grid(self, labels_hw: Tensor) -> Tensor:
        """Convert channels `[H, W]` to the shares of the labels in each cell, `[K, h, w]`."""
        return labels_to_soft_grid(
            pad_to_stride(labels_hw[None, None].float(), self.stride)[0], self.channels, self.stride
        )[0]


def label_confidence(shares_khw: Tensor) -> Tensor:
    """The mean share of each label over cells, weighted by the share itself; `[K]` from 0 to 1.

    It is near 1 if the places that a label is copied from agree, so that its shares are 0 or 1, and
    near 0 if they disagree.
    """
    return shares_khw.square().sum(dim=(1, 2)) / shares_khw.sum(dim=(1, 2)).clamp_min(1e-6)


def upsample(shares_khw: Tensor, stride: int, *, cubic: bool) -> Tensor:
    """Upsample shares of cells to pixels, `[K, h * stride, w * stride]`; the sum over labels stays.

    Bilinear interpolation blurs. With hard decisions the blur accumulates from frame to frame: thin
    parts vanish although nothing moves (a bar as wide as a cell that straddles two cells, within
    one frame), and corners get rounder. Bicubic interpolation blurs less. With soft shares the blur
    does not accumulate, and bilinear interpolation leaves fewer specks (docs/evaluation.md).
    """
    mode = "bicubic" if cubic else "bilinear"
    return F.interpolate(shares_khw[None], scale_factor=stride, mode=mode, align_corners=False)[0]


def merge_given_labels(old_bkhw: Tensor, new_bkhw: Tensor, changed_bk11: Tensor) -> Tensor:
    """Replace the changed labels by those of `new`, as shares of each cell `[..., K, h, w]`.

    `new` holds the changed labels only. The others keep their shares of `old`, scaled to the room
    that is left. Where they had none, the room becomes background.
    """
    rest_bkhw = old_bkhw.masked_fill(changed_bk11, 0).clamp_min(0)
    room_b1hw = (1 - new_bkhw.sum(dim=-3, keepdim=True)).clamp_min(0)
    rest_bkhw = rest_bkhw * (room_b1hw / rest_bkhw.sum(dim=-3, keepdim=True).clamp_min(1e-3))
    rest_bkhw[..., :1, :, :] += room_b1hw - rest_bkhw.sum(dim=-3, keepdim=True)
    merged_bkhw: Tensor = rest_bkhw + new_bkhw
    return merged_bkhw


class TrackedPoints(NamedTuple):
    """Points in one frame."""

    xy: Tensor
    """float32 `[K, 2]`: x and y in pixels, where (0, 0) is the centre of the top left pixel; NaN
    before a point's first frame."""
    visible: Tensor
    """bool `[K]`."""
    confidence: Tensor
    """float32 `[K]`, from 0 to 1: the share of a point's mass that was copied near the map's peak;
    1 where the point was given."""


class PointLabels(Labels[TrackedPoints]):
    """Points as Gaussians. A point that is hidden stays where it was last seen."""

    exclusive = False

    def __init__(
        self, points: Mapping[int, Tensor], size: tuple[int, int], stride: int, device: torch.device
    ) -> None:
        """Take the given points.

        Args:
            points: `[K, 2]` by frame number, NaN for a point that is not given in the frame.
            size: of the frames, `(H, W)`.
            stride: side of a cell, in pixels.
            device: where to compute.

        Raises:
            InputError: points of another shape or outside of the frame, or different numbers of
                points.
        """
        points = {number: torch.as_tensor(points_k2) for number, points_k2 in points.items()}
        for number, points_k2 in points.items():
            check_points(number, points_k2, size)
        counts = {len(points_k2) for points_k2 in points.values()}
        if len(counts) != 1 or not min(counts):
            raise InputError(
                f"points: {sorted(counts)} of them in the given frames: expected the same number "
                "in each, at least 1"
            )
        self.stride, self.device, self.given = stride, device, set(points)
        self.points = {number: points_k2.float().to(device) for number, points_k2 in points.items()}
        self.channels = counts.pop()
        self.cells = tuple(-(-side // stride) for side in size)
        self.limits = torch.tensor([size[1] - 1.0, size[0] - 1.0], device=device)
        rows, columns = (
            torch.arange(side, device=device, dtype=torch.float32) for side in self.cells
        )
        self.rows_hw, self.columns_hw = torch.meshgrid(rows, columns, indexing="ij")
        self.now = TrackedPoints(
            torch.full((self.channels, 2), torch.nan, device=device),
            torch.zeros(self.channels, dtype=torch.bool, device=device),
            torch.zeros(self.channels, device=device),
        )

    def given_labels(self, number: int) -> Tensor:
        """Which points are given in a frame; bool `[K]`."""
        if number not in self.given:
            return torch.zeros(self.channels, dtype=torch.bool, device=self.device)
        return ~self.points[number].isnan().any(dim=1)

    def decode(self, number: int, copied: Copied | None, frame_3hw: Tensor) -> TrackedPoints:
        """The points, on the CPU; given ones are exactly where they were given."""
        if copied is not None:
            self.now = self.locate(copied.shares_khw)
        if number in self.given:
            fresh = self.given_labels(number)
            xy = torch.where(fresh[:, None], self.points[number], self.now.xy)
            self.now = TrackedPoints(
                xy, self.now.visible | fresh, torch.where(fresh, 1.0, self.now.confidence)
            )
        return TrackedPoints(*(field.cpu() for field in self.now))

    def encode(self, number: int, copied_khw: Tensor | None) -> Tensor:
        """Gaussians of the visible points or, if `copied_khw` is given, its maps with Gaussians in
        place of those of given points."""
        if copied_khw is None:
            return self.gaussians(self.now.xy, self.now.visible)
        fresh = self.given_labels(number)
        return (
            torch.where(fresh[:, None, None], self.gaussians(self.now.xy, fresh), copied_khw)
            if fresh.any()
            else copied_khw
        )

    def gaussians(self, xy_k2: Tensor, shown_k: Tensor) -> Tensor:
        """Maps `[K, h, w]` with a sum of 1 within the image; zero for points that are not shown."""
        columns_k, rows_k = cells_of(xy_k2, self.stride).nan_to_num().unbind(dim=1)
        squared = (self.rows_hw - rows_k[:, None, None]).square() + (
            self.columns_hw - columns_k[:, None, None]
        ).square()
        maps_khw = (squared / (-2 * SIGMA**2)).exp()
        return maps_khw * (shown_k / maps_khw.sum(dim=(1, 2)))[:, None, None]

    def locate(self, copied_khw: Tensor) -> TrackedPoints:
        """Find each point at the centre of mass around the peak of its map."""
        peaks_k = copied_khw.flatten(1).argmax(dim=1)
        rows_k, columns_k = peaks_k // self.cells[1], peaks_k % self.cells[1]
        near_khw = (self.rows_hw - rows_k[:, None, None]).abs() <= PEAK_RADIUS
        near_khw = near_khw & ((self.columns_hw - columns_k[:, None, None]).abs() <= PEAK_RADIUS)
        mass_khw = copied_khw * near_khw
        mass_k = mass_khw.sum(dim=(1, 2))
        center = torch.stack(
            [(mass_khw * grid_hw).sum(dim=(1, 2)) for grid_hw in (self.columns_hw, self.rows_hw)],
            dim=1,
        )
        xy_k2 = (
            pixels_of(center / mass_k.clamp_min(1e-12)[:, None], self.stride)
            .clamp_min(0)
            .minimum(self.limits)
        )
        visible_k = mass_k >= VISIBLE_MASS
        return TrackedPoints(
            torch.where(visible_k[:, None], xy_k2, self.now.xy), visible_k, mass_k.clamp_max(1.0)
        )


def cells_of(xy_k2: Tensor, stride: int) -> Tensor:
    """Convert pixels to cells; in both, (0, 0) is the centre of the first."""
    return (xy_k2 + 0.5) / stride - 0.5


def pixels_of(cells_k2: Tensor, stride: int) -> Tensor:
    """Convert cells to pixels, the inverse of `cells_of`."""
    return (cells_k2 + 0.5) * stride - 0.5


def whole_numbers(number: int, labels_hw: Tensor) -> Tensor:
    """Labels as int64 `[H, W]`; InputError unless they are integers from 0 to 255 and the frame
    number is at least 0."""
    given = f"labels of frame {number}, {list(labels_hw.shape)} of {labels_hw.dtype}"
    if number < 0 or labels_hw.ndim != 2 or labels_hw.is_floating_point() or not labels_hw.numel():
        raise InputError(f"{given}: expected whole numbers 0 to 255, [H, W], in a frame from 0 on")
    numbers_hw = labels_hw.long()
    if int(numbers_hw.min()) < 0 or int(numbers_hw.max()) > 255:
        raise InputError(
            f"{given}, {int(numbers_hw.min())} to {int(numbers_hw.max())}: expected whole numbers "
            "0 to 255, [H, W]"
        )
    return numbers_hw


def check_points(number: int, points_k2: Tensor, size: tuple[int, int]) -> None:
    """Raise InputError unless each point is an x and y within the frame, or both NaN, and the frame
    number is at least 0."""
    if number < 0 or points_k2.ndim != 2 or points_k2.shape[1] != 2:
        raise InputError(
            f"points of frame {number}, {list(points_k2.shape)}: expected [K, 2], x and y in "
            "pixels, in a frame from 0 on"
        )
    for x, y in points_k2.tolist():
        if not ((x != x and y != y) or (-0.5 <= x <= size[1] - 0.5 and -0.5 <= y <= size[0] - 0.5)):
            raise InputError(
                f"point {x:g},{y:g} of frame {number}: expected x up to {size[1] - 1} and y up to "
                f"{size[0] - 1}, from 0 on"
            )
