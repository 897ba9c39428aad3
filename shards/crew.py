"""Independent jobs on several processes of this machine, none of which is lost in silence or left behind."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from shards.errors import InputError

Job = TypeVar("Job")
Done = TypeVar("Done")


def run_crew(work: Callable[[Job], Done], jobs: list[Job], processes: int) -> Iterator[Done]:
    """`work` of each job, in the order in which they are done; in this process if one will do.

    Raises:
        InputError: a process died (of memory, most often).
        Whatever `work` raises.
    """
    if min(processes, len(jobs)) < 2:
        yield from map(work, jobs)
        return
    # fork, not spawn: each new interpreter would spend seconds importing torch, which no job here uses
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=leave_signals)
    try:
        for future in as_completed([pool.submit(work, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool:
        raise InputError(f"one of {processes} processes died, of too little memory perhaps: try fewer (--procs)") from None
    except BaseException:
        for process in multiprocessing.active_children():  # else Ctrl-C would wait for the jobs under way
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def leave_signals() -> None:
    """Ctrl-C reaches the whole process group; the parent ends the crew."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
