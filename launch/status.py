"""Show the state of runs: `python launch/status.py RUN ...`, or `--all [FOLDER]` for a line for
each run under a folder; `--page FILE` also writes an HTML page."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corrflow import InputError
from corrflow.report import RunSummary, write_runs_page
from corrflow.training.checkpoint import checkpoints, step_of
from corrflow.training.monitor import METRICS, read_last, read_lines
from launch.common.command import parse, run
from launch.common.run_config import CONFIG, read_config, read_json
from launch.common.submission import LOGS, Record, read_record
from launch.configs.train import StatusJob
from slurm.attempts import Attempt, read_attempts
from slurm.status import JobState, job_state

HEADS: tuple[str, ...] = (
    "run", "job", "state", "nodes", "step", "of", "loss", "clips/s", "left", "restarts", "saved",
)  # fmt: skip
CURVES = {"loss": "loss", "validation_jf": "validation J&F", "clips_per_second": "clips/s"}


@dataclass(frozen=True)
class Status:
    """All that is known about a run."""

    run: Path
    record: Record | None
    """Its SLURM job; None if it was never submitted, or was resumed here after its job."""
    state: JobState
    attempts: list[Attempt]
    line: dict[str, float]
    """The newest line of its metrics; empty if there is none."""
    steps: int
    """Number of steps of the whole run."""
    batch: int
    saved: Path | None
    """The newest checkpoint."""

    @property
    def step(self) -> int:
        """The newest step in the metrics."""
        return int(self.line.get("step", 0))

    @property
    def left(self) -> str:
        """Time that the remaining steps will take at the current speed, in words."""
        speed = self.line.get("clips_per_second", 0.0)
        return (
            in_words((self.steps - self.step) * self.batch / speed)
            if speed and self.step < self.steps
            else "-"
        )


def main(argv: list[str]) -> int:
    """Print the state of runs."""
    job = parse(StatusJob, argv, "status.py")
    if job.all:
        statuses = []
        for folder in find_runs(job.runs or (Path("runs"),)):
            try:
                statuses.append(read_status(folder))
            except InputError as error:  # one run is damaged; the others are shown
                print(f"status.py: left out: {error}", file=sys.stderr)
        print_table(statuses)
        if job.page:
            write_page(job.page, statuses)
        return 0
    for folder in job.runs:
        print_one(read_status(folder))
    return 0


def write_page(path: Path, statuses: list[Status]) -> None:
    """Write a page with the states and curves of runs; InputError if it can't be written."""
    runs = [RunSummary(table_row(status), curves_of(status.run)) for status in statuses]
    title = f"Runs, {time.strftime('%Y-%m-%d %H:%M')}"
    try:
        write_runs_page(path, title, HEADS, runs)
    except OSError as error:
        raise InputError(f"page {path}: can't be written ({error.strerror})") from None
    print(f"page: {path}")


def curves_of(folder: Path) -> dict[str, NDArray[np.float64]]:
    """The logged values of a run, by the curve's name."""
    path = folder / METRICS
    lines = read_lines(path) if path.exists() else []
    return {
        name: np.array([line[key] for line in lines if key in line], dtype=np.float64)
        for key, name in CURVES.items()
    }


def find_runs(roots: tuple[Path, ...]) -> list[Path]:
    """All run folders under `roots`, each once; InputError if one of the roots is no folder."""
    runs, seen = [], set[str]()
    for root in roots:
        if not root.is_dir():
            raise InputError(f"{root}: no such folder: expected one in which runs are")
        for folder, subfolders, names in os.walk(root, followlinks=True):
            place = os.path.realpath(folder)
            if place in seen:  # links may form cycles
                subfolders.clear()
            elif CONFIG in names and is_run(Path(folder, CONFIG)):
                runs.append(Path(folder))
            seen.add(place)
    return sorted(runs)


def is_run(config: Path) -> bool:
    """Whether a configuration file is a run's, not an exported model's. A damaged one counts as a
    run's."""
    try:
        stored = read_json(config)
    except InputError:
        return True
    return isinstance(stored, dict) and "training" in stored


