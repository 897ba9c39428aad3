"""How tracking shows its progress on a terminal, and how Ctrl-C ends it."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from corrflow.progress import progress_bar

Item = TypeVar("Item")
# frames/s even if a frame takes more than a second, where tqdm would show s/frame
BAR = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, "
    "{rate_noinv_fmt}]"
)
INTERRUPTED = 130  # exit code, as shells have it: 128 + SIGINT


def bar(things: Iterable[Item], total: int, what: str, unit: str) -> Iterable[Item]:
    """A progress bar with frames or steps per second; in a log, an occasional line."""
    return progress_bar(things, total=total, unit=f" {unit}", desc=what, bar_format=BAR)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """A context in which the first Ctrl-C only asks to stop, and the second one raises
    KeyboardInterrupt. Yields a function that tells whether stopping was asked for."""
    asked = False

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print(
            "\ntrack.py: stopping as soon as all files are consistent; Ctrl-C again ends at once",
            file=sys.stderr,
            flush=True,
        )

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
