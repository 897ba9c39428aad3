"""Train a correspondence model on packed videos:
`python launch/train.py --data SHARDS --run DIR [--recipe NAME] [--procs N]`.

The same command again resumes the run from its newest checkpoint, on any number of processes that
divides the batch. Exit codes: 0 done, 1 failed, 2 a mistake in a flag, 3 stopped itself for a
reason that would recur on resume (a non-finite loss, a loss spike), 130 or 143 by a signal.
"""

import os
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path

import torch
import tyro
from tqdm import tqdm

from corrflow import InputError
from corrflow.device import choose_device
from corrflow.encoders.registry import name_of
from corrflow.memory import keep_freed_memory
from corrflow.progress import progress_bar
from corrflow.training.checkpoint import checkpoint_path, checkpoints, parameters_digest, step_of
from corrflow.training.config import TrainingConfig
from corrflow.training.distributed import (
    DistributedContext,
    LostRankError,
    init_distributed,
)
from corrflow.training.failures import OtherRankError, RecurringError, WriteError
from corrflow.training.monitor import loss_terms
from corrflow.training.trainer import Trainer
from launch.common.command import parse, run
from launch.common.run_config import check_run_config, run_lock
from launch.common.submission import check_job_ended, processes_of, submit
from launch.configs.recipes import RECIPES, take_recipe
from launch.configs.train import TrainJob
from shards.errors import StallError
from shards.reading.corpus import Corpus, open_corpus
from shards.reading.order import ClipOrder
from shards.reading.stream import (
    ClipDataset,
    check_data,
    enlarged_line,
    interval_line,
    lost_worker,
    read_batches,
)
from slurm import ClusterError
from slurm.attempts import ATTEMPTS, TRIES, Attempt, log_attempt, makes_no_progress
from slurm.local import die_with_parent, is_worker_process, run_processes
from slurm.signals import SignalHandler
from slurm.tasks import EXIT_RECURRING, EXIT_REQUEUE

# how long other ranks wait so that the failing one can report its error: as soon as one process of
# a job exits, the others are killed
ELSEWHERE_SECONDS = 3.0
EXIT_FAILED = 1  # exit code; a SLURM job that ends with it is tried again


def main(argv: list[str]) -> int:
    """Train here, in one process or several, or submit the run to SLURM; returns the exit code."""
    job = read_flags(argv)
    check_name(job.run)
    check_clip_size(job)
    corpus = open_corpus(job.data, job.quarantine)
    if is_worker_process():
        check_run_config(job, corpus.manifest, write=False)
        return work(job, corpus)
    job.training.validation.find()
    if job.nodes:
        world = job.nodes * processes_of(job)
        check_data(
            read_from(job, corpus, DistributedContext(0, world, torch.device("cpu")), start=0)
        )
        job.training.trainer.check(world, torch.device("cpu" if job.device == "cpu" else "cuda"))
        check_run_config(job, corpus.manifest, write=False)
        return submit(job, argv, corpus)
    count = job.procs or (
        torch.cuda.device_count() if choose_device(job.device).type == "cuda" else 1
    )
    for local_rank in range(count):
        choose_device(job.device, local_rank)
    job.training.compute.choose(choose_device(job.device))
    check_data(read_from(job, corpus, DistributedContext(0, count, torch.device("cpu")), start=0))
    job.training.trainer.check(count, choose_device(job.device))
    check_run_config(job, corpus.manifest, write=False)
    check_job_ended(job.run)
    return (
        work(job, corpus) if count == 1 else run_processes([sys.executable, __file__, *argv], count)
    )


def train_in_job(argv: list[str]) -> int:
    """Train as one process of a SLURM job, which has set its rank in the environment; returns the
    exit code."""
    sys.argv = ["train.py", *argv]
    return run(main)


def read_flags(argv: list[str]) -> TrainJob:
    """Parse flags on top of a recipe's values; InputError for flags that would be ignored."""
    chosen, rest = take_recipe(argv)
    recipe = replace(chosen, data=tyro.MISSING, run=tyro.MISSING)
    job = parse(TrainJob, rest, f"train.py [--recipe {{{','.join(RECIPES)}}}]", recipe)
    check_ignored(job.training, chosen.training)
    return job


