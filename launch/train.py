"""Train a correspondence model on packed videos: `python launch/train.py --data SHARDS --run DIR [--recipe NAME] [--procs N]`.

The same command again resumes the run from its newest checkpoint, on any number of processes that divides the batch. Exit codes: 0 done,
1 failed, 2 a mistake in a flag, 3 stopped by itself for what would come again (a loss that is no number, a spike), 130 or 143 by a signal.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
import tyro
from tqdm import tqdm

from corrflow.training.anomalies import ElsewhereError, RecurringError, WriteError
from corrflow.training.checkpoint import checkpoint_path
from corrflow.training.distributed import Processes, choose_device, joined_processes
from corrflow.training.trainer import Trainer
from launch.command import parse, run
from launch.config import TrainJob, claim_run, held_run
from launch.recipes import RECIPES, find_recipe
from shards.corpus import Corpus, open_corpus
from shards.errors import StallError
from shards.order import Order
from shards.stream import ClipDataset, check_data, read_batches
from slurm.local import follow_parent, is_member, run_processes
from slurm.preemption import StopFlag

FAILED, WOULD_RECUR = 1, 3  # exit codes; a job that ends with the second is not to be started again as it is


def main(argv: list[str]) -> int:
    """Train here, in this process or in several; returns the exit code."""
    job = read_flags(argv)
    corpus = open_corpus(job.data, job.quarantine)
    count = job.procs or (torch.cuda.device_count() if choose_device(job.device).type == "cuda" else 1)
    if not is_member():
        for local_rank in range(count):
            choose_device(job.device, local_rank)
        job.training.compute.choose(choose_device(job.device))
        job.training.validation.find()
        check_data(read_from(job, corpus, Processes(0, count, torch.device("cpu")), start=0), job.stream)
        job.training.trainer.check(count, choose_device(job.device))
    claim_run(job, corpus.manifest)
    if is_member() or count == 1:
        return work(job, corpus)
    return run_processes([sys.executable, __file__, *argv], count)


def read_flags(argv: list[str]) -> TrainJob:
    """The job: a recipe's values, changed by flags."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--recipe", nargs="?", default="released", const="")
    chosen, rest = chooser.parse_known_args(argv)
    recipe = replace(find_recipe(chosen.recipe), data=tyro.MISSING, run=tyro.MISSING)
    return parse(TrainJob, rest, f"train.py [--recipe {{{','.join(RECIPES)}}}]", recipe)


def read_from(job: TrainJob, corpus: Corpus, processes: Processes, start: int) -> ClipDataset:
    """The clips of one process from global batch `start` on, in an order dealt to batches of the present size."""
    trainer = job.training.trainer
    order = Order(corpus.samples, trainer.seed, trainer.batch, job.window, job.clip.visits)
    return ClipDataset(corpus, order, job.clip, processes.rank, processes.world, start)


def work(job: TrainJob, corpus: Corpus) -> int:
    """Train as one of the processes."""
    if is_member():
        follow_parent()
    with StopFlag() as stop, joined_processes(job.device) as processes, held_run(job.run, processes):
        trainer = Trainer(job.run, job.training, processes, say)
        if processes.leads:
            announce(job, corpus, trainer)
        batches = read_batches(read_from(job, corpus, processes, trainer.next_batch), job.stream, processes.device)
        steps = job.training.trainer.steps
        with tqdm(total=steps, initial=min(trainer.step, steps), unit="step", desc="training", disable=not processes.leads) as bar:

            def show(line: dict[str, float]) -> None:
                bar.update(line["step"] - bar.n)
                bar.set_postfix(loss=f"{line['loss']:.3f}", wait=f"{line['data_wait']:.0%}", refresh=False)

            try:
                finished = trainer.fit(batches, stop, show)
            except ElsewhereError:
                return FAILED
            except (RecurringError, WriteError, StallError) as error:
                bar.close()
                say(f"rank {processes.rank}: stopped at step {trainer.step}: {error}")
                return WOULD_RECUR if isinstance(error, RecurringError) else FAILED
        if processes.leads:
            print(f"{'finished' if finished else 'stopped'} at step {trainer.step}; {saved_at(job.run, trainer.step)}", flush=True)
    return 0 if finished else stop.exit_code


def announce(job: TrainJob, corpus: Corpus, trainer: Trainer) -> None:
    """Say what is about to run."""
    settings, processes = job.training.trainer, trainer.processes
    count = sum(p.numel() for p in trainer.model.parameters())
    left_out = corpus.manifest.samples - sum(corpus.samples)
    quarantined = f" ({left_out} in quarantine)" if left_out else ""
    begun = f"resuming at step {trainer.step}, {trainer.clips} clips" if trainer.step else "starting"
    print(
        f"{begun}: {count:,} parameters, {settings.steps} steps of {settings.batch} clips of {sum(corpus.samples)} segments{quarantined}, "
        f"{processes.world} x {processes.device.type}, {trainer.compute}\nwatch it: tensorboard --logdir {job.run}",
        flush=True,
    )
    if trainer.step and trainer.batch_before != settings.batch:
        place = (
            f"batch {trainer.batch_before} -> {settings.batch}: the order is dealt anew from clip {trainer.next_batch * settings.batch} on"
        )
        print(f"{place}: clips of the present pass may come twice or not at all, this once", flush=True)


def say(text: str) -> None:
    """A line on stderr, clear of the progress bar."""
    tqdm.write(f"train.py: {text}", file=sys.stderr)


def saved_at(run: Path, step: int) -> str:
    """Where the last checkpoint is, and what to do if the run is not over."""
    return f"saved {checkpoint_path(run, step)}; the same command goes on from there"


if __name__ == "__main__":
    sys.exit(run(main))
