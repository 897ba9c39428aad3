"""The log of a run's attempts, `attempts.jsonl`: where each began and how it left. A run that gets
nowhere is given up."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from slurm.errors import ClusterError

ATTEMPTS = "attempts.jsonl"
TRIES = 3  # attempts from one and the same step, none of which saved or was told to leave


@dataclass(frozen=True)
class Attempt:
    """One start of a run's processes."""

    job: str
    """SLURM's id; empty: none that comes back by itself."""
    step: int
    """Where it began; once it has left in order, where it did."""
    nodes: tuple[str, ...]
    world: int
    """Processes in all; 0: not known."""
    began: float
    """Seconds since the epoch."""
    ended: float = 0.0
    """The same; 0: it runs, or was killed."""
    left: str = ""
    """How it ended, if in order: `finished`, `told to leave`, `stopped itself`."""


def read_attempts(run: Path) -> list[Attempt]:
    """All of them, oldest first; a line that was cut short or is damaged is left out."""
    attempts: dict[float, Attempt] = {}
    path = run / ATTEMPTS
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
            attempts[record["began"]] = Attempt(**{**record, "nodes": tuple(record["nodes"])})
        except (ValueError, TypeError, KeyError):  # no JSON, or JSON of something else
            continue
    return list(attempts.values())


def log_attempt(run: Path, attempt: Attempt) -> None:
    """Note it: when it begins, and again when it ends; ClusterError if it can't be written."""
    path = run / ATTEMPTS
    try:
        with path.open("a") as file:
            file.write("\n" * (not ends_whole(path)) + json.dumps(asdict(attempt)) + "\n")
    except OSError as error:
        raise ClusterError(f"{path}: can't be written ({error.strerror})") from None


def ends_whole(path: Path) -> bool:
    """Whether the file's last line is whole."""
    content = path.read_bytes()
    return not content or content.endswith(b"\n")


def is_hopeless(run: Path, attempt: Attempt) -> bool:
    """Whether the last attempts of its job all began where it begins, and were cut there."""
    last = [made for made in read_attempts(run) if made.job == attempt.job][-TRIES:]
    return (
        bool(attempt.job)
        and len(last) == TRIES
        and all(made.step == attempt.step and not made.left for made in last)
    )
