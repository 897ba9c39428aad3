"""Measures training on real shards, compared with its step alone and its loader alone."""

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
    """Seconds per batch of training and of its parts."""

    clips: int
    """Number of clips in a batch."""
    step: float
    """Seconds of a step on clips that are loaded already."""
    loader: float
    """Seconds to load a batch, without training on it."""
    training: float
    """Seconds of both together, as in launch/train.py."""
    waited: float
    """Fraction of the training's time in which it waited for clips."""

    @property
    def reached(self) -> float:
        """Training's rate divided by the rate of its slower part alone."""
        return max(self.step, self.loader) / self.training


def measure_training(
    job: TrainBenchJob, device: torch.device, on_step: Callable[[], object] = lambda: None
) -> TrainingSpeed:
    """Train on shards for some steps, and keep nothing of it.

    Args:
        job: which shards, and which training.
        device: to train on.
        on_step: called after each of `3 * job.all_steps` steps and batches.

    Raises:
        DataError: the shards can't be read.
    """
    # the run reads and writes no checkpoint, and draws no pictures
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
    """Run the trainer's own loop; return the seconds of a step, and the seconds in which it waited
    for its batch."""
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
    """Seconds to load a batch when batches are asked for without pause. Batches that were
    prefetched while the step was measured are discarded first."""
    ready = (job.stream.prefetch + 1) * max(job.stream.workers, 1) + 1
    for _ in range(ready):
        next(batches)
    begun = time.perf_counter()
    for _ in range(job.all_steps):
        next(batches)
        on_step()
    return (time.perf_counter() - begun) / job.all_steps
