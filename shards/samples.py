"""The format of a sample in a tar file. Its bytes depend only on the sample, and any tool for
WebDataset reads them.

A sample is a run of tar entries: KEY.json first, then KEY.000.jpg and so on. The json has the
offset of each JPEG after it, so that three frames of a local file can be read without the other
twenty-nine.
"""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import webdataset as wds

BLOCK = 512
END = bytes(2 * BLOCK)  # marks the end of a tar file
JSON_BYTES = 4096  # usually enough for the json entry with its header


def sample_bytes(key: str, about: dict[str, Any], jpegs: list[bytes]) -> bytes:
    """The bytes of a sample in a tar file. Samples can be concatenated in any order.

    Args:
        key: the sample's name. Must not have dots after its last slash, where webdataset would
            cut it.
        about: content of the json entry.
        jpegs: the frames.
    """
    entries, places, position = [], [], 0
    for number, jpeg in enumerate(jpegs):
        header = tar_header(f"{key}.{number:03d}.jpg", len(jpeg))
        places.append((position + len(header), len(jpeg)))
        entries += [header, padded(jpeg)]
        position += sum(map(len, entries[-2:]))
    note = json.dumps({"key": key, **about, "jpegs": places}).encode()
    return b"".join([tar_header(f"{key}.json", len(note)), padded(note), *entries])


def tar_header(name: str, size: int) -> bytes:
    """A file's tar header: one block, or three if the name is long or not ASCII."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padded(content: bytes) -> bytes:
    """Pad with zeros to whole blocks."""
    return content + bytes(-len(content) % BLOCK)


def iterate_samples(file: IO[bytes], name: str) -> Iterator[dict[str, Any]]:
    """Yield the samples from the current position of `file` on, as webdataset groups them; raises
    tarfile's errors if the file is damaged."""
    entries = ({**entry, "__url__": name} for entry in wds.tariterators.tar_file_iterator(file))
    yield from wds.tariterators.group_by_keys(entries, lcase=False)


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of a tar file, in order."""
    with path.open("rb") as file:
        yield from iterate_samples(file, str(path))


def parse_note(head: bytes) -> tuple[dict[str, Any], int]:
    """The json at the beginning of a sample, and the length of its tar entry in bytes, headers and
    padding included.

    Args:
        head: the sample's first bytes.

    Raises:
        NeedMoreError: `head` is too short; says how many bytes are needed.
        ValueError: `head` is not the beginning of a sample.
    """
    position, size, kind = 0, 0, tarfile.XHDTYPE
    while kind == tarfile.XHDTYPE:  # a long name is in a separate entry before the file's entry
        header, start = head[position : position + BLOCK], position + BLOCK
        if header[257:262] != b"ustar":
            raise ValueError("no tar header where the manifest says a sample begins")
        kind, size = header[156:157], int(header[124:135], 8)
        position = start + size + -size % BLOCK
        if position > len(head):
            raise NeedMoreError(position + JSON_BYTES)
    note = json.loads(head[start : start + size])
    if not isinstance(note, dict) or "jpegs" not in note:
        raise ValueError("no sample begins there")
    return note, position


class NeedMoreError(Exception):
    """More bytes are needed; their number is the argument."""
