"""How fast training is on real shards, beside its step alone and its loader alone."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from corrflow.inputs import ClipBatch
from corrflow.speed.machine import synchronize
from corrflow.training.distributed import DistributedContext
from corrflow.training.trainer import Trainer
from launch.configs.bench import TrainBenchJob
from shards.reading.corpus import open_corpus
from shards.reading.order import ClipOrder
from shards.reading.stream import ClipDataset, read_batches


@dataclass(frozen=True)
class TrainingSpeed:
    """Seconds a batch, and what became of them."""

    clips: int
    """In a batch."""
    step: float
    """Of a step on clips that are there already."""
    loader: float
    """Of a batch that nobody trains on."""
    training: float
    """Of both, as launch/train.py has them."""
    waited: float
    """Share of the training's time in which it waited for clips."""

    @property
    def reached(self) -> float:
        """Training's rate over that of the slower of its parts alone."""
        return max(self.step, self.loader) / self.training


def measure_training(
    job: TrainBenchJob, device: torch.device, on_step: Callable[[], object] = lambda: None
) -> TrainingSpeed:
    """Train on shards for a while; nothing of it is kept.

    Args:
        job: which shards, and which training.
        device: where.
        on_step: called after each of `3 * job.all_steps` steps and batches.

    Raises:
        DataError: shards that can't be read.
    """
    # it starts, and ends, with no checkpoint, and draws nothing
    settings = replace(
        job.training.trainer, steps=2 * job.all_steps, pictures_every=0, profile=0, seed=0
    )
    config = replace(job.training, trainer=settings)
    corpus = open_corpus(job.data)
    order = ClipOrder(
        corpus.samples, 0, settings.batch, job.shuffle_buffer, job.clip.clips_per_segment
    )
    dataset = ClipDataset(corpus, order, job.clip, 0, 1, 0)
    with (
        tempfile.TemporaryDirectory() as run,
        closing(read_batches(dataset, job.stream, device)) as batches,
    ):
        trainer = Trainer(Path(run), config, DistributedContext(0, 1, device))
        batch = next(batches)
        step, _ = time_steps(trainer, itertools.repeat(batch), job, on_step)
        loader = time_batches(batches, job, on_step)
        training, waited = time_steps(trainer, batches, job, on_step)
    return TrainingSpeed(settings.batch, step, loader, training, waited / training)


def time_steps(
    trainer: Trainer,
    batches: Iterator[ClipBatch],
    job: TrainBenchJob,
    on_step: Callable[[], object],
) -> tuple[float, float]:
    """Seconds of a step, and those in which it waited for its batch; the trainer's own loop."""
    log = trainer.step_log()
    begun = waited = 0.0
    for number in range(job.all_steps):
        if number == job.warm_steps:
            synchronize(trainer.context.device)
            begun, waited = time.perf_counter(), 0.0
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        trainer.train_step(batch, log)
        trainer.log_validate_save(log, None)
        on_step()
    synchronize(trainer.context.device)
    return (time.perf_counter() - begun) / job.steps, waited / job.steps


def time_batches(
    batches: Iterator[ClipBatch], job: TrainBenchJob, on_step: Callable[[], object]
) -> float:
    """Seconds of a batch, when the next is asked for at once; those that were ready while the step
    was measured come before."""
    ready = (job.stream.prefetch + 1) * max(job.stream.workers, 1) + 1
    for _ in range(ready):
        next(batches)
    begun = time.perf_counter()
    for _ in range(job.all_steps):
        next(batches)
        on_step()
    return (time.perf_counter() - begun) / job.all_steps
