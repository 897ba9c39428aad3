"""The work of a job: a function by its dotted name, with plain arguments. Of the caller's objects,
only the arguments are pickled."""

import importlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from slurm.rendezvous import distributed_variables

# exit code (EX_TEMPFAIL) of a process that was told to stop: its job must be requeued
EXIT_REQUEUE = 75
EXIT_RECURRING = 3  # exit code of work that stopped itself for a reason that would recur
DONE_SUFFIX = ".done"  # suffix of the file, named after the job, that says that it is done
# exit codes after which a job is not requeued; 2 is a mistake of the user's
FINAL_EXIT_CODES = (0, 2, EXIT_RECURRING)


@dataclass(frozen=True)
class Task:
    """A function call for a job to make."""

    function: str
    """`package.module:name`."""
    arguments: dict[str, Any]

    def __call__(self) -> Any:
        """Import the function and call it."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)(**self.arguments)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Submit the same call again after a preemption or time limit; it resumes the work."""
        return submitit.helpers.DelayedSubmission(self)


@dataclass(frozen=True)
class DistributedTask:
    """A function call that all processes of a job make together; the function returns an exit code.

    It has no method `checkpoint`, because submitit would call it in a signal handler of rank 0
    only, where no collective can run. The function handles signals itself, and `requeue_lines`
    requeue the job.
    """

    task: Task

    def __call__(self) -> None:
        """Set the distributed environment variables, make the call, and exit with its code."""
        for number in (signal.SIGUSR2, signal.SIGTERM):
            # nothing needs saving while modules are imported
            signal.signal(number, lambda *_: os._exit(EXIT_REQUEUE))
        os.environ.update(distributed_variables())
        done = Path(os.environ["SUBMITIT_FOLDER"], f"{os.environ['SLURM_JOB_ID']}{DONE_SUFFIX}")
        code = self.task()
        sys.stdout.flush()
        sys.stderr.flush()
        if code in FINAL_EXIT_CODES:
            done.touch()
        if code:
            # os._exit, because Python's normal exit waits for connections to lost processes
            os._exit(code)


def start_lines(logs: Path) -> list[str]:
    """Shell lines before the job's command: remove the file with which an earlier attempt said that
    it was done. The job's processes can't do this, since one may start after another has ended."""
    return [f'rm -f "{logs}/$SLURM_JOB_ID{DONE_SUFFIX}"']


def requeue_lines(logs: Path) -> list[str]:
    """Shell lines after the job's command: requeue the job unless it is done.

    The file tells that it is done, because the exit code may not: srun returns the highest one,
    which may be that of processes that it killed. A cancelled job is no longer in state RUNNING, so
    it is not requeued. The controller may be busy or starting, so the request is repeated for a
    while.
    """
    return [
        "code=$?",
        f'[ -e "{logs}/$SLURM_JOB_ID{DONE_SUFFIX}" ] && exit $code',
        "for attempt in $(seq 30); do",
        '    state=$(squeue -hj "$SLURM_JOB_ID" -o %T) && '
        '{ [ "$state" = RUNNING ] || exit $code; }',
        '    scontrol requeue "$SLURM_JOB_ID" && break',
        "    sleep 5",
        "done",
        "exit $code",
    ]
