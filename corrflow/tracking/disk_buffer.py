"""Buffers for what does not fit in memory: records in a temporary file beside the output, and
compressed masks."""

import io
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from corrflow.pictures import Pixels

# 0.1 to 0.2 MB for a frame of 480x854; lossless compression would take ten times as much
JPEG = {
    "quality": 95,
    "subsampling": 0,
}


class DiskBuffer:
    """Records on disk, written once and read by number in any order. The file has no name, so it
    disappears however the process ends."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self.end, self.indices = 0, dict[int, tuple[int, int]]()
        """The end of the file, and the begin and end of each record in it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.file.close()

    def __len__(self) -> int:
        return len(self.indices)

    def __contains__(self, number: int) -> bool:
        return number in self.indices

    def __setitem__(self, number: int, record: bytes) -> None:
        self.file.seek(self.end)
        self.file.write(record)
        self.indices[number] = self.end, self.end + len(record)
        self.end += len(record)

    def __getitem__(self, number: int) -> bytes:
        start, end = self.indices[number]
        self.file.seek(start)
        return self.file.read(end - start)


class CompressedMasks(Mapping[int, Pixels]):
    """Masks by frame number, compressed so that those of a whole video fit in memory."""

    def __init__(self, height: int, width: int) -> None:
        self.shape = (height, width)
        self.packed: dict[int, bytes] = {}

    def __setitem__(self, number: int, labels_hw: Pixels) -> None:
        self.packed[number] = pack_labels(labels_hw)

    def __getitem__(self, number: int) -> Pixels:
        return unpack_labels(self.packed[number], self.shape)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self.packed))

    def __len__(self) -> int:
        return len(self.packed)


def pack_labels(labels_hw: Pixels) -> bytes:
    """Compress labels to a few kilobytes."""
    return zlib.compress(np.ascontiguousarray(labels_hw).tobytes(), level=1)


def unpack_labels(packed: bytes, shape: tuple[int, int]) -> Pixels:
    """The inverse of `pack_labels`."""
    return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape).copy()


def pack_frame(pixels_hw3: Pixels) -> bytes:
    """Compress a frame as JPEG of high quality."""
    out = io.BytesIO()
    Image.fromarray(pixels_hw3).save(out, "JPEG", **JPEG)
    return out.getvalue()


def unpack_frame(packed: bytes) -> Pixels:
    """The inverse of `pack_frame`, apart from JPEG's losses."""
    with Image.open(io.BytesIO(packed)) as image:
        return np.array(image)
