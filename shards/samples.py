"""How samples lie in a tar file: written so that the bytes depend on the samples alone, read as webdataset groups them."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import webdataset as wds


def tar_writer(file: IO[bytes]) -> wds.TarWriter:
    """A writer of samples, dicts of bytes with a `__key__`. A whole number as mtime, since a float costs a PAX header a file."""
    return wds.TarWriter(file, user="", group="", mtime=0, encoder=False)


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """The samples of a tar file, in order; raises what tarfile raises where it is damaged."""
    with path.open("rb") as file:
        entries = ({**entry, "__url__": str(path)} for entry in wds.tariterators.tar_file_iterator(file))
        yield from wds.tariterators.group_by_keys(entries, lcase=False)
