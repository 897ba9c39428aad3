"""The places that shards are read from: a folder, a web server, or the output of a command.

Connections break, so reading is resumed at the byte where it stopped, a few times; then an error
names file and byte.
"""

import io
import os
import re
import select
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import quote

from shards.errors import DataError
from shards.manifest import NAME, Manifest, parse_manifest, read_manifest

TRIES = 5  # attempts without a single new byte
STALL_SECONDS = 30.0  # time without a byte after which the connection is closed
BACKOFF_SECONDS = 0.5  # wait before the second attempt; doubled before each further one
RETRIED = {408, 425, 429, 500, 502, 503, 504}  # HTTP errors after which another try may succeed


class Store(ABC):
    """A place with the manifest and the shards of a data set."""

    @abstractmethod
    def manifest(self) -> Manifest:
        """Read the manifest."""

    @abstractmethod
    def open(self, name: str, start: int, stop: int, size: int) -> IO[bytes]:
        """Open the bytes from `start` to before `stop` of a file of `size` bytes."""

    @abstractmethod
    def location(self, name: str) -> str:
        """A file's full name, for error messages."""


def open_store(data: str | Path) -> Store:
    """The store that `--data` names: a folder, `http(s)://HOST/FOLDER`, or `pipe:COMMAND` in which
    `{}` stands for the file's name."""
    text = str(data)
    if text.startswith("pipe:"):
        if "{}" not in text:
            raise DataError(
                f"data {text!r}: expected {{}} in the command, for the file's name: pipe:cat "
                f"/data/{{}}"
            )
        return PipeStore(text.removeprefix("pipe:"))
    if text.startswith(("http:/", "https:/")):
        return WebStore(text)
    return FolderStore(Path(data))


class FolderStore(Store):
    """A local folder or a network folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def manifest(self) -> Manifest:
        """Read the manifest; DataError unless every shard has its full size."""
        manifest = read_manifest(self.folder)
        for shard in manifest.shards:
            path = self.folder / shard.name
            size = path.stat().st_size if path.exists() else None
            if size != shard.bytes:
                raise DataError(
                    f"shard {path}: {'missing' if size is None else f'{size} bytes'}: the manifest "
                    f"says {shard.bytes} bytes"
                )
        return manifest

    def open(self, name: str, start: int, stop: int, size: int) -> IO[bytes]:
        """Open the file at the byte `start`; it does not end at `stop`."""
        file = (self.folder / name).open("rb")
        file.seek(start)
        return file

    def location(self, name: str) -> str:
        """The file's path."""
        return str(self.folder / name)


class WebStore(Store):
    """A folder of a web server."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def manifest(self) -> Manifest:
        """Read the manifest."""
        location = self.location(NAME)
        return parse_manifest(
            Resumed(lambda byte: web_bytes(location, byte, None, None), location, None).read(),
            location,
        )

    def open(self, name: str, start: int, stop: int, size: int) -> IO[bytes]:
        """Open a range of bytes; a server without ranges sends the bytes before it, too."""
        location = self.location(name)
        return io.BufferedReader(
            Resumed(
                lambda byte: web_bytes(location, start + byte, stop, size),
                location,
                stop - start,
                start,
            ),
            1 << 20,
        )

    def location(self, name: str) -> str:
        """The file's URL."""
        return f"{self.url}/{quote(name)}"


class PipeStore(Store):
    """The output of a command, such as an object store's client."""

    def __init__(self, command: str) -> None:
        self.command = command

    def manifest(self) -> Manifest:
        """Read the manifest."""
        return parse_manifest(
            Resumed(
                lambda byte: PipeBytes(self.location(NAME), byte), self.location(NAME), None
            ).read(),
            self.location(NAME),
        )

    def open(self, name: str, start: int, stop: int, size: int) -> IO[bytes]:
        """Open a range of bytes; the command prints the bytes before it, too."""
        location = self.location(name)
        return io.BufferedReader(
            Resumed(lambda byte: PipeBytes(location, start + byte), location, stop - start, start),
            1 << 20,
        )

    def location(self, name: str) -> str:
        """The command that prints the file."""
        return f"pipe:{self.command.replace('{}', shlex.quote(name))}"


class Source(Protocol):
    """An open connection."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of the buffer; return the number of bytes, 0 at the end."""

    def close(self) -> None:
        """Close the connection."""


class BrokenError(OSError):
    """A connection broke; another attempt may succeed."""


