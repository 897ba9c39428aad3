"""What a job runs: a function by its dotted name, with plain arguments. Nothing of the caller's is
pickled but those."""

import importlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from slurm.rendezvous import distributed_variables

# exit code (EX_TEMPFAIL) of a process that was told to leave: its job is to go back into the queue
EXIT_REQUEUE = 75
EXIT_RECURRING = 3  # exit code of work that stopped itself for a reason that would come again
DONE_SUFFIX = ".over"  # suffix of the file, named by the job, that says so
# exit codes after which a job stays out of the queue; 2 is a mistake of the user's
FINAL_EXIT_CODES = (0, 2, EXIT_RECURRING)


@dataclass(frozen=True)
class Task:
    """A call that a job makes."""

    function: str
    """`package.module:name`."""
    arguments: dict[str, Any]

    def __call__(self) -> Any:
        """Make it."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)(**self.arguments)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Preempted or out of time: the same call again, which goes on where this one was cut."""
        return submitit.helpers.DelayedSubmission(self)


@dataclass(frozen=True)
class DistributedTask:
    """A call that all processes of a job make together; the function returns an exit code.

    submitit would run a checkpoint within the signal handler, of rank 0 alone, where no collective
    can run. So it is not asked: signals are the function's own affair, and `requeue_lines` bring
    the job back.
    """

    task: Task

    def __call__(self) -> None:
        """Tell the process its place, make the call, end with its code."""
        for number in (signal.SIGUSR2, signal.SIGTERM):
            # while modules are imported there is nothing to save
            signal.signal(number, lambda *_: os._exit(EXIT_REQUEUE))
        os.environ.update(distributed_variables())
        over = Path(os.environ["SUBMITIT_FOLDER"], f"{os.environ['SLURM_JOB_ID']}{DONE_SUFFIX}")
        code = self.task()
        sys.stdout.flush()
        sys.stderr.flush()
        if code in FINAL_EXIT_CODES:
            over.touch()
        if code:
            # at once: Python's own end waits for connections to processes that are lost
            os._exit(code)


def start_lines(logs: Path) -> list[str]:
    """Shell lines before the job's command: what an earlier try said of its end does not count. Its
    processes could not see to it, since one may start when another has ended already."""
    return [f'rm -f "{logs}/$SLURM_JOB_ID{DONE_SUFFIX}"']


def requeue_lines(logs: Path) -> list[str]:
    """Shell lines after the job's command: whatever ended it, if it may be better the next time, it
    goes back into the queue.

    The file says what the exit code may not: srun tells the highest, that of processes it had to
    kill. A job that was cancelled is not running any more, and stays away. The controller may be
    busy or starting: it is asked for a while.
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
