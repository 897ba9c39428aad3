"""Runs several processes of one command on this machine, with the environment variables that
torchrun sets."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

GRACE_SECONDS = 20.0  # between telling processes to stop and killing them
POLL_SECONDS = 0.1
# how long the other processes may take to end by themselves, and to report errors, after one has
# failed; usually they end sooner
SETTLE_SECONDS = 5.0
PASSED_ON = (signal.SIGINT, signal.SIGTERM)
PR_SET_PDEATHSIG = 1  # option of prctl: the signal to get when the parent dies
PARENT = "CORRFLOW_PARENT_PID"


def is_worker_process() -> bool:
    """Whether this process was started as one of several."""
    return "RANK" in os.environ


def die_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the parent dies, even by SIGKILL, so that no process is
    left behind (only on Linux); exit if the parent has died already. Also unblock SIGINT, which
    `run_processes` blocked, so that a pending Ctrl-C is raised now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if os.uname().sysname != "Linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    parent = os.getppid()
    if os.environ.get(PARENT, str(parent)) != str(parent):
        raise SystemExit(128 + signal.SIGTERM)


def run_processes(command: list[str], count: int) -> int:
    """Run `count` processes of `command` until all have ended; SIGINT and SIGTERM are passed on to
    them.

    When one fails, the others are told to stop, and killed if they don't. Ctrl-C takes effect in a
    process only when it calls `die_with_parent`; before that it is importing modules, and would end
    with a traceback.

    Returns:
        0 if all succeeded; 2 if any found a mistake of the user's; else the exit code of one that
        failed.
    """
    port = free_port()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited by the processes
    processes = [
        subprocess.Popen(command, env=rank_environment(rank, count, port), start_new_session=True)
        for rank in range(count)
    ]

    def pass_on(number: int, _: FrameType | None) -> None:
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        return watch(processes)
    finally:
        end(processes)
        for number, handler in before.items():
            signal.signal(number, handler)


def watch(processes: "list[subprocess.Popen[bytes]]") -> int:
    """Wait until all processes have succeeded, or one has failed; returns the exit code."""
    while True:
        codes = [process.poll() for process in processes]
        failed = [code for code in codes if code]
        if failed:
            report_killed(codes)
            # one failure breaks the others' collectives: wait for the code of the actual mistake
            deadline = time.monotonic() + SETTLE_SECONDS
            while None in [process.poll() for process in processes]:
                if time.monotonic() > deadline:
                    break
                time.sleep(POLL_SECONDS)
            failed = [code for process in processes if (code := process.poll())]
            return 2 if 2 in failed else (failed[0] if failed[0] > 0 else 128 - failed[0])
        if all(code == 0 for code in codes):
            return 0
        time.sleep(POLL_SECONDS)


def report_killed(codes: list[int | None]) -> None:
    """Print a line for each process that was killed, since it could not print one itself."""
    for rank, code in enumerate(codes):
        if code is not None and code < 0 and -code not in PASSED_ON:
            reason = ": too little memory, perhaps" if code == -signal.SIGKILL else ""
            where = f"{os.path.basename(sys.argv[0])}: rank {rank}"
            name = signal.strsignal(-code)
            print(f"{where}: ended by signal {-code} ({name}){reason}", file=sys.stderr)


def end(processes: "list[subprocess.Popen[bytes]]") -> None:
    """Tell running processes to stop, and kill those that don't in time."""
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def rank_environment(rank: int, count: int, port: int) -> dict[str, str]:
    """The environment of one process, with the variables of torch.distributed."""
    variables = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_PORT": port,
        PARENT: os.getpid(),
    }
    return {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        **{name: str(value) for name, value in variables.items()},
    }


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
