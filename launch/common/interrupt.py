"""Ctrl-C while a command imports its modules, which takes seconds: there is nothing to save, and
the traceback would be of somebody else's import."""

import os
import signal
from types import FrameType

EXIT_INTERRUPTED = 128 + signal.SIGINT


def leave_quietly() -> None:
    """Let Ctrl-C end the process without a word, until `expect_interrupts`; unless it is ignored,
    as of a command that a script has put in the background."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)


def expect_interrupts() -> None:
    """Let Ctrl-C be a KeyboardInterrupt from here on, where there is somebody to catch it."""
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def leave(number: int, _: FrameType | None) -> None:
    """The handler: at once, as what is half imported can't be asked to end in order."""
    os._exit(EXIT_INTERRUPTED)