def check_ignored(training: TrainingConfig, recipe: TrainingConfig) -> None:
    """InputError names a setting that differs from the recipe's but would be ignored, given the
    other settings."""

    def check(group: str, names: Iterable[str], expected: str) -> None:
        here, usual = getattr(training, group), getattr(recipe, group)
        for name in names:
            if (value := getattr(here, name)) != getattr(usual, name):
                raise InputError(f"train: {group}.{name} {value}: expected {expected}")

    if training.validation.root is None:
        names = [field.name for field in fields(training.validation)]
        check("validation", names, "--validation.root DAVIS with it")
    if not training.target.second_palette:
        check("target", ["second_share"], "--target.second-palette FILE with it")
    if training.loss.teacher:
        check("loss", ["hop_weight", "cycle_weight"], "no loss.teacher, which ignores it")


def check_name(run: Path) -> None:
    """InputError unless the folder's name is valid UTF-8, as TensorBoard needs it."""
    try:
        str(run).encode()
    except UnicodeEncodeError:
        raise InputError(f"train: run {run}: expected a name in UTF-8") from None


def check_clip_size(job: TrainJob) -> None:
    """ClusterError unless the clips' size is a multiple of the encoder's stride."""
    stride = job.training.model.encoder.build().stride
    if job.clip.size % stride:
        raise ClusterError(
            f"clip.size {job.clip.size}: expected a multiple of {stride}, the stride of encoder "
            f"{name_of(job.training.model.encoder)}"
        )


def read_from(
    job: TrainJob, corpus: Corpus, context: DistributedContext, start: int
) -> ClipDataset:
    """The clips of one process from global batch `start` on, in the order for the current batch
    size."""
    trainer = job.training.trainer
    order = ClipOrder(
        corpus.samples, trainer.seed, trainer.batch, job.shuffle_buffer, job.clip.clips_per_segment
    )
    return ClipDataset(corpus, order, job.clip, context.rank, context.world_size, start)


def work(job: TrainJob, corpus: Corpus) -> int:
    """Train as one of the processes; returns the exit code."""
    rank = os.environ.get("RANK", "0")
    if is_worker_process():
        die_with_parent()
    attempt = plan_attempt(job.run) if rank == "0" else None
    try:
        with (
            SignalHandler() as stop,
            init_distributed(job.device, job.timeouts) as context,
            run_lock(job.run) if context.is_main else nullcontext(),
        ):
            if attempt:
                check_run_config(job, corpus.manifest)  # safe to write, since the run is locked
                log_attempt(job.run, attempt)
            keep_freed_memory()
            print(
                f"rank {rank} of {context.world_size} on {context.hosts[context.rank]}, "
                f"{context.device}",
                flush=True,
            )
            trainer = Trainer(job.run, job.training, context, log)
            finished = train(job, corpus, trainer, stop)
            if attempt:
                ended = replace(
                    attempt,
                    step=trainer.step,
                    nodes=tuple(dict.fromkeys(context.hosts)),
                    world=context.world_size,
                    ended=time.time(),
                    outcome="finished" if finished else "stopped by a signal",
                )
                log_attempt(job.run, ended)
            context.barrier()  # as soon as one process of a job exits, the others are killed
        # the signal may have come only to another rank
        return 0 if finished else stop.exit_code or EXIT_REQUEUE
    except OtherRankError:
        time.sleep(ELSEWHERE_SECONDS)
        return EXIT_FAILED
    except RecurringError as error:
        if attempt:
            log_attempt(job.run, replace(attempt, ended=time.time(), outcome="stopped itself"))
        log(f"rank {rank}: {error}")
        return EXIT_RECURRING
    except (WriteError, StallError, LostRankError) as error:
        log(f"rank {rank}: {error}")
        return EXIT_FAILED


