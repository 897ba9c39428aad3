"""The settings of a training run: those of the loop, and the tree of all settings that decide what
is learnt and how it is computed."""

from dataclasses import dataclass, field
from typing import Literal

import torch

from corrflow import palette
from corrflow.augmentation import AugmentationConfig
from corrflow.errors import LARGEST_SEED, InputError, check_range
from corrflow.loss import LossConfig
from corrflow.model import ModelConfig
from corrflow.training.compute import ComputeConfig
from corrflow.training.schedule import ScheduleConfig
from corrflow.training.validation import ValidationConfig


@dataclass(frozen=True)
class TrainerConfig:
    """The training loop and what it writes."""

    steps: int = 200_000
    """Total number of optimizer steps. A finished run continues if it is started again with
    more."""
    batch: int = 6
    """Clips per global batch, over all processes. A run may be resumed with another batch."""
    accumulate: int = 1
    """Gradient accumulation: the number of parts into which a process divides its clips of a batch,
    to save memory. Clips and random draws stay the same. Gradients do, too, except that BatchNorm
    and the whitening of distillation see the clips of only one part at a time."""
    clip_norm: float = 0.0
    """Gradient clipping: the largest norm of the gradient. 0, as released, disables clipping."""
    sync_batch_norm: bool = False
    """Synchronise BatchNorm over all processes, for few clips per process; on CUDA only."""
    ema_clips: float = 0.0
    """Keep an exponential moving average (EMA) of the weights over about this many recent clips.
    The EMA is then what is validated and used; 0 keeps none."""
    start: str = ""
    """The initial weights of a new run: a checkpoint file (its exponential moving average, if it
    has one), the name of a model that ships, or `encoder` for the published weights of a
    torchvision or timm encoder. Random weights if not given."""
    seed: int = 0
    """Seed of the initial weights, of the order of the clips and of all random draws."""
    log_every: int = 10
    """Steps between reads of the losses from the device; every step is logged in any case."""
    save_every: int = 1000
    """Steps between checkpoints."""
    keep: int = 3
    """Number of newest checkpoints to keep."""
    keep_every: int = 0
    """Also keep every checkpoint whose step is a multiple of this; 0 keeps none of them."""
    pictures_every: int = 500
    """Steps between pictures on TensorBoard; 0 disables pictures."""
    spike_factor: float = 5.0
    """A loss above this many times the median of the last 100 losses is a spike; 0 disables the
    check. In 200 steps of the recipe smoke the highest loss was 1.1 times the median."""
    on_spike: Literal["warn", "stop"] = "warn"
    """What to do at a spike: `warn` prints a warning, `stop` ends the run."""
    profile: int = 0
    """Number of steps to profile, after a few warm-up steps; the trace goes to RUN/profile. 0
    disables profiling."""

    def __post_init__(self) -> None:
        check_range("trainer", self, "steps batch accumulate log_every save_every keep", 1)
        check_range("trainer", self, "keep_every pictures_every clip_norm ema_clips profile", 0)
        check_range("trainer", self, "seed", 0, LARGEST_SEED)
        if self.spike_factor and self.spike_factor <= 1:
            raise InputError(
                f"trainer: spike_factor {self.spike_factor}: expected more than 1, or 0"
            )
        if self.on_spike == "stop" and not self.spike_factor:
            raise InputError("trainer: on_spike stop: expected a spike_factor above 0 with it")

    def check(self, world: int, device: torch.device) -> None:
        """Check the settings against the number of processes and the device.

        Raises:
            InputError: `accumulate` does not divide a process's clips; `sync_batch_norm` on the
                CPU.
        """
        clips = self.batch // world
        if self.batch % (world * self.accumulate):
            fitting = [str(n) for n in range(1, clips + 1) if self.batch % (world * n) == 0]
            expected = "a batch that is a multiple of the number of processes"
            if fitting:
                expected = f"one of {', '.join(fitting)}"
            raise InputError(
                f"trainer: accumulate {self.accumulate}: {self.batch} clips on {world} processes: "
                f"expected {expected}"
            )
        if self.sync_batch_norm and device.type != "cuda":
            raise InputError(
                f"trainer: sync_batch_norm on {device.type}: expected cuda: torch has it on no "
                "other device"
            )


@dataclass(frozen=True)
class TrainingConfig:
    """All settings that decide what is learnt from the clips, how a step is computed, and how the
    run is logged and validated."""

    model: ModelConfig = field(default_factory=ModelConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    target: palette.TargetConfig = field(default_factory=palette.TargetConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
