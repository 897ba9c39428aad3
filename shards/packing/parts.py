"""Tar files that grow sample by sample, and from which the last ones can be taken back: a video may
turn out to be broken at its end."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from shards.files import named_errors, sha256_of
from shards.samples import END


class Place(NamedTuple):
    """Between two samples."""

    tar: int
    samples: int
    """In that tar file, before the place."""


@dataclass(frozen=True)
class TarPart:
    """A tar file that is whole."""

    name: str
    bytes: int
    sha256: str
    offsets: list[int]
    """Byte at which each sample begins, and the last one ends."""
    frames: list[int]
    """Of each sample."""
    short_sides: list[int]
    """Of each sample's frames, in pixels."""


class Growing:
    """A tar file in the making: where its samples begin, their frames and the size of those."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: IO[bytes] = path.open("wb")
        self.offsets, self.frames, self.short_sides = [0], list[int](), list[int]()


class PartWriter:
    """Tar files `STEM-000000.tar` and so on in `folder`, a new one begun when the last holds
    `limit` bytes.

    A `with` block that ends badly leaves none of them behind. An OSError names its file.
    """

    def __init__(self, folder: Path, stem: str, limit: float) -> None:
        self.folder, self.stem, self.limit = folder, stem, limit
        self.growing: list[Growing] = []

    def __enter__(self) -> "PartWriter":
        """Nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was not finished."""
        self.take_back(Place(0, 0))

    def write(self, sample: bytes, frames: int, short_side: int) -> None:
        """Put a sample behind the others: its bytes, its frames, their shorter side in pixels."""
        if not self.growing or self.growing[-1].offsets[-1] >= self.limit:
            name = f".{self.stem}-{len(self.growing):06d}.{os.getpid()}.tmp"
            self.growing.append(Growing(self.folder / name))
        tar = self.growing[-1]
        with named_errors(tar.path):
            tar.file.write(sample)
        tar.offsets.append(tar.offsets[-1] + len(sample))
        tar.frames.append(frames)
        tar.short_sides.append(short_side)

    def place(self) -> Place:
        """Where the next sample will come."""
        return Place(len(self.growing), len(self.growing[-1].frames) if self.growing else 0)

    def take_back(self, place: Place) -> None:
        """Forget the samples behind a place."""
        while len(self.growing) > place.tar:
            tar = self.growing.pop()
            tar.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # of a full disk, which was told already
                tar.file.close()
        if self.growing:
            tar = self.growing[-1]
            del tar.offsets[place.samples + 1 :]
            del tar.frames[place.samples :], tar.short_sides[place.samples :]
            tar.file.seek(tar.offsets[-1])
            tar.file.truncate()

    def finish(self) -> list[TarPart]:
        """End the tar files, and give them their names."""
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
