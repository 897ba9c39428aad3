"""Standard output, where commands print: its errors name it, as those of a file do, and every name
of a file can be printed."""

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from corrflow.files import named_errors

NAME = "standard output"


class NamedStream:
    """A stream; an OSError of writing to it names it."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self.stream, self.name = stream, Path(name)

    def __getattr__(self, attribute: str) -> Any:
        """All else is the stream's."""
        return getattr(self.stream, attribute)

    def write(self, text: str) -> int:
        """As the stream's."""
        with named_errors(self.name):
            return self.stream.write(text)

    def flush(self) -> None:
        """As the stream's."""
        with named_errors(self.name):
            self.stream.flush()


@contextlib.contextmanager
def named_standard_output() -> Iterator[None]:
    """Have errors of standard output, which is flushed at the end, name it. Where it is closed,
    what is printed goes nowhere."""
    with contextlib.ExitStack() as opened:
        stream = sys.stdout or opened.enter_context(Path(os.devnull).open("w"))
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        opened.enter_context(contextlib.redirect_stdout(cast(TextIO, NamedStream(stream, NAME))))
        try:
            yield
        finally:
            sys.stdout.flush()  # here, and not after the last line, where nobody catches anything


def is_reader_gone() -> bool:
    """Whether whoever reads what is printed has seen enough, as `head` has after a few lines."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def discard_standard_output() -> None:
    """Let what is still to be written go nowhere, lest Python's own end fail of it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
