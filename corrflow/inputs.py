"""What a step learns from: uint8 clips to clean colours and augmented input, on the device.

Shapes: b clips of this rank, t frames of a clip, n frames of all its clips, m targets, k classes of
all of them, h w pixels or cells.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from corrflow.augmentation import AugmentationConfig, BatchPart, Draws, augment
from corrflow.color import ColorClassifier, InputSpace, labels_to_soft_grid
from corrflow.errors import InputError
from corrflow.model import CorrFlow
from corrflow.palette import Target, TargetConfig


class ClipBatch(Protocol):
    """A rank's part of a global batch."""

    @property
    def clips(self) -> Tensor:
        """uint8 `[B, T, 3, H, W]`."""

    @property
    def keys(self) -> list[str]:
        """Names of the clips."""


class StepInput(NamedTuple):
    """A batch, ready for the loss."""

    frames_bt3hw: Tensor
    """Clean, RGB in [0, 1]."""
    inputs_bt3hw: Tensor
    """Augmented, in the colour space that the encoder is shown."""
    colors_btkhw: Tensor
    """Shares of the colour classes in each cell."""
    classes_btmhw: Tensor
    """The class of each pixel by each target, int64."""

    def parts(self, count: int) -> list["StepInput"]:
        """The same clips, divided evenly."""
        chunks = [tensor.chunk(count) for tensor in self]
        return [StepInput(*tensors) for tensors in zip(*chunks, strict=True)]


class InputPipeline(NamedTuple):
    """How clips become the input of a step: which colours are predicted, and how frames are
    augmented."""

    targets: tuple[Target, ...]
    classifiers: tuple[ColorClassifier, ...]
    """Of the targets' palettes."""
    stride: int
    space: InputSpace
    augmentation: AugmentationConfig

    @classmethod
    def of(
        cls,
        model: CorrFlow,
        target: TargetConfig | None = None,
        augmentation: AugmentationConfig | None = None,
    ) -> "InputPipeline":
        """That of a model; target and augmentation as in the paper unless given."""
        targets = (target or TargetConfig()).targets()
        classifiers = tuple(ColorClassifier(one.palette, one.lightness) for one in targets)
        space, augmentation = model.config.input, augmentation or AugmentationConfig()
        return cls(targets, classifiers, model.stride, space, augmentation)

    def prepare(
        self,
        clips_bt3hw: Tensor,
        draws: Draws,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> StepInput:
        """Clips to clean colours and augmented input, on `device`.

        Args:
            clips_bt3hw: uint8, those of this rank.
            draws: for the global batch, of which this rank takes its part.
            device: where the step is computed.
            rank: of this process.
            world_size: processes that have as many clips each.

        Raises:
            InputError: sides that are no multiples of the encoder's stride.
        """
        check_sides(clips_bt3hw.shape, self.stride)
        clips, frames = clips_bt3hw.shape[:2]
        bytes_bt3hw = to_device(clips_bt3hw, torch.device(device))
        frames_bt3hw = bytes_bt3hw.contiguous().float() / 255
        clean_n3hw = frames_bt3hw.flatten(0, 1)
        shares, classes = [], []
        for target, classify in zip(self.targets, self.classifiers, strict=True):
            classes_nhw = classify(bytes_bt3hw.flatten(0, 1))
            shares.append(labels_to_soft_grid(classes_nhw, len(target.palette), self.stride))
            classes.append(classes_nhw)
        count = clips * frames
        part = BatchPart(rank * count, count, world_size * count)
        inputs_n3hw = augment(clean_n3hw, self.space, self.augmentation, draws, part)
        by_frame = inputs_n3hw, torch.cat(shares, dim=1), torch.stack(classes, dim=1)
        by_clip = [x.view(clips, frames, *x.shape[1:]) for x in by_frame]
        return StepInput(frames_bt3hw, *by_clip)


def to_device(clips: Tensor, device: torch.device) -> Tensor:
    """Clips on the device; from pinned memory to CUDA, so that it is not waited for."""
    if device.type == "cuda" and clips.device.type == "cpu" and not clips.is_pinned():
        clips = clips.pin_memory()
    return clips.to(device, non_blocking=True)


def check_sides(shape: torch.Size, stride: int) -> None:
    """InputError unless frames of this shape divide into the encoder's cells."""
    height, width = shape[-2:]
    if height % stride or width % stride:
        raise InputError(
            f"clips of {height}x{width} pixels: expected multiples of {stride}, the encoder's "
            "stride (--clip.size)"
        )
