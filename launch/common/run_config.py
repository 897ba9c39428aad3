"""Whose a run's folder is: the configuration that it belongs to, what of that may change, and which
process works there now."""

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from corrflow import InputError
from corrflow.files import named_errors
from corrflow.model import weights_digest
from corrflow.palette import palette_digest
from corrflow.pretrained import load_model
from corrflow.stored_config import claim_folder
from corrflow.training.checkpoint import initial_model
from launch.configs.train import TrainJob
from shards.manifest import NAME, Manifest

# what may change when a run is taken up again: where and how fast it runs, how long, how often it
# speaks; and the batch, whose clips are counted, so that other machines can go on with it. All else
# decides the weights.
RESUMABLE_FIELDS = {
    "data", "target.palette", "target.second_palette", "trainer.start", "loss.teacher",
    "quarantine", "run", "procs", "device", "nodes", "gpus_per_node", "follow", "dry_run",
    "stream.workers", "stream.prefetch", "stream.stall_seconds", "compute.attention",
    "compute.precision", "compute.compile", "compute.convolution", "trainer.steps", "trainer.batch",
    "trainer.accumulate", "trainer.log_every", "trainer.save_every", "trainer.keep",
    "trainer.keep_every", "trainer.pictures_every", "trainer.spike_factor", "trainer.on_spike",
    "trainer.profile", "validation.root", "validation.every", "validation.year",
    "validation.protocol", "validation.sequences", "validation.size", "validation.pictures",
}  # fmt: skip
RESUMABLE_GROUPS = ("cluster.", "timeouts.")
CONFIG = "config.json"  # of a run; an exported model has one, too
LOCK = ".lock"
LOCK_SECONDS = 60.0  # that an earlier job, killed, may take to leave
TAKEN = {errno.EACCES, errno.EAGAIN}  # what a lock that another process has is told by


def read_config(run: Path) -> dict[str, Any]:
    """The configuration that a run belongs to; InputError if it is no run, or damaged."""
    path = run / CONFIG
    if not path.exists():
        raise InputError(f"run {run}: no {CONFIG} there: expected the folder of a run")
    config = read_json(path)
    if not isinstance(config, dict) or "training" not in config:
        raise InputError(f"run {run}: {CONFIG} is not of a run: expected the folder of a run")
    return config


def read_json(path: Path) -> Any:
    """What a command left; InputError if the file is damaged."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(
            f"{path}: damaged ({error}): remove it: the command that left it writes it again"
        ) from None


def check_run_config(job: TrainJob, manifest: Manifest, *, write: bool = True) -> None:
    """Check that the run's `config.json` is of the same run, and write it; the one process that
    holds the run writes.

    Raises:
        InputError: the folder belongs to another configuration; names what differs.
    """
    path = job.run / CONFIG
    config = {**json.loads(json.dumps(asdict(job), default=str)), **digests(job, manifest)}
    stored = read_config(job.run) if path.exists() else None
    claim_folder(path, stored, config, "another configuration", is_resumable, write=write)


def is_resumable(name: str) -> bool:
    """Whether a setting may change when a run is taken up again."""
    flag = name.removeprefix("training.")  # which flags leave out
    return flag in RESUMABLE_FIELDS or flag.startswith(RESUMABLE_GROUPS)


def digests(job: TrainJob, manifest: Manifest) -> dict[str, str]:
    """What names the content of the files that a run learns from, wherever they lie; InputError if
    one can't be read."""
    start, teacher = job.training.trainer.start, job.training.loss.teacher
    first, *second = job.training.target.targets()
    return {
        "data_digest": manifest.digest(),
        "palette_digest": palette_digest(first.palette),
        "second_palette_digest": palette_digest(second[0].palette) if second else "",
        "start_digest": weights_digest(initial_model(start, job.training.model)) if start else "",
        "teacher_digest": weights_digest(load_model(teacher)) if teacher else "",
    }


def held_run(run: Path) -> AbstractContextManager[None]:
    """Keep a run to one job at a time: an earlier one that was killed may still be leaving, and is
    waited for.

    Raises:
        InputError: it is still there after a minute.
    """
    return held(run / LOCK, f"run {run}", "training", LOCK_SECONDS)


def held_evaluation(out: Path) -> AbstractContextManager[None]:
    """Keep an evaluation's folder to one command at a time; the processes and jobs that it starts
    are its own.

    Raises:
        InputError: another command is at work there.
    """
    return held(out / LOCK, str(out), "evaluating", seconds=0.0)


@contextmanager
def held_packing(out: Path) -> Iterator[None]:
    """Keep a folder of shards to one command at a time, until they are all there: no lock is left
    beside them.

    Raises:
        InputError: another command packs there.
    """
    if (out / NAME).exists():
        yield
        return
    with held_and_removed(out / LOCK, str(out), "packing"):
        yield


@contextmanager
def held_result(out: Path) -> Iterator[None]:
    """Keep a video that is written, and what lies beside it, to one command at a time.

    Raises:
        InputError: another command writes it.
    """
    with held_and_removed(out.with_name(f".{out.stem}{LOCK}"), f"out {out}", "tracking"):
        yield


@contextmanager
def held_and_removed(lock: Path, name: str, doing: str) -> Iterator[None]:
    """As `held`, without waiting; the file of the lock goes with it."""
    with held(lock, name, doing, seconds=0.0):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def held(lock: Path, name: str, doing: str, seconds: float) -> Iterator[None]:
    """Keep other processes out by the lock of a file, on other nodes too where its file system
    passes locks on, as NFS does.

    The system gives the lock back when this process ends, however it ends. Processes that it starts
    do not have it. Where the file system has no locks, a line says so, and nobody is kept out.

    Raises:
        InputError: after `seconds` another process still has it; names it. Or there can be no file.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        opened = lock.open("a+b", buffering=0)
    except OSError as error:
        raise InputError(f"{name}: can't be written to ({error.strerror})") from None
    with opened as file:
        deadline = time.monotonic() + seconds
        while not locked(file, name):
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = file.read().decode(errors="replace").strip() or "another process"
                raise InputError(f"{name}: {holder} is {doing} there: expected one at a time")
            time.sleep(0.2)
        with named_errors(lock):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


def locked(file: IO[bytes], name: str) -> bool:
    """Whether this process has the lock now, or there are none to have."""
    try:
        # not flock, which processes that this one starts would hold on to
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        warning = f"its file system has no locks ({error.strerror}): start one command at a time"
        print(f"{name}: {warning}", file=sys.stderr, flush=True)
    # who had it may have removed the file, and others lock a new one
    return os.fstat(file.fileno()).st_nlink > 0
