"""Prepares the input of a training step: from uint8 clips to clean colours and augmented frames, on
the device.

Shapes: b clips of this rank, t frames of a clip, n frames of all clips of this rank, m targets, k
classes of all targets, h w pixels or cells.
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
    """Clean frames, RGB in [0, 1]."""
    inputs_bt3hw: Tensor
    """Augmented frames, in the encoder's colour space."""
    colors_btkhw: Tensor
    """Share of each colour class in each cell."""
    classes_btmhw: Tensor
    """The class of each pixel for each target, int64."""

    def parts(self, count: int) -> list["StepInput"]:
        """Split the clips evenly into `count` parts."""
        chunks = [tensor.chunk(count) for tensor in self]
        return [StepInput(*tensors) for tensors in zip(*chunks, strict=True)]


class InputPipeline(NamedTuple):
    """Turns clips into the input of a step: holds which colours are predicted, and how frames are
    augmented."""

    targets: tuple[Target, ...]
    classifiers: tuple[ColorClassifier, ...]
    """One for the palette of each target."""
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
        """The pipeline for a model; target and augmentation are those of the paper by default."""
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
        """Convert clips to clean colours and augmented input, on `device`.

        Args:
            clips_bt3hw: the clips of this rank, uint8.
            draws: random numbers for the global batch, of which this rank uses its part.
            device: where the step is computed.
            rank: rank of this process.
            world_size: number of processes, all with the same number of clips.

        Raises:
            InputError: sides that are not multiples of the encoder's stride.
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
    """Move clips to the device; to CUDA from pinned memory, so that the copy is asynchronous."""
    if device.type == "cuda" and clips.device.type == "cpu" and not clips.is_pinned():
        clips = clips.pin_memory()
    return clips.to(device, non_blocking=True)


def check_sides(shape: torch.Size, stride: int) -> None:
    """Raise InputError unless frames of this shape divide evenly into the encoder's cells."""
    height, width = shape[-2:]
    if height % stride or width % stride:
        raise InputError(
            f"clips of {height}x{width} pixels: expected multiples of {stride}, the encoder's "
            "stride (--clip.size)"
        )
