"""Asks SLURM for a job's state, its nodes, and why it waits."""

import time
from typing import NamedTuple

from slurm.client import NO_SUCH_JOB, ask
from slurm.errors import ClusterError

# states of jobs that have not ended
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
SILENCE_SECONDS = 30.0  # for how long an unanswered question is repeated
LOOK_SECONDS = 5.0  # between two questions to the controller


class JobState(NamedTuple):
    """The state of a job as SLURM reports it."""

    state: str
    """As in `squeue`, such as RUNNING; UNKNOWN if SLURM does not know the job any more; NO ANSWER
    if SLURM does not answer."""
    reason: str = ""
    """Why it waits, how it ended, or why there is no answer."""
    nodes: str = ""
    start: str = ""
    """When it started, or is expected to start."""
    elapsed: str = ""

    @property
    def alive(self) -> bool:
        """Whether the job runs, or will run."""
        return self.state in ALIVE


def job_state(job: str) -> JobState:
    """The state of a job, from the queue (squeue), or from the accounting database (sacct) if it
    has left the queue."""
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
        # a job that has left the queue has ended, though the accounting database may lag behind
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


def wait_for_state(job: str, otherwise: str) -> JobState:
    """The state of a job, asked for repeatedly until SLURM answers, because a busy or starting
    controller does not answer even about running jobs.

    Args:
        job: its id.
        otherwise: what to do, or what happens, without an answer; for the error message.

    Raises:
        ClusterError: there is no answer; the message says what was asked, for how long, and SLURM's
            own reason.
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
