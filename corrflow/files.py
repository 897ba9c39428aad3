"""Atomic writes (temporary file in the same folder, flush, fsync, rename), and digests of files and
folders."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file for writing that appears as `path` only if the block ends without an
    error. An OSError names `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with named_errors(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def named_errors(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Make an OSError raised in the block name `path`. By itself, a failed write (to a full disk,
    for example) names no file, and an error on the temporary file names that file."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def content_digest(path: Path, files: Iterable[Path] | None = None) -> str:
    """A digest of a file's content, or of the names and contents of a folder's files.

    Args:
        path: the file or folder.
        files: the files of the folder to include; None for all.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    digest = hashlib.sha256()
    for part in sorted(part for part in files or path.rglob("*") if part.is_file()):
        digest.update(f"{part.relative_to(path)} {content_digest(part)}\n".encode())
    return digest.hexdigest()[:16]
