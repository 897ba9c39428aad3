"""The training loop: an iterable of clips in, checkpoints and a log out. Knows neither where clips come from nor who may stop it.

Shapes: b clips of this rank, t frames of a clip, k colour classes, h w pixels or cells.
"""

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from corrflow import color
from corrflow.errors import InputError
from corrflow.model import CorrFlow, ModelConfig
from corrflow.objective import ObjectiveConfig, Recursion
from corrflow.training.checkpoint import restore, save_checkpoint, thin_out
from corrflow.training.compute import ComputeConfig
from corrflow.training.distributed import Processes
from corrflow.training.monitor import Monitor, Scene, draw_pictures
from corrflow.training.schedule import ScheduleConfig, step_generator


class ClipBatch(Protocol):
    """A rank's part of a global batch."""

    @property
    def clips(self) -> Tensor:
        """uint8 `[B, T, 3, H, W]`."""

    @property
    def keys(self) -> list[str]:
        """Names of the clips."""


@dataclass(frozen=True)
class TrainerConfig:
    """The loop and what it leaves behind."""

    steps: int = 200_000
    """Optimizer steps in all; a run that has fewer goes on when asked for more."""
    batch: int = 6
    """Clips of a global batch, over all processes."""
    seed: int = 0
    """Of the weights, the order of the clips and every random draw."""
    log_every: int = 10
    """Steps between two looks at the losses; each step is logged all the same."""
    save_every: int = 1000
    """Steps between two checkpoints."""
    keep: int = 3
    """Newest checkpoints that are kept."""
    keep_every: int = 0
    """Checkpoints whose step is a multiple of this are kept for ever; 0: none."""
    pictures_every: int = 500
    """Steps between two sets of pictures; 0: none."""

    def __post_init__(self) -> None:
        from_1 = (self.steps, self.batch, self.log_every, self.save_every, self.keep)
        if min(from_1) < 1 or min(self.keep_every, self.pictures_every, self.seed) < 0:
            raise InputError(f"trainer: {self}: expected steps, batch, log_every, save_every, keep >= 1, the others >= 0")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what is learnt from the clips, and how a step is computed."""

    model: ModelConfig = field(default_factory=ModelConfig)
    bottleneck: color.BottleneckConfig = field(default_factory=color.BottleneckConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)


class NonFiniteError(RuntimeError):
    """A loss or gradient that is not a number; the weights are those before the step."""


class StepInput(NamedTuple):
    """A batch, ready for the recursion."""

    frames_bt3hw: Tensor
    inputs_bt3hw: Tensor
    colors_btkhw: Tensor
    classes_bthw: Tensor


class Trainer:
    """A model in training: its weights, its optimizer, its step."""

    def __init__(self, run: Path, config: TrainingConfig, processes: Processes) -> None:
        """Make a new model, or take up where the newest checkpoint of `run` left off."""
        self.run, self.config, self.processes = run, config, processes
        torch.manual_seed(config.trainer.seed)  # the initial weights, the same on every rank
        cuda = processes.device.type == "cuda"
        # channels last is faster on CUDA's tensor cores, and slower than the plain layout on the CPU
        layout = torch.channels_last if cuda else torch.contiguous_format
        self.compute = config.compute.choose(processes.device)
        self.model = CorrFlow(config.model, self.compute.attention).to(processes.device).to(memory_format=layout)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.schedule.learning_rate, fused=True)
        # rank 0 looks which checkpoint it is to be, lest the ranks find different ones
        self.step = processes.agree(restore(run, self.model, self.optimizer) if processes.leads else 0)
        if self.step and not processes.leads:
            restore(run, self.model, self.optimizer, only=self.step)
        self.bad = torch.zeros((), device=processes.device)  # 1 from the first gradient on that is no number
        if self.compute.compiled:
            self.model.encoder.compile()
        recursion = Recursion(self.model.train(), config.objective)
        self.recursion: nn.Module = recursion
        if processes.world > 1:
            self.recursion = DistributedDataParallel(recursion, device_ids=[processes.device.index] if cuda else None)

    def fit(self, batches: Iterator[ClipBatch], should_stop: Callable[[], bool], on_step: Callable[[dict[str, Any]], None]) -> bool:
        """Train to the last step, or until any rank should stop; saves at the end either way.

        Args:
            batches: this rank's clips, the first being those of the next step.
            should_stop: asked before each step; an answer on one rank stops all at the same step.
            on_step: told each logged step, on rank 0; for a progress bar.

        Returns:
            Whether the last step was reached.

        Raises:
            NonFiniteError: on all ranks, before weights or checkpoints are touched.
        """
        settings = self.config.trainer
        monitor = Monitor(self.run, self.step) if self.processes.leads else None
        log = StepLog(self, monitor, on_step)
        try:
            while self.step < settings.steps and not self.processes.any(should_stop()):
                log.waiting()
                batch = next(batches)
                log.working()
                self.train_step(batch, log)
                last = self.step == settings.steps
                if last or self.step % settings.log_every == 0 or self.step % settings.save_every == 0:
                    log.flush()
                if self.step % settings.save_every == 0 and not last:
                    self.save()
            log.flush()
            self.save()
            self.processes.wait()  # a rank that left first would be taken for one that failed, and rank 0 still writes
        finally:
            if monitor:
                monitor.close()
        return self.step >= settings.steps

    def train_step(self, batch: ClipBatch, log: "StepLog") -> None:
        """One forward, backward and optimizer step; the device is not waited for."""
        clips_seen = self.step * self.config.trainer.batch
        draw = step_generator(self.config.trainer.seed, self.step)
        epsilon, rate = self.config.schedule.truth(clips_seen), self.config.schedule.rate(clips_seen)
        data = self.prepare(batch.clips, draw)
        truth = tuple((torch.rand(data.inputs_bt3hw.shape[1] - 2, generator=draw) < epsilon).tolist())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=self.compute.precision == torch.bfloat16):
            losses = self.recursion(data.inputs_bt3hw, data.colors_btkhw, data.classes_bthw, truth)
        self.optimizer.zero_grad()
        losses.total.backward()
        norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        # fused Adam leaves everything as it is where this is 1, as GradScaler has it: no wait for the device to look. It stays 1,
        # so that no step follows the bad one. DDP has reduced the gradients: norm and decision are the same on every rank
        self.bad = torch.maximum(self.bad, (~norm.isfinite()).float())
        self.optimizer.found_inf = self.bad  # type: ignore[attr-defined]
        self.optimizer.step()
        self.step += 1
        numbers = torch.stack([*(loss.detach() for loss in losses), norm])
        log.add(numbers, {"epsilon": epsilon, "learning_rate": rate}, batch.keys)
        every = self.config.trainer.pictures_every
        if every and (self.step % every == 0 or self.step == 1):
            self.show(data, log)

    def show(self, data: StepInput, log: "StepLog") -> None:
        """Pictures of the step's first clip, on rank 0; the losses are looked at first, since those of a bad step can't be drawn."""
        log.flush()
        if log.monitor:
            scene = Scene(data.frames_bt3hw[0], data.inputs_bt3hw[0], data.colors_btkhw[0])
            with torch.compiler.set_stance("force_eager"):  # one frame in eval mode is not worth a compilation
                log.monitor.pictures(draw_pictures(self.model, scene), self.step)

    def prepare(self, clips_bt3hw: Tensor, draw: torch.Generator) -> StepInput:
        """uint8 clips to clean colours and bottlenecked input. The draws are for the global batch, of which this rank takes its part."""
        clips, frames = clips_bt3hw.shape[:2]
        if self.processes.device.type == "cuda" and clips_bt3hw.device.type == "cpu":
            clips_bt3hw = clips_bt3hw.pin_memory()
        frames_bt3hw = clips_bt3hw.to(self.processes.device, non_blocking=True).contiguous().float() / 255
        clean_n3hw = frames_bt3hw.flatten(0, 1)
        classes_nhw = color.color_classes(clean_n3hw)
        colors_nkhw = color.shrink_labels(classes_nhw, color.CLASSES)
        first = self.processes.rank * clips * frames
        own = slice(first, first + clips * frames)
        jittered = color.jitter_frames(clean_n3hw, self.config.bottleneck, draw, own, self.processes.world * clips * frames)
        inputs_n3hw = color.drop_channels(jittered, self.config.bottleneck, draw)
        inputs_bt3hw, colors_btkhw, classes_bthw = (x.view(clips, frames, *x.shape[1:]) for x in (inputs_n3hw, colors_nkhw, classes_nhw))
        return StepInput(frames_bt3hw, inputs_bt3hw, colors_btkhw, classes_bthw)

    def save(self) -> None:
        """Write a checkpoint of this step, on rank 0; the others go on."""
        if self.processes.leads:
            save_checkpoint(self.run, self.step, self.model, self.optimizer)
            thin_out(self.run, self.config.trainer.keep, self.config.trainer.keep_every)


class StepLog:
    """Steps since the last look. Losses stay on the device until `flush`, the one place where it is waited for."""

    def __init__(self, trainer: Trainer, monitor: Monitor | None, on_step: Callable[[dict[str, Any]], None]) -> None:
        self.trainer, self.monitor, self.on_step = trainer, monitor, on_step
        self.numbers: list[Tensor] = []
        self.lines: list[dict[str, Any]] = []
        self.keys: list[list[str]] = []
        self.waited = 0.0
        self.since = self.mark = time.perf_counter()

    def waiting(self) -> None:
        """The wait for data starts."""
        self.mark = time.perf_counter()

    def working(self) -> None:
        """The wait for data is over."""
        self.waited += time.perf_counter() - self.mark

    def add(self, numbers: Tensor, line: dict[str, Any], keys: list[str]) -> None:
        """A step was done: its losses and gradient norm, still on the device."""
        self.numbers.append(numbers)
        self.lines.append({"step": self.trainer.step, **line})
        self.keys.append(keys)

    def flush(self) -> None:
        """Look at the losses of the steps since the last time; all ranks do so at the same step."""
        if not self.numbers:
            return
        processes = self.trainer.processes
        table = processes.mean(torch.stack(self.numbers)).tolist()
        seconds = time.perf_counter() - self.since
        speed = {
            "clips_per_second": len(self.lines) * self.trainer.config.trainer.batch / seconds,
            "data_wait": self.waited / seconds,
            "memory_gb": peak_memory_gb(processes.device),
        }
        for line, keys, (total, short, long, norm) in zip(self.lines, self.keys, table, strict=True):
            line |= {"loss": total, "short": short, "long": long, "gradient_norm": norm, **speed}
            # the mean over ranks and the norm of the reduced gradients are the same everywhere: all ranks stop here
            if not torch.tensor([total, norm]).isfinite().all():
                raise NonFiniteError(
                    f"step {line['step']}: loss {total}, gradient norm {norm}; its clips on rank {processes.rank}: {', '.join(keys)}"
                )
        if self.monitor:
            self.monitor.steps(self.lines)
            self.on_step(self.lines[-1])
        self.numbers, self.lines, self.keys, self.waited, self.since = [], [], [], 0.0, time.perf_counter()


def peak_memory_gb(device: torch.device) -> float:
    """The most memory held so far: allocated on CUDA, resident of this process on the CPU; 10^9 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
