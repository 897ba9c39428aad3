"""The log of a run's attempts, `attempts.jsonl`: where each began and how it ended. It shows
whether a run makes no progress, and should not be tried again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from slurm.errors import ClusterError

ATTEMPTS = "attempts.jsonl"
TRIES = 3  # attempts from the same step that neither saved nor were told to stop


@dataclass(frozen=True)
class Attempt:
    """One start of a run's processes."""

    job: str
    """Id of the SLURM job; empty if there is none that is requeued automatically."""
    step: int
    """The step at which it began, and after a regular end the step at which it ended."""
    nodes: tuple[str, ...]
    world: int
    """Number of all processes; 0 if not known."""
    began: float
    """Seconds since the epoch."""
    ended: float = 0.0
    """Seconds since the epoch; 0 if it still runs or was killed."""
    outcome: str = ""
    """How it ended: `finished`, `stopped by a signal` or `stopped itself`; empty if it
    still runs or was killed."""


def read_attempts(run: Path) -> list[Attempt]:
    """Read all attempts, oldest first; truncated or damaged lines are left out."""
    attempts: dict[float, Attempt] = {}
    path = run / ATTEMPTS
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
            attempts[record["began"]] = Attempt(**{**record, "nodes": tuple(record["nodes"])})
        except (ValueError, TypeError, KeyError):  # not JSON, or not an attempt
            continue
    return list(attempts.values())


def log_attempt(run: Path, attempt: Attempt) -> None:
    """Append an attempt to the log, once when it begins and again when it ends; ClusterError if the
    log can't be written."""
    path = run / ATTEMPTS
    try:
        with path.open("a") as file:
            file.write("\n" * (not ends_whole(path)) + json.dumps(asdict(attempt)) + "\n")
    except OSError as error:
        raise ClusterError(f"{path}: can't be written ({error.strerror})") from None


def ends_whole(path: Path) -> bool:
    """Whether the file's last line is complete."""
    content = path.read_bytes()
    return not content or content.endswith(b"\n")


def makes_no_progress(run: Path, attempt: Attempt) -> bool:
    """Whether the last attempts of the same job all began at this attempt's step and were cut
    off."""
    last = [made for made in read_attempts(run) if made.job == attempt.job][-TRIES:]
    return (
        bool(attempt.job)
        and len(last) == TRIES
        and all(made.step == attempt.step and not made.outcome for made in last)
    )
