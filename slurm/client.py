"""SLURM's client: whether it is installed, whether a cluster answers it, and what."""

import shutil
import subprocess
from typing import NamedTuple

from slurm.errors import ClusterError

# The first is quick and needs no rights; the second tries longer, and some sites forbid the first.
QUESTIONS = (("scontrol", "ping"), ("sinfo", "-h"))
ANSWER_SECONDS = 30.0  # longest wait for each; the client itself gives up after 9 to 20 s
NO_SUCH_JOB = "Invalid job id"  # what squeue says, with exit code 1, of a job that is forgotten
TELLING = (": fatal: ", NO_SUCH_JOB)  # of a chain of errors, what came of it


def has_slurm() -> bool:
    """Whether SLURM's client is installed."""
    return shutil.which("sbatch") is not None


def goes_to_slurm(jobs: int, local: bool) -> bool:
    """Whether `--jobs` are SLURM's: asked for, not `--local`, and its client is installed.

    Raises:
        ClusterError: the client is installed and no cluster answers it.
    """
    if not jobs or local or not has_slurm():
        return False
    check_answer(f"jobs {jobs}", "--local for processes here")
    return True


def check_answer(asked: str, instead: str) -> None:
    """Refuse, before anything is prepared, jobs that no cluster would take.

    Args:
        asked: the flag and its value, for the error.
        instead: what does the same on this machine, for the error.

    Raises:
        ClusterError: no cluster answers; says what was tried and SLURM's own reason.
    """
    questions = [question for question in QUESTIONS if shutil.which(question[0])]
    if not questions:
        return  # sbatch alone can tell
    for question in questions:
        reason = ask(*question).failure
        if not reason:
            return
    tried = ", ".join(map(" ".join, questions))
    silence = f"no SLURM cluster answers (tried {tried}: {reason})"
    raise ClusterError(f"{asked}: {silence}: expected one that does, or {instead}")


class Answer(NamedTuple):
    """What a command of SLURM's came to."""

    text: str
    """What it printed; empty if it failed."""
    failure: str = ""
    """Why it failed, in a line; empty if it did not."""


def ask(*command: str) -> Answer:
    """Run a command of SLURM's that only asks."""
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
