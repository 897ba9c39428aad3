"""Standard output of the commands: errors of writing to it name it, as a file's errors do, and any
file name can be printed."""

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
    """Wraps a stream so that an OSError of writing names it."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self.stream, self.name = stream, Path(name)

    def __getattr__(self, attribute: str) -> Any:
        """Pass everything else to the stream."""
        return getattr(self.stream, attribute)

    def write(self, text: str) -> int:
        """Write to the stream."""
        with named_errors(self.name):
            return self.stream.write(text)

    def flush(self) -> None:
        """Flush the stream."""
        with named_errors(self.name):
            self.stream.flush()


@contextlib.contextmanager
def named_standard_output() -> Iterator[None]:
    """Make errors of standard output name it, and flush it at the end. If it is closed, discard
    what is printed."""
    with contextlib.ExitStack() as opened:
        stream = sys.stdout or opened.enter_context(Path(os.devnull).open("w"))
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        opened.enter_context(contextlib.redirect_stdout(cast(TextIO, NamedStream(stream, NAME))))
        try:
            yield
        finally:
            sys.stdout.flush()  # here, since nothing catches errors of Python's own flush at exit


def is_reader_gone() -> bool:
    """Whether the reader of a pipe has closed it, as `head` does after a few lines."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def discard_standard_output() -> None:
    """Discard what is still to be written, so that Python's own flush at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
