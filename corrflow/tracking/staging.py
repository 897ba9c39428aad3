"""Publishes the result files of a video together.

They are written into a hidden folder beside their final paths. Publishing moves the table first,
and from then on the new files are the valid ones. A process that is killed before that leaves the
earlier files. One that is killed after it leaves the other moves to the next run, with a list of
them.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from corrflow.errors import InputError
from corrflow.files import atomic_file, content_digest

LIST = ".files"  # in the hidden folder: what remains to be done once the table is in place


class StagedFiles:
    """The result `NAME.mp4` and the files beside it, until they are published. If they are not
    published, they are deleted."""

    def __init__(self, out: Path, in_place: Mapping[str, str]) -> None:
        """Make the hidden folder. The caller ensures that no other process uses it.

        Args:
            out: the final path of the video.
            in_place: digests of the files that existed when the results were planned, by path
                relative to the folder of `out`.
        """
        self.home, self.in_place = out.parent, in_place
        self.table = out.with_suffix(".json").name
        self.folder, self.complete = hidden(out, "tmp"), hidden(out, "new")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.out = self.folder / out.name
        """The path of `out` in the hidden folder."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def publish(self, in_table: Collection[str], stale: Collection[str]) -> None:
        """Move all files to their final paths, the table first.

        Args:
            in_table: the files that the table lists, some of which may be in place already.
            stale: files in place that are to be removed.

        Raises:
            InputError: a file can't be moved to its path, or one was changed since the results were
                planned. Nothing is published then.
        """
        names = [*names_in(self.folder)]
        check_places(self.home, [self.home / name for name in (*names, *stale)])
        self.check_unchanged({*names, *in_table, *stale})
        listed = {
            "table": content_digest(self.folder / self.table),
            "new": {name: self.in_place.get(name) for name in names},
            "stale": {name: self.in_place[name] for name in stale},
        }
        with atomic_file(self.folder / LIST) as file:
            file.write(json.dumps(listed).encode())
        shutil.rmtree(self.complete, ignore_errors=True)
        self.folder.replace(self.complete)
        (self.complete / self.table).replace(self.home / self.table)
        complete_publishing(self.home / self.out.name)

    def check_unchanged(self, names: Iterable[str]) -> None:
        """Raise InputError if a file is not as it was when the results were planned."""
        for name in sorted(names):
            path = self.home / name
            if digest_at(path) != self.in_place.get(name):
                raise InputError(
                    f"{path}: was changed while the video was tracked: expected it as it was; "
                    "nothing was written, so give the same command again"
                )


def hidden(out: Path, state: str) -> Path:
    """The hidden folder for the files of a video; `state` is `tmp` or `new`."""
    return out.with_name(f".{out.stem}.{state}")


def names_in(folder: Path) -> Iterator[str]:
    """The paths of all files below a folder, relative to it, as `part/file`."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix()


def digests_below(home: Path, path: Path) -> dict[str, str]:
    """Digests of a file or of all files below a folder, by path relative to `home`; empty if
    nothing exists there."""
    files = [path] if path.is_file() else [path / name for name in names_in(path)]
    return {file.relative_to(home).as_posix(): content_digest(file) for file in files}


def digest_at(path: Path) -> str | None:
    """The digest of a file; None if there is no file."""
    return content_digest(path) if path.is_file() else None


def check_places(home: Path, files: Iterable[Path], folders: Iterable[Path] = ()) -> None:
    """Raise InputError if files can't be moved from the hidden folder to their paths in one step.

    Args:
        home: the folder that holds the hidden folder.
        files: final paths of files, in `home` or below.
        folders: folders in which other files are to be written.
    """
    files = list(files)
    for path in files:
        if path.is_dir():
            raise InputError(f"{path}: is a folder: expected a file, or none")
    device = nearest(home).stat().st_dev
    for path in sorted({home, *folders, *(file.parent for file in files)}):
        folder = nearest(path)
        if not folder.is_dir():
            raise InputError(f"{folder}: is not a folder: expected one, or nothing of that name")
        if folder.stat().st_dev != device:
            raise InputError(f"{folder}: is on another file system than {home}: expected the same")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{folder}: can't be written to: expected a folder that can")


def nearest(folder: Path) -> Path:
    """The path itself if it exists, or the nearest of its parents that does."""
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def is_publishing(out: Path) -> bool:
    """Whether a run was killed while it published its files."""
    return hidden(out, "new").is_dir()


def complete_publishing(out: Path) -> None:
    """Complete the publishing that a killed run began.

    If the table in place belongs to the waiting files, these are moved to their paths and stale
    files are removed; files that were changed since stay. If it does not, the run was killed before
    its table was published, and the waiting files are deleted.
    """
    waiting = hidden(out, "new")
    if (waiting / LIST).is_file():
        listed = json.loads((waiting / LIST).read_text(encoding="utf-8"))
        if digest_at(out.with_suffix(".json")) == listed["table"]:
            move_files(waiting, out.parent, listed["new"])
            remove_stale(out.parent, listed["stale"])
    shutil.rmtree(waiting, ignore_errors=True)


def move_files(folder: Path, home: Path, before: Mapping[str, str | None]) -> None:
    """Move files from `folder` to the same names in `home`, except where the file there was changed
    since: `before` has its earlier digest, None if there was none."""
    for name, digest in before.items():
        path = home / name
        if (folder / name).is_file() and digest_at(path) in (None, digest):
            path.parent.mkdir(parents=True, exist_ok=True)
            (folder / name).replace(path)


def remove_stale(home: Path, stale: Mapping[str, str]) -> None:
    """Delete the stale files that were not changed since, and folders that are then empty."""
    for name, digest in stale.items():
        if digest_at(home / name) == digest:
            (home / name).unlink()
    folders = {folder for name in stale for folder in Path(name).parents if folder.name}
    for folder in sorted(folders, reverse=True):
        with suppress(OSError):  # the folder holds other files, or does not exist
            (home / folder).rmdir()