class Resumed(io.RawIOBase):
    """Bytes of a source that is opened again where it broke.

    Raises, when read:
        DataError: it broke too often at the same byte, or can't be read; the message names the
                file and the byte.
    """

    def __init__(
        self, reopen: Callable[[int], Source], location: str, length: int | None, first: int = 0
    ) -> None:
        """Read `length` bytes, or with None up to the source's end.

        Args:
            reopen: opens the source at a byte.
            location: full name of the file, for error messages.
            length: number of bytes to read.
            first: offset in the file of byte 0, for error messages.
        """
        self.reopen, self.location, self.length, self.first = reopen, location, length, first
        self.position = self.failures = 0
        self.source: Source | None = None

    def readable(self) -> bool:
        """Always True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read some more bytes, and open the source again if it breaks."""
        buffer = memoryview(buffer).cast("B")
        if self.length is not None:
            buffer = buffer[: self.length - self.position]
        while len(buffer):
            try:
                self.source = self.source or self.reopen(self.position)
                count = self.source.readinto(buffer)
                if count == 0 and self.length is not None:
                    raise BrokenError(f"ended after {self.position} of {self.length} bytes")
            # TimeoutError, refused connections and resets are OSErrors
            except (OSError, HTTPException) as error:
                self.retry(error)
                continue
            self.position, self.failures = self.position + count, 0 if count else self.failures
            return count
        return 0

    def retry(self, error: Exception) -> None:
        """Wait before the next attempt; DataError if there were too many."""
        self.drop()
        self.failures += 1
        if self.failures >= TRIES:
            text = str(getattr(error, "reason", None) or error) or type(error).__name__
            raise DataError(
                f"{self.location}: byte {self.first + self.position}: {text} ({TRIES} tries)"
            ) from None
        time.sleep(BACKOFF_SECONDS * 2 ** (self.failures - 1))

    def drop(self) -> None:
        """Close the current connection, if any."""
        source, self.source = self.source, None
        if source:
            source.close()

    def close(self) -> None:
        """Close the stream and its connection."""
        self.drop()
        super().close()


class WebBytes:
    """The body of an HTTP response, which must have the length that its header says."""

    def __init__(self, answer: HTTPResponse | io.BytesIO, left: int | None) -> None:
        self.answer, self.left = answer, left

    def readinto(self, buffer: memoryview) -> int:
        """Read some more bytes."""
        # read1 returns what has arrived, so that nothing is lost if no more arrives
        content = self.answer.read1(min(len(buffer), 1 << 18))
        if self.left is not None:
            self.left -= len(content)
            if not content and self.left > 0:
                raise BrokenError(f"the connection ended {self.left} bytes early")
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        """Close the connection."""
        self.answer.close()


def web_bytes(url: str, start: int, stop: int | None, size: int | None) -> WebBytes:
    """Open the bytes from `start` to before `stop` of a URL.

    Raises:
        DataError: the server says that it has no such file, or one of another size.
        OSError: any failure after which another attempt may succeed.
    """
    wanted = f"bytes={start}-{'' if stop is None else stop - 1}"
    request = urllib.request.Request(
        url, headers={"Range": wanted, "Accept-Encoding": "identity", "User-Agent": "corrflow"}
    )
    try:
        answer = urllib.request.urlopen(request, timeout=STALL_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and stop is None:  # the file ended where the last attempt stopped
            return WebBytes(io.BytesIO(), 0)
        if error.code == 416 and error.headers["Content-Range"]:
            check_size(url, range_of(error.headers["Content-Range"])[1], size)
        if error.code in RETRIED:
            raise BrokenError(f"HTTP {error.code} {error.reason}") from None
        raise DataError(f"{url}: byte {start}: HTTP {error.code} {error.reason}") from None
    partial = answer.status == 206
    length = int(answer.headers["Content-Length"]) if answer.headers["Content-Length"] else None
    first, whole = range_of(answer.headers["Content-Range"]) if partial else (0, length)
    body = WebBytes(answer, length)
    try:
        check_size(url, whole, size)
        if first > start:
            raise BrokenError(f"the server answered from byte {first} on")
        skip(body, start - first)
    except BaseException:
        body.close()
        raise
    return body


def range_of(header: str | None) -> tuple[int, int | None]:
    """Parse `Content-Range: bytes 5-9/20` to its first byte and the file's size; BrokenError if it
    is malformed."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", header or "")
    if not match:
        raise BrokenError(f"the server answered with the range {header!r}")
    return int(match[1] or 0), None if match[2] == "*" else int(match[2])


def check_size(url: str, actual: int | None, expected: int | None) -> None:
    """DataError if both sizes are known and differ."""
    if actual is not None and expected is not None and actual != expected:
        raise DataError(f"shard {url}: {actual} bytes: the manifest says {expected} bytes")


class PipeBytes:
    """The output of a command from the byte `start` on."""

    def __init__(self, location: str, start: int) -> None:
        self.process = subprocess.Popen(
            location.removeprefix("pipe:"),
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        try:
            skip(self, start)
        except BaseException:
            self.close()
            raise

    def readinto(self, buffer: memoryview) -> int:
        """Read some more bytes."""
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], STALL_SECONDS)
        if not ready:
            raise TimeoutError(f"no byte in {STALL_SECONDS:.0f} s")
        content = os.read(self.process.stdout.fileno(), min(len(buffer), 1 << 18))
        if not content and (code := self.exit_code()):
            raise BrokenError(f"the command ended with exit code {code}")
        buffer[: len(content)] = content
        return len(content)

    def exit_code(self) -> int:
        """Exit code of the command, which has closed its output."""
        try:
            return self.process.wait(STALL_SECONDS)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"the command closed its output and did not end in {STALL_SECONDS:.0f} s"
            ) from None

    def close(self) -> None:
        """Stop the command."""
        assert self.process.stdout
        self.process.stdout.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, 9)
        self.process.wait()


def skip(source: Source, count: int) -> None:
    """Read and discard `count` bytes."""
    buffer = memoryview(bytearray(1 << 18))
    while count:
        got = source.readinto(buffer[: min(count, len(buffer))])
        if not got:
            raise BrokenError(f"ended {count} bytes before what is wanted")
        count -= got
