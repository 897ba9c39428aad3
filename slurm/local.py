"""Several processes of one command on this machine, each told its place by the variables that
torchrun sets."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

GRACE_SECONDS = 20.0  # from one process's death, or a signal to them, until those left are killed
POLL_SECONDS = 0.1
# for the others to end by themselves once one has failed, and to say why; seldom all of it
SETTLE_SECONDS = 5.0
PASSED_ON = (signal.SIGINT, signal.SIGTERM)
PR_SET_PDEATHSIG = 1  # prctl's: which signal to get when the parent dies
PARENT = "CORRFLOW_PARENT_PID"


def is_worker_process() -> bool:
    """Whether this process was started as one of several."""
    return "RANK" in os.environ


def die_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the parent dies, even by -9, so that no process is left
    behind (Linux alone has this); exit if it has died already. An interrupt that `run_processes`
    held back until now is raised."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if os.uname().sysname != "Linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    parent = os.getppid()
    if os.environ.get(PARENT, str(parent)) != str(parent):
        raise SystemExit(128 + signal.SIGTERM)


def run_processes(command: list[str], count: int) -> int:
    """Run `count` processes of `command` until all have ended; signals to this one are passed on to
    them.

    When one fails the others are told to stop, and killed if they don't. Ctrl-C reaches each once
    it calls `die_with_parent`: before, it only imports, and would end with a traceback of that.

    Returns:
        0; or 2 if any found a mistake of the user's, else the exit code of one that failed.
    """
    port = free_port()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the processes have it, too
    processes = [
        subprocess.Popen(command, env=place(rank, count, port), start_new_session=True)
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
    """Wait until all have ended well, or one has failed."""
    while True:
        codes = [process.poll() for process in processes]
        failed = [code for code in codes if code]
        if failed:
            tell_killed(codes)
            # one's failure breaks the others' collectives: the mistake itself is to be told
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


def tell_killed(codes: list[int | None]) -> None:
    """A line for each process that had no time for one of its own."""
    for rank, code in enumerate(codes):
        if code is not None and code < 0 and -code not in PASSED_ON:
            reason = ": too little memory, perhaps" if code == -signal.SIGKILL else ""
            place = f"{os.path.basename(sys.argv[0])}: rank {rank}"
            name = signal.strsignal(-code)
            print(f"{place}: ended by signal {-code} ({name}){reason}", file=sys.stderr)


def end(processes: "list[subprocess.Popen[bytes]]") -> None:
    """Tell those that still run to stop, and kill those that don't in time."""
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


def place(rank: int, count: int, port: int) -> dict[str, str]:
    """The environment of one process."""
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
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
