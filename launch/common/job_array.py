"""Hands the work on a folder to a SLURM job array, and makes sure that only one array works on a
folder at a time."""

import json
from pathlib import Path

from corrflow import InputError
from corrflow.files import atomic_file
from launch.common.run_config import read_json
from slurm.array import Submitted, submit_array
from slurm.client import has_slurm
from slurm.cluster import ClusterConfig
from slurm.status import wait_for_state
from slurm.tasks import Task

LOGS = "logs"
RECORD = "jobs.json"  # beside the logs: the array to which the folder was last handed


def submit_work(
    out: Path, tasks: list[Task], last: Task, name: str, config: ClusterConfig, work: str
) -> Submitted:
    """Submit the work on a folder, record the jobs in the folder, and print how to follow them.

    Args:
        out: the folder.
        tasks: one for each job of the array.
        last: the task of a last job, which puts the results together.
        name: the jobs' name in the queue.
        config: the resources of each job.
        work: what there is to do, in words, for the printed line.

    Raises:
        ClusterError: SLURM refuses the jobs.
    """
    logs = out / LOGS
    submitted = submit_array(tasks, last, logs, name, config)
    array, end = submitted.array, submitted.last.job_id
    with atomic_file(logs / RECORD) as file:
        file.write(json.dumps([array, end]).encode() + b"\n")
    print(
        f"{work}: submitted {array}_[0-{len(tasks) - 1}], and {end}, which puts their results "
        f"together\nlogs in {logs}; how far: squeue -j {array},{end}; cancel: scancel {array} "
        f"{end}; the same command does what is left",
        flush=True,
    )
    return submitted


def check_array_ended(out: Path) -> None:
    """Check that the jobs to which a folder was last handed have ended.

    Raises:
        InputError: they have not.
        ClusterError: SLURM does not answer.
    """
    path = out / LOGS / RECORD
    if not path.exists() or not has_slurm():  # without SLURM there is no one to ask
        return
    array, end = read_json(path)
    state = wait_for_state(end, f"expected an answer (if it has ended: remove {path})")
    if state.alive:
        raise InputError(
            f"{out}: jobs {array} and {end} have this folder ({state.state}): expected them to "
            f"end first (scancel {array} {end})"
        )
