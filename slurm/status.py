"""What SLURM says of a job: its state, its nodes, why it waits."""

import subprocess
from typing import NamedTuple

# states in which a job is not over
ALIVE = {
    "PENDING",
    "RUNNING",
    "CONFIGURING",
    "COMPLETING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "SUSPENDED",
    "STOPPED",
    "RESIZING",
}
FORMAT = "%T|%r|%N|%S|%M"


class JobState(NamedTuple):
    """A job as SLURM tells it."""

    state: str
    """As `squeue` writes it: RUNNING; UNKNOWN if no one knows it any more."""
    reason: str = ""
    """Why it waits, or how it ended."""
    nodes: str = ""
    start: str = ""
    """When it started, or is expected to."""
    elapsed: str = ""

    @property
    def alive(self) -> bool:
        """Whether it runs, or will."""
        return self.state in ALIVE


def job_state(job: str) -> JobState:
    """The state of a job, from the queue, or from the accounts if it has left that."""
    queued = ask("squeue", "-h", "-j", job, "-o", FORMAT)
    if queued:
        state, reason, nodes, start, elapsed = queued.splitlines()[0].split("|")
        known = JobState(
            state, "" if reason == "None" else reason, nodes, start.replace("T", " "), elapsed
        )
        if known.alive:
            return known
    kept = ask("sacct", "-nPX", "-j", job, "-o", "State,ExitCode,NodeList,Start,Elapsed")
    if not kept:
        return known if queued else JobState("UNKNOWN")
    state, code, nodes, start, elapsed = kept.splitlines()[-1].split("|")
    # what has left the queue is over, though the accounts may lag behind
    return JobState(
        state.split()[0],
        f"exit code {code.partition(':')[0]}",
        nodes,
        start.replace("T", " "),
        elapsed,
    )


def ask(*command: str) -> str:
    """What a command of SLURM prints; nothing if it fails, as for a job that it has forgotten."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
