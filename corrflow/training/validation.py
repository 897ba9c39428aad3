"""Validation during training: propagates masks through the sequences of a DAVIS folder, which are
divided among the ranks.

It computes the same scores as `benchmarks/`, but does not keep the masks. Shapes: s sequences, h w
pixels.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from corrflow.benchmarks.davis import Davis, DavisSequence, statistics
from corrflow.errors import InputError, check_range
from corrflow.images import video_depth
from corrflow.model import CorrFlow
from corrflow.pictures import Pixels, overlay, read_frame
from corrflow.propagation import find_protocol, stream
from corrflow.scale import Scale, check_short_side
from corrflow.training.distributed import DistributedContext
from corrflow.training.failures import ErrorSync

PICTURE_FRAMES = 4  # shown per sequence
PANEL = (214, 120)  # width and height of each in pixels: a quarter of 480p


@dataclass(frozen=True)
class ValidationConfig:
    """What is validated, and when. These settings do not change what is learnt."""

    root: Path | None = None
    """Folder of a DAVIS data set, as for launch/eval.py. Without it there is no validation."""
    every: int = 1000
    """Steps between validations."""
    year: Literal[2016, 2017] = 2017
    """DAVIS-2016, which takes all objects of a frame as one, or DAVIS-2017, which scores each
    object."""
    protocol: str = "paper"
    """Protocol of label propagation, as for launch/eval.py --protocol."""
    sequences: int = 0
    """Number of sequences to validate, counted from the first; 0 validates all."""
    size: int = 0
    """Short side, in pixels, to which frames are resized for propagation; smaller frames are
    enlarged. Masks are scored at their own size. 0 propagates at that size, too."""
    pictures: int = 2
    """Number of sequences to show on TensorBoard, with predicted masks above the true ones."""

    def __post_init__(self) -> None:
        check_range("validation", self, "every", 1)
        check_range("validation", self, "sequences pictures", 0)
        check_short_side("validation", self.size)
        find_protocol(self.protocol)

    def find(self) -> list[DavisSequence]:
        """Find the sequences; none without a root. InputError names what is missing."""
        sequences = Davis(self.year).read(self.root) if self.root else []
        return sequences[: self.sequences or None]


class ValidationResult(NamedTuple):
    """The result of a validation, the same on every rank."""

    region: float
    """J, the mean over objects."""
    boundary: float
    """F, the mean over objects."""
    sequences: dict[str, float]
    """J&F of each sequence."""
    pictures: dict[str, Tensor]
    """A picture of each shown sequence, uint8 `[3, H, W]`."""
    seconds: float

    @property
    def mean(self) -> float:
        """J&F."""
        return (self.region + self.boundary) / 2

    def log_line(self) -> dict[str, Any]:
        """The figures for the step's line of the log."""
        figures = {
            "jf": self.mean,
            "j": self.region,
            "f": self.boundary,
            "seconds": self.seconds,
            "sequences": self.sequences,
        }
        return {f"validation_{name}": figure for name, figure in figures.items()}


