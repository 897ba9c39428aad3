"""Submits independent tasks as one job array, and a last job that puts their results together."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import submitit

from slurm.cluster import ClusterConfig
from slurm.errors import ClusterError
from slurm.submission import check_possible, executor_of, refusals
from slurm.tasks import Task


class Submitted(NamedTuple):
    """Jobs in the queue."""

    array: str
    """Id of the array."""
    last: submitit.Job[None]


def submit_array(
    tasks: list[Task], last: Task, logs: Path, name: str, config: ClusterConfig
) -> Submitted:
    """Submit `tasks` as an array, and `last` to run once all of them have ended, even with errors.

    Args:
        tasks: one for each job of the array.
        last: must check itself that all results exist.
        logs: folder for the jobs' output.
        name: of the jobs, in the queue.
        config: resources of each job. Jobs of the array get at most one GPU, since each is one
            process; `last` gets none.

    Raises:
        ClusterError: SLURM refuses the jobs, with its own reason. Nothing is left in the queue.
    """
    single = replace(config, gpus_per_node=min(config.gpus_per_node, 1))
    executor = executor_of(logs, name, single, slurm_array_parallelism=len(tasks))
    check_possible(executor)
    with refusals(), executor.batch():
        jobs = [executor.submit(task) for task in tasks]
    array = jobs[0].job_id.partition("_")[0]
    try:
        with refusals():
            ending = executor_of(
                logs,
                f"{name}-end",
                replace(config, gpus_per_node=0),
                slurm_dependency=f"afterany:{array}",
            )
            return Submitted(array, ending.submit(last))
    except ClusterError:
        subprocess.run(["scancel", array], check=False)
        raise


def wait_for(job: submitit.Job[None], look: Callable[[], None], seconds: float = 2.0) -> str:
    """Wait until a job has ended, and call `look` every `seconds`; returns why it failed, or an
    empty string."""
    while not job.done():
        look()
        time.sleep(seconds)
    look()
    failure = job.exception()
    errors = [line for line in str(failure).splitlines() if "Error" in line]
    return (errors[-1].strip() if errors else str(failure).splitlines()[0]) if failure else ""
