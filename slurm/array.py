"""Submits independent pieces of work as one job array, and a last job that puts their results together."""

import contextlib
import importlib
import io
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from slurm.cluster import ClusterConfig
from slurm.errors import InputError


@dataclass(frozen=True)
class Task:
    """A call that a job makes, by name, so that nothing of the caller's is pickled but plain arguments."""

    function: str
    """`package.module:name`."""
    arguments: dict[str, Any]

    def __call__(self) -> None:
        """Make it."""
        module, _, name = self.function.partition(":")
        getattr(importlib.import_module(module), name)(**self.arguments)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Preempted or out of time: the same call again, which goes on where this one was cut."""
        return submitit.helpers.DelayedSubmission(self)


class Submitted(NamedTuple):
    """Jobs in the queue."""

    array: str
    """Id of the array."""
    last: submitit.Job[None]


def submit_array(tasks: list[Task], last: Task, logs: Path, name: str, config: ClusterConfig) -> Submitted:
    """Submit `tasks` as an array, and `last` to run once they all have ended, well or not.

    Args:
        tasks: one for each job of the array.
        last: it must look for itself whether all is there.
        logs: folder for what the jobs print.
        name: of the jobs, in the queue.
        config: what each job of the array is given; `last` as well.

    Raises:
        InputError: SLURM refuses them; its own reason. Nothing is left in the queue.
    """
    array = ""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises, too
            executor = submitit.AutoExecutor(logs, cluster="slurm")
            executor.update_parameters(name=name, slurm_array_parallelism=len(tasks), **config.parameters())
            with executor.batch():
                jobs = [executor.submit(task) for task in tasks]
            array = jobs[0].job_id.partition("_")[0]
            executor = submitit.AutoExecutor(logs, cluster="slurm")
            after = {"dependency": f"afterany:{array}"}
            executor.update_parameters(name=f"{name}-end", slurm_additional_parameters=after, **config.parameters())
            return Submitted(array, executor.submit(last))
    except (FailedJobError, FailedSubmissionError) as error:
        if array:
            subprocess.run(["scancel", array], check=False)
        raise InputError(f"SLURM refused the job: {reason(error)}") from None


def reason(error: Exception) -> str:
    """SLURM's own words, in a line."""
    text = str(getattr(error, "stderr", None) or error)
    return " ".join(text.replace("sbatch: error:", "").split())


def wait_for(job: submitit.Job[None], look: Callable[[], None], seconds: float = 2.0) -> str:
    """Wait until a job has ended, calling `look` now and then; returns why it failed, or nothing."""
    while not job.done():
        look()
        time.sleep(seconds)
    look()
    failure = job.exception()
    told = [line for line in str(failure).splitlines() if "Error" in line]
    return (told[-1].strip() if told else str(failure).splitlines()[0]) if failure else ""
