"""Being told to stop: a signal sets a flag, and the work looks at it where it can leave in
order."""

import signal
from types import FrameType


class SignalHandler:
    """Set, within a `with` block, by SIGINT (Ctrl-C), SIGTERM or SIGUSR2 (SLURM's word before a
    time limit or a preemption); a second SIGINT ends the process at once."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __enter__(self) -> "SignalHandler":
        """Take over the signals, from the main thread."""
        self.before = {
            number: signal.signal(number, self.receive)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
        }
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def receive(self, number: int, _: FrameType | None) -> None:
        """The handler: no work is done here."""
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """What a process ended by this signal is expected to return."""
        return 128 + self.number if self.number is not None else 0