def plan_attempt(run: Path) -> Attempt:
    """The attempt that begins now, not yet logged; ClusterError if too many attempts made no
    progress."""
    newest = max((step_of(path) for path in checkpoints(run)), default=0)
    # a job that was not submitted by submitit, such as a shell, is not requeued
    job = os.environ["SLURM_JOB_ID"] if "SUBMITIT_FOLDER" in os.environ else ""
    attempt = Attempt(job, newest, (), 0, time.time())
    if makes_no_progress(run, attempt):
        raise ClusterError(
            f"run {run}: {TRIES} attempts were cut at step {newest} before they saved: see "
            f"{ATTEMPTS} and the logs there"
        )
    return attempt


def train(job: TrainJob, corpus: Corpus, trainer: Trainer, stop: SignalHandler) -> bool:
    """Train from the last checkpoint to the last step, or until told to stop; returns whether the
    last step was reached."""
    context = trainer.context
    if context.is_main:
        announce(job, corpus, trainer)
    batches = read_batches(
        read_from(job, corpus, context, trainer.next_batch), job.stream, context.device
    )
    steps = job.training.trainer.steps
    with progress_bar(
        total=steps,
        initial=min(trainer.step, steps),
        unit="step",
        desc="training",
        disable=not context.is_main,
    ) as bar:

        def show(line: dict[str, float]) -> None:
            bar.update(line["step"] - bar.n)
            losses = {"loss": line["loss"], **loss_terms(line)}
            shown = {name: f"{loss:.3f}" for name, loss in losses.items()}
            shown["wait"] = f"{line['data_wait']:.0%}"
            bar.set_postfix(shown, refresh=False)

        try:
            finished = trainer.fit(batches, stop, show)
        except (RecurringError, WriteError, StallError) as error:
            raise type(error)(f"stopped at step {trainer.step}: {error}") from error
        except RuntimeError as error:
            if not (reason := lost_worker(error)):
                raise
            raise StallError(f"stopped at step {trainer.step}: {reason}") from error
    if context.is_main:
        print(
            f"{'finished' if finished else 'stopped'} at step {trainer.step}; "
            f"{saved_at(job.run, trainer.step)}",
            flush=True,
        )
    print(f"rank {context.rank}: weights {parameters_digest(trainer.model)}", flush=True)
    return finished


def announce(job: TrainJob, corpus: Corpus, trainer: Trainer) -> None:
    """Print what is about to run."""
    settings, context = job.training.trainer, trainer.context
    count = sum(p.numel() for p in trainer.model.parameters())
    left_out = corpus.manifest.samples - sum(corpus.samples)
    quarantined = f" ({left_out} in quarantine)" if left_out else ""
    begun = (
        f"resuming at step {trainer.step}, {trainer.clips_seen} clips"
        if trainer.step
        else "starting"
    )
    print(
        f"{begun}: {count:,} parameters, {settings.steps} steps of {settings.batch} clips of "
        f"{sum(corpus.samples)} segments{quarantined}, "
        f"{context.world_size} x {context.device.type} on "
        f"{', '.join(dict.fromkeys(context.hosts))}, {trainer.compute}\n"
        f"code {Path(__file__).parents[1]}\nwatch it: tensorboard --logdir {job.run}",
        flush=True,
    )
    enlarged = enlarged_line(corpus.manifest, job.clip, trainer.model.stride)
    for line in (enlarged, interval_line(corpus.manifest, job.clip)):
        if line:
            print(line, flush=True)
    if trainer.step and trainer.previous_batch != settings.batch:
        place = (
            f"batch {trainer.previous_batch} -> {settings.batch}: the order of clips changes from "
            f"clip {trainer.next_batch * settings.batch} on"
        )
        print(
            f"{place}: in the current epoch only, clips may be repeated or left out",
            flush=True,
        )


def log(text: str) -> None:
    """Print a line on stderr without breaking the progress bar."""
    tqdm.write(f"train.py: {text}", file=sys.stderr)


def saved_at(run: Path, step: int) -> str:
    """Say where the last checkpoint is, and how to resume."""
    if not step:
        return "nothing is saved yet; the same command starts again"
    return f"saved {checkpoint_path(run, step)}; the same command resumes from there"


if __name__ == "__main__":
    sys.exit(run(main))
