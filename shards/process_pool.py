"""Runs independent jobs in several processes on this machine. If a process dies, an error is
raised, and no process is left behind."""

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

LOOK_SECONDS = 0.3  # how often the progress of running jobs is checked
PR_SET_PDEATHSIG = 1  # option of prctl: the signal to get when the parent dies

on_piece: Callable[[], object] | None = None  # what a job's `tick` calls in this process


def tick() -> None:
    """Report that one more piece of a job is done; called by jobs."""
    if on_piece:
        on_piece()


def run_in_processes(
    work: Callable[[Job], Done],
    jobs: list[Job],
    processes: int,
    on_tick: Callable[[int], object] = lambda _: None,
) -> Iterator[Done]:
    """Yield the results of `work` for each job, in the order in which jobs end. A single job or a
    single process runs in this process.

    Args:
        work: called once for each job; it may call `tick` as it goes on.
        jobs: the arguments of `work`.
        processes: the largest number of processes at the same time.
        on_tick: called from time to time with the number of calls of `tick` since the last time.

    Raises:
        DataError: a process died, most often from too little memory.
        Exception: whatever `work` raises.
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
            f"one of {processes} processes died, perhaps of too little memory: try fewer (--procs)"
        ) from None
    except BaseException:
        # otherwise Ctrl-C would wait for the running jobs
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def begin(hook: Callable[[], object]) -> None:
    """Set what `tick` calls in this process."""
    global on_piece
    on_piece = hook


def increment(count: Any) -> None:
    """Add 1 to a number that processes share."""
    with count.get_lock():
        count.value += 1


def begin_worker(count: Any, parent: int) -> None:
    """Set up a worker process. It ignores Ctrl-C, which reaches the whole process group, because
    the parent ends its workers; on Linux it is killed when its parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before prctl was called
            os.kill(os.getpid(), signal.SIGKILL)
    begin(partial(increment, count))
