"""SLURM's command-line client: whether it is installed, whether a cluster answers, and its
answers."""

import shutil
import subprocess
from typing import NamedTuple

from slurm.errors import ClusterError

# The first is quick and needs no permissions; the second tries longer, and works on sites that
# forbid the first.
QUESTIONS = (("scontrol", "ping"), ("sinfo", "-h"))
ANSWER_SECONDS = 30.0  # longest wait for each; the client itself gives up after 9 to 20 s
NO_SUCH_JOB = "Invalid job id"  # squeue's error, with exit code 1, for a job that it has forgotten
TELLING = (": fatal: ", NO_SUCH_JOB)  # mark the line in a chain of errors that tells the outcome


def has_slurm() -> bool:
    """Whether SLURM's client is installed."""
    return shutil.which("sbatch") is not None


def goes_to_slurm(jobs: int, local: bool) -> bool:
    """Whether `--jobs` go to SLURM: they are asked for, without `--local`, and its client is
    installed.

    Raises:
        ClusterError: the client is installed, but no cluster answers.
    """
    if not jobs or local or not has_slurm():
        return False
    check_answer(f"jobs {jobs}", "--local for processes here")
    return True


def check_answer(asked: str, instead: str) -> None:
    """Check, before anything is prepared, that a cluster answers.

    Args:
        asked: the flag and its value, for the error message.
        instead: how to do the same on this machine, for the error message.

    Raises:
        ClusterError: no cluster answers; the message says what was tried, with SLURM's own reason.
    """
    questions = [question for question in QUESTIONS if shutil.which(question[0])]
    if not questions:
        return  # only sbatch will tell
    for question in questions:
        reason = ask(*question).failure
        if not reason:
            return
    tried = ", ".join(map(" ".join, questions))
    silence = f"no SLURM cluster answers (tried {tried}: {reason})"
    raise ClusterError(f"{asked}: {silence}: expected one that does, or {instead}")


class Answer(NamedTuple):
    """The outcome of a SLURM command."""

    text: str
    """Its output; empty if it failed."""
    failure: str = ""
    """Why it failed, in one line; empty if it did not."""


def ask(*command: str) -> Answer:
    """Run a SLURM command that only queries."""
    wait = ANSWER_SECONDS
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=wait)
    except subprocess.TimeoutExpired:
        return Answer("", f"{command[0]}: nothing in {wait:g} s")
    except OSError as error:
        return Answer("", f"{command[0]}: {error.strerror}")
    if not done.returncode:
        return Answer(done.stdout.strip())
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in TELLING)]
    return Answer("", (telling + lines or [f"{command[0]}: exit code {done.returncode}"])[0])
