"""Which configuration a run's folder belongs to, which settings may change on resume, and which
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
from corrflow.training.checkpoint import load_initial_model
from launch.configs.train import TrainJob
from shards.manifest import NAME, Manifest

# settings that may change when a run is resumed: where, how fast and how long it runs, and how
# often it logs. The batch may change, too, so that other machines can continue the run: progress is
# counted in clips. All other settings determine the weights.
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
LOCK_SECONDS = 60.0  # that an earlier job may take to end after it was killed
TAKEN = {errno.EACCES, errno.EAGAIN}  # errors that mean that another process holds the lock


def read_config(run: Path) -> dict[str, Any]:
    """Read a run's configuration; InputError if the folder is no run, or the file is damaged."""
    path = run / CONFIG
    if not path.exists():
        raise InputError(f"run {run}: no {CONFIG} there: expected the folder of a run")
    config = read_json(path)
    if not isinstance(config, dict) or "training" not in config:
        raise InputError(f"run {run}: {CONFIG} is not of a run: expected the folder of a run")
    return config


def read_json(path: Path) -> Any:
    """Read a JSON file that a command wrote; InputError if it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(
            f"{path}: damaged ({error}): remove it: the command that left it writes it again"
        ) from None


def check_run_config(job: TrainJob, manifest: Manifest, *, write: bool = True) -> None:
    """Check that the run's `config.json` has the same configuration, and write it.

    Args:
        job: the run.
        manifest: of the shards that it trains on.
        write: whether to write the file, as only the process that holds the run's lock may.

    Raises:
        InputError: the folder belongs to another configuration; names the settings that differ.
    """
    path = job.run / CONFIG
    config = {**json.loads(json.dumps(asdict(job), default=str)), **digests(job, manifest)}
    stored = read_config(job.run) if path.exists() else None
    claim_folder(path, stored, config, "another configuration", is_resumable, write=write)


def is_resumable(name: str) -> bool:
    """Whether a setting may change when a run is resumed."""
    flag = name.removeprefix("training.")  # flags do not have this prefix
    return flag in RESUMABLE_FIELDS or flag.startswith(RESUMABLE_GROUPS)


def digests(job: TrainJob, manifest: Manifest) -> dict[str, str]:
    """Digests of the files that a run learns from, which identify their content wherever they lie;
    InputError if one can't be read."""
    start, teacher = job.training.trainer.start, job.training.loss.teacher
    first, *second = job.training.target.targets()
    return {
        "data_digest": manifest.digest(),
        "palette_digest": palette_digest(first.palette),
        "second_palette_digest": palette_digest(second[0].palette) if second else "",
        "start_digest": weights_digest(load_initial_model(start, job.training.model))
        if start
        else "",
        "teacher_digest": weights_digest(load_model(teacher)) if teacher else "",
    }


def run_lock(run: Path) -> AbstractContextManager[None]:
    """Lock a run for this job. An earlier job that was killed may need some time to end, so this
    waits for it.

    Raises:
        InputError: the earlier job is still there after a minute.
    """
    return file_lock(run / LOCK, f"run {run}", "training", LOCK_SECONDS)


def evaluation_lock(out: Path) -> AbstractContextManager[None]:
    """Lock an evaluation's folder for this command and the processes and jobs that it starts.

    Raises:
        InputError: another command is at work there.
    """
    return file_lock(out / LOCK, str(out), "evaluating", seconds=0.0)


@contextmanager
def packing_lock(out: Path) -> Iterator[None]:
    """Lock a folder of shards for this command until they are complete. The lock's file is removed
    at the end.

    Raises:
        InputError: another command packs there.
    """
    if (out / NAME).exists():
        yield
        return
    with temporary_file_lock(out / LOCK, str(out), "packing"):
        yield


@contextmanager
def result_lock(out: Path) -> Iterator[None]:
    """Lock a video to write, and the files beside it, for this command.

    Raises:
        InputError: another command writes it.
    """
    with temporary_file_lock(out.with_name(f".{out.stem}{LOCK}"), f"out {out}", "tracking"):
        yield


@contextmanager
def temporary_file_lock(lock: Path, name: str, doing: str) -> Iterator[None]:
    """Like `file_lock`, but do not wait, and remove the lock's file at the end."""
    with file_lock(lock, name, doing, seconds=0.0):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def file_lock(lock: Path, name: str, doing: str, seconds: float) -> Iterator[None]:
    """Keep other processes out with a locked file. This works across nodes, too, if the file system
    shares locks, as NFS does.

    The operating system releases the lock when this process ends, however it ends. Child processes
    do not inherit it. If the file system has no locks, a warning is printed, and nobody is kept
    out.

    Args:
        lock: the file.
        name: of what is locked, for messages.
        doing: what the holder does, for messages.
        seconds: how long to wait for another process that holds the lock.

    Raises:
        InputError: another process still holds the lock after `seconds` (the message names it), or
            the file can't be created.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        opened = lock.open("a+b", buffering=0)
    except OSError as error:
        raise InputError(f"{name}: can't be written to ({error.strerror})") from None
    with opened as file:
        deadline = time.monotonic() + seconds
        while not try_lock(file, name):
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = file.read().decode(errors="replace").strip() or "another process"
                raise InputError(f"{name}: {holder} is {doing} there: expected one at a time")
            time.sleep(0.2)
        with named_errors(lock):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


def try_lock(file: IO[bytes], name: str) -> bool:
    """Try to take the lock; True if this process has it now, or the file system has no locks."""
    try:
        # not flock, because child processes would inherit that lock
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        warning = f"its file system has no locks ({error.strerror}): start one command at a time"
        print(f"{name}: {warning}", file=sys.stderr, flush=True)
    # the previous holder may have removed the file: then other processes lock a new one
    return os.fstat(file.fileno()).st_nlink > 0
