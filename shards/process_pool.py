"""Independent jobs on several processes of this machine, none of which is lost in silence or left
behind."""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar

from shards.errors import DataError

Job = TypeVar("Job")
Done = TypeVar("Done")

LOOK_SECONDS = 0.3  # between two looks at how far the jobs under way are
PR_SET_PDEATHSIG = 1  # prctl's: which signal to get when the parent dies

on_piece: Callable[[], object] | None = None  # what a job's `tick` does in this process


def tick() -> None:
    """Said by a job: one more piece of it is done."""
    if on_piece:
        on_piece()


def run_in_processes(
    work: Callable[[Job], Done],
    jobs: list[Job],
    processes: int,
    on_tick: Callable[[int], object] = lambda _: None,
) -> Iterator[Done]:
    """`work` of each job, in the order in which they are done; in this process if one will do.

    Args:
        work: done once for each job; it may call `tick` on its way.
        jobs: what to do.
        processes: at the same time, at most.
        on_tick: told, now and then, how often `tick` was called since it was last told.

    Raises:
        DataError: a process died (of memory, most often).
        Whatever `work` raises.
    """
    if min(processes, len(jobs)) < 2:
        begin(lambda: on_tick(1))
        yield from map(work, jobs)
        return
    # fork, not spawn: each new interpreter would spend seconds importing torch, which no job here
    # uses
    context = multiprocessing.get_context("fork")
    count = context.Value("q", 0)
    reported = 0
    pool = ProcessPoolExecutor(
        min(processes, len(jobs)), context, initializer=begin_worker, initargs=(count, os.getpid())
    )
    try:
        waiting = {pool.submit(work, job) for job in jobs}
        while waiting:
            ended, waiting = wait(waiting, LOOK_SECONDS, FIRST_COMPLETED)
            reported, before = count.value, reported
            on_tick(reported - before)
            for future in ended:
                yield future.result()
    except BrokenProcessPool:
        raise DataError(
            f"one of {processes} processes died, of too little memory perhaps: try fewer (--procs)"
        ) from None
    except BaseException:
        # else Ctrl-C would wait for the jobs under way
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def begin(hook: Callable[[], object]) -> None:
    """What `tick` is to do."""
    global on_piece
    on_piece = hook


def increment(count: Any) -> None:
    """Of a number that processes share."""
    with count.get_lock():
        count.value += 1


def begin_worker(count: Any, parent: int) -> None:
    """Ctrl-C reaches the whole process group, and the parent ends the crew; a parent that was
    killed takes it along (on Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before it could be asked
            os.kill(os.getpid(), signal.SIGKILL)
    begin(partial(increment, count))