def read_status(folder: Path) -> Status:
    """Read a run's files, and ask SLURM for its job; InputError if it is no run."""
    config = read_config(folder)
    trainer = config["training"]["trainer"]
    record = read_record(folder)
    attempts, saved = read_attempts(folder), checkpoints(folder)
    newest = attempts[-1] if attempts else None
    if record and newest and not newest.job and newest.began > record.submitted:
        record = None  # the run was resumed outside SLURM after this job
    state = job_state(record.job) if record else JobState(local_state(attempts))
    return Status(
        folder,
        record,
        state,
        attempts,
        read_last(folder),
        trainer["steps"],
        trainer["batch"],
        saved[-1] if saved else None,
    )


def local_state(attempts: list[Attempt]) -> str:
    """The state of a run outside SLURM."""
    return (attempts[-1].outcome or "running or killed").upper() if attempts else "NOT STARTED"


def print_one(status: Status) -> None:
    """Print some lines about one run."""
    record, state = status.record, status.state
    print(f"run         {status.run}")
    if record:
        waits = f", {state.reason}" if state.reason else ""
        nodes = f" on {state.nodes}" if state.nodes else ""
        known = state.start not in ("", "N/A", "Unknown")
        start = (
            f", {'expected' if state.state == 'PENDING' else 'since'} {state.start}"
            if known
            else ""
        )
        print(f"job         {record.job}: {state.state}{waits}{nodes}{start}")
        print(f"log         {status.run / LOGS / record.log}")
    else:
        print(f"here        {state.state.lower()}")
    progress = (
        f", loss {status.line['loss']:.3f}, {status.line.get('clips_per_second', 0):.1f} clips/s, "
        f"{status.left} left"
        if status.line
        else ""
    )
    print(
        f"step        {status.step} of {status.steps} ({status.step / status.steps:.1%}){progress}"
    )
    ways = [attempt.outcome or "killed or running" for attempt in status.attempts]
    print(f"attempts    {len(ways)}{f': {listed(ways)}' if ways else ''}")
    print(
        "checkpoint  "
        f"{f'{status.saved.name}, {age(status.saved)} ago' if status.saved else 'none yet'}"
    )


def print_table(statuses: list[Status]) -> None:
    """Print a table with a line for each run."""
    rows = [HEADS, *map(table_row, statuses)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def table_row(status: Status) -> tuple[str, ...]:
    """A run's cells of the table."""
    line, state = status.line, status.state
    waits = f" ({state.reason})" if state.state == "PENDING" and state.reason else ""
    return (
        str(status.run),
        status.record.job if status.record else "here",
        state.state + waits,
        state.nodes or "-",
        str(status.step),
        str(status.steps),
        *(f"{line[name]:.3f}" if name in line else "-" for name in ("loss", "clips_per_second")),
        status.left,
        str(max(len(status.attempts) - 1, 0)),
        f"{step_of(status.saved)}, {age(status.saved)} ago" if status.saved else "-",
    )


def listed(ways: list[str]) -> str:
    """The words, with repeated ones counted: `stopped by a signal x3, finished`."""
    groups: list[tuple[str, int]] = []
    for way in ways:
        same = bool(groups) and groups[-1][0] == way
        groups = [*groups[:-1], (way, groups[-1][1] + 1)] if same else [*groups, (way, 1)]
    return ", ".join(f"{way} x{count}" if count > 1 else way for way, count in groups)


def age(path: Path) -> str:
    """Time since a file was written."""
    return in_words(time.time() - path.stat().st_mtime)


def in_words(seconds: float) -> str:
    """A duration in words: `42 s`, `13 min`, `5.2 h` or `3.1 days`."""
    for limit, size, unit, digits in (
        (120, 1, "s", 0),
        (7200, 60, "min", 0),
        (172_800, 3600, "h", 1),
    ):
        if seconds < limit:
            return f"{max(seconds, 0) / size:.{digits}f} {unit}"
    return f"{seconds / 86_400:.1f} days"


if __name__ == "__main__":
    sys.exit(run(main))
