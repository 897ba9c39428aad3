"""Stopping by a signal: it sets a flag, which the work checks where it can stop cleanly."""

import signal
from types import FrameType


class SignalHandler:
    """A flag that is set, within a `with` block, by SIGINT (Ctrl-C), SIGTERM or SIGUSR2 (SLURM's
    signal before a time limit or a preemption). A SIGINT after any earlier signal ends the process
    at once."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __enter__(self) -> "SignalHandler":
        """Install the handlers; only the main thread can."""
        self.before = {
            number: signal.signal(number, self.receive)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
        }
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the previous handlers."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def receive(self, number: int, _: FrameType | None) -> None:
        """Handle a signal: only set the flag."""
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """The exit code of a process that stops for this signal; 0 if there was none."""
        return 128 + self.number if self.number is not None else 0