class Validator:
    """Validates on one set of sequences."""

    def __init__(self, config: ValidationConfig, context: DistributedContext) -> None:
        self.config, self.context = config, context
        self.sequences = config.find()
        self.identity = [
            config.year,
            config.protocol,
            config.size,
            *(s.name for s in self.sequences),
        ]
        """Validations compare only if this is the same."""

    def is_due(self, step: int) -> bool:
        """Whether the weights after `step` steps are validated."""
        return bool(self.sequences) and step % self.config.every == 0

    def validate(self, model: CorrFlow) -> ValidationResult:
        """Validate `model`, which is not changed. A collective; the model must be the same on every
        rank.

        Raises:
            InputError: on one rank, if it can't read a frame or mask; on all ranks, if there is
                nothing to score.
            OtherRankError: on the other ranks, if one can't read a frame or mask.
        """
        begun = time.perf_counter()
        scores_s3 = torch.zeros(len(self.sequences), 3, dtype=torch.float64)
        shown = self.sequences[: self.config.pictures]
        strips_s3hw = torch.zeros(
            len(shown), 3, 2 * PANEL[1], PICTURE_FRAMES * PANEL[0], dtype=torch.uint8
        )
        errors = ErrorSync(self.context)
        # frames have many sizes, each of which would be compiled anew
        with (
            errors.capture(),
            torch.compiler.set_stance("force_eager"),
        ):
            for index in self.share():
                predicted, true = track(model, self.sequences[index], self.config)
                scores_s3[index] = torch.tensor(
                    summed_scores(self.config.year, self.sequences[index], predicted),
                    dtype=torch.float64,
                )
                if index < len(shown):
                    strips_s3hw[index] = picture(self.sequences[index], predicted, true)
        errors.raise_on_all_ranks()
        # all ranks but one hold zeros, so the sums are exact in any order
        return self.summarise(
            self.context.all_reduce_sum(scores_s3),
            self.context.all_reduce_sum(strips_s3hw),
            time.perf_counter() - begun,
        )

    def share(self) -> list[int]:
        """The indices of this rank's sequences, dealt in turn, the longest first."""
        order = sorted(range(len(self.sequences)), key=lambda i: (-self.sequences[i].length, i))
        return order[self.context.rank :: self.context.world_size]

    def summarise(self, scores_s3: Tensor, strips_s3hw: Tensor, seconds: float) -> ValidationResult:
        """Average over objects, as the benchmark does."""
        region, boundary, count = scores_s3.sum(dim=0).tolist()
        if not count:
            raise InputError(
                f"validation {self.config.root}: no object in any first mask, or no sequence of 3 "
                "frames: nothing to score"
            )
        each = {
            s.name: (j + f) / 2 / n
            for s, (j, f, n) in zip(self.sequences, scores_s3.tolist(), strict=True)
            if n
        }
        pictures = {s.name: strip for s, strip in zip(self.sequences, strips_s3hw, strict=False)}
        return ValidationResult(region / count, boundary / count, each, pictures, seconds)


def track(
    model: CorrFlow, sequence: DavisSequence, config: ValidationConfig
) -> tuple[list[Pixels], list[Pixels]]:
    """Track a sequence; returns the predicted and true masks `[H, W]` of all frames, at the size of
    the true ones."""
    davis = Davis(config.year)
    true = davis.ground_truth(sequence)
    scale = Scale.of(true[0].shape[1], true[0].shape[0], config.size)
    frames = (
        torch.from_numpy(scale.frame(frame_hw3)).movedim(-1, 0)
        for frame_hw3 in davis.frames(sequence)
    )
    tracked = stream(
        model, frames, torch.from_numpy(scale.mask(true[0])), find_protocol(config.protocol)
    )
    return [scale.mask_back(labels_hw.numpy()) for labels_hw in tracked], true


def summed_scores(
    year: Literal[2016, 2017], sequence: DavisSequence, predicted: list[Pixels]
) -> tuple[float, float, int]:
    """J and F of a sequence, summed over its objects, and the number of objects; objects without a
    scored frame are left out."""
    scores = [
        statistics(score) for score in Davis(year).score(sequence, predicted).values() if score["J"]
    ]
    return sum(j.mean for j, _ in scores), sum(f.mean for _, f in scores), len(scores)


def picture(sequence: DavisSequence, predicted: list[Pixels], true: list[Pixels]) -> Tensor:
    """A few frames of a sequence side by side, predicted masks above true ones; uint8
    `[3, H, W]`."""
    moments = np.linspace(0, len(predicted) - 1, PICTURE_FRAMES).round().astype(int)
    depth = video_depth(sequence.paths)
    frames = [read_frame(sequence.paths[i], depth) for i in moments]
    rows = []
    for masks in (predicted, true):
        panels = [
            Image.fromarray(overlay(frame, masks[i]))
            for frame, i in zip(frames, moments, strict=True)
        ]
        rows.append(
            np.concatenate([np.asarray(ImageOps.pad(panel, PANEL)) for panel in panels], axis=1)
        )
    return torch.from_numpy(np.concatenate(rows)).movedim(-1, 0)
