"""Tar files that grow sample by sample. The last samples can be removed again, because a video may
turn out to be broken at its end."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from shards.files import named_errors, sha256_of
from shards.samples import END


class Position(NamedTuple):
    """A position between two samples."""

    tar: int
    """How many tar files are begun."""
    samples: int
    """How many samples the last of them has before the position."""


@dataclass(frozen=True)
class TarPart:
    """A finished tar file."""

    name: str
    bytes: int
    sha256: str
    offsets: list[int]
    """Byte offset of each sample, and of the end of the last one."""
    frames: list[int]
    """Number of frames of each sample."""
    short_sides: list[int]
    """Shorter side of each sample's frames, in pixels."""


class UnfinishedTar:
    """An unfinished tar file, with the offsets, frame counts and frame sizes of its samples."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: IO[bytes] = path.open("wb")
        self.offsets, self.frames, self.short_sides = [0], list[int](), list[int]()


class PartWriter:
    """Writes tar files `STEM-000000.tar` and so on in `folder`, and begins a new one when the last
    has `limit` bytes.

    A `with` block that ends without `finish` leaves none of them behind. An OSError names its file.
    """

    def __init__(self, folder: Path, stem: str, limit: float) -> None:
        self.folder, self.stem, self.limit = folder, stem, limit
        self.growing: list[UnfinishedTar] = []

    def __enter__(self) -> "PartWriter":
        """Return the writer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove unfinished files."""
        self.truncate_to(Position(0, 0))

    def write(self, sample: bytes, frames: int, short_side: int) -> None:
        """Append a sample.

        Args:
            sample: its bytes.
            frames: its number of frames.
            short_side: the shorter side of its frames, in pixels.
        """
        if not self.growing or self.growing[-1].offsets[-1] >= self.limit:
            name = f".{self.stem}-{len(self.growing):06d}.{os.getpid()}.tmp"
            self.growing.append(UnfinishedTar(self.folder / name))
        tar = self.growing[-1]
        with named_errors(tar.path):
            tar.file.write(sample)
        tar.offsets.append(tar.offsets[-1] + len(sample))
        tar.frames.append(frames)
        tar.short_sides.append(short_side)

    def position(self) -> Position:
        """The current position, where the next sample will be written."""
        return Position(len(self.growing), len(self.growing[-1].frames) if self.growing else 0)

    def truncate_to(self, position: Position) -> None:
        """Remove the samples after a position."""
        while len(self.growing) > position.tar:
            tar = self.growing.pop()
            tar.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # from a full disk, which was reported already
                tar.file.close()
        if self.growing:
            tar = self.growing[-1]
            del tar.offsets[position.samples + 1 :]
            del tar.frames[position.samples :], tar.short_sides[position.samples :]
            tar.file.seek(tar.offsets[-1])
            tar.file.truncate()

    def finish(self) -> list[TarPart]:
        """Finish the tar files, and rename them to their final names."""
        parts = []
        for number, tar in enumerate(self.growing):
            with named_errors(tar.path), tar.file as file:
                file.write(END)
                file.flush()
                os.fsync(file.fileno())
            name = f"{self.stem}-{number:06d}.tar"
            size, sha256 = tar.offsets[-1] + len(END), sha256_of(tar.path)
            parts.append(TarPart(name, size, sha256, tar.offsets, tar.frames, tar.short_sides))
            tar.path.replace(self.folder / name)
        self.growing = []
        return parts
