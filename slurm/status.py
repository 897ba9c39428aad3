"""What SLURM says of a job: its state, its nodes, why it waits."""

import time
from typing import NamedTuple

from slurm.client import NO_SUCH_JOB, ask
from slurm.errors import ClusterError

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
NO_ANSWER = "NO ANSWER"
SILENCE_SECONDS = 30.0  # for which a question is asked again that is not answered
LOOK_SECONDS = 5.0  # between two questions to the controller


class JobState(NamedTuple):
    """A job as SLURM tells it."""

    state: str
    """As `squeue` writes it: RUNNING; UNKNOWN if no one knows it any more; NO ANSWER if SLURM does
    not say."""
    reason: str = ""
    """Why it waits, how it ended, or why there is no answer."""
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
    queue = ask("squeue", "-h", "-t", "all", "-j", job, "-o", FORMAT)
    if queue.text:
        state, reason, nodes, start, elapsed = queue.text.splitlines()[0].split("|")
        known = JobState(
            state, "" if reason == "None" else reason, nodes, start.replace("T", " "), elapsed
        )
        if known.alive:
            return known
    accounts = ask("sacct", "-nPX", "-j", job, "-o", "State,ExitCode,NodeList,Start,Elapsed")
    if accounts.text:
        state, code, nodes, start, elapsed = accounts.text.splitlines()[-1].split("|")
        # what has left the queue is over, though the accounts may lag behind
        return JobState(
            state.split()[0],
            f"exit code {code.partition(':')[0]}",
            nodes,
            start.replace("T", " "),
            elapsed,
        )
    if queue.text:
        return known
    if queue.failure and NO_SUCH_JOB not in queue.failure:
        return JobState(NO_ANSWER, queue.failure)
    return JobState("UNKNOWN")


def answered_state(job: str, otherwise: str) -> JobState:
    """The state of a job, asked for until SLURM answers: a controller that is busy or starting says
    nothing of jobs that run.

    Args:
        job: its id.
        otherwise: what is to be done, or happens, without an answer, for the error.

    Raises:
        ClusterError: there is none; says what was asked, for how long, and SLURM's own reason.
    """
    began = time.monotonic()
    while (state := job_state(job)).state == NO_ANSWER:
        seconds = time.monotonic() - began
        if seconds >= SILENCE_SECONDS:
            asked = f"asked squeue and sacct for {seconds:.0f} s: {state.reason}"
            raise ClusterError(
                f"job {job}: SLURM does not say whether it still runs ({asked}): {otherwise}"
            )
        time.sleep(LOOK_SECONDS)
    return state
