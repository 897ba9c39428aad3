"""Files that appear together: they are written into a hidden folder beside their places, and the
table, which goes to its place first, says that they are the ones. Who is killed before that leaves
what was there; who is killed after it leaves the rest to the next run, with a list of it."""

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

LIST = ".files"  # in the hidden folder: what is to be done when the table is in its place


class StagedFiles:
    """The results `NAME.mp4` and what lies beside it, until they are published; left unpublished,
    they leave nothing."""

    def __init__(self, out: Path, in_place: Mapping[str, str]) -> None:
        """Make the hidden folder, which no other process may use: the caller sees to it.

        Args:
            out: the video that is to appear.
            in_place: digests of the files that were there when the results were planned, by their
                paths beside `out`.
        """
        self.home, self.in_place = out.parent, in_place
        self.table = out.with_suffix(".json").name
        self.folder, self.complete = hidden(out, "tmp"), hidden(out, "new")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.out = self.folder / out.name
        """`out` as long as it is hidden."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def publish(self, told: Collection[str], stale: Collection[str]) -> None:
        """Give all files their names, the table first.

        Args:
            told: the files that the table tells of, some of which may be in place already.
            stale: files in place that go.

        Raises:
            InputError: a file can't get its name, or somebody has changed one since the results
                were planned; nothing is published.
        """
        names = [*names_in(self.folder)]
        check_places(self.home, [self.home / name for name in (*names, *stale)])
        self.check_unchanged({*names, *told, *stale})
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
        """InputError for a file that is no longer as it was when the results were planned."""
        for name in sorted(names):
            path = self.home / name
            if digest_at(path) != self.in_place.get(name):
                raise InputError(
                    f"{path}: was changed while the video was tracked: expected it as it was; "
                    "nothing was written, so give the same command again"
                )


def hidden(out: Path, state: str) -> Path:
    """The folder in which files of a video wait."""
    return out.with_name(f".{out.stem}.{state}")


def names_in(folder: Path) -> Iterator[str]:
    """Of all files of a folder, as `part/file`."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix()


def digests_below(home: Path, path: Path) -> dict[str, str]:
    """Of a file, or of all files of a folder, by their paths below `home`; none where nothing
    is."""
    files = [path] if path.is_file() else [path / name for name in names_in(path)]
    return {file.relative_to(home).as_posix(): content_digest(file) for file in files}


def digest_at(path: Path) -> str | None:
    """Of the file that is there, if one is."""
    return content_digest(path) if path.is_file() else None


def check_places(home: Path, files: Iterable[Path], folders: Iterable[Path] = ()) -> None:
    """InputError where files can't get their names in one step.

    Args:
        home: where the hidden folder is.
        files: that are to appear, there or below.
        folders: that are to hold others.
    """
    files = list(files)
    for path in files:
        if path.is_dir():
            raise InputError(f"{path}: is a folder: expected a file, or none")
    device = nearest(home).stat().st_dev
    for path in sorted({home, *folders, *(file.parent for file in files)}):
        folder = nearest(path)
        if not folder.is_dir():
            raise InputError(f"{folder}: is no folder: expected one, or nothing of that name")
        if folder.stat().st_dev != device:
            raise InputError(f"{folder}: is on another file system than {home}: expected the same")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{folder}: can't be written to: expected a folder that can")


def nearest(folder: Path) -> Path:
    """The folder, or what is there of its path."""
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def is_publishing(out: Path) -> bool:
    """Whether a run was killed before all of its files had their names."""
    return hidden(out, "new").is_dir()


def complete_publishing(out: Path) -> None:
    """Where the table of the waiting files is in its place, give them their names and take away
    what is stale, but files that somebody has changed since. Those of any other table go: who wrote
    them was killed before it was published."""
    waiting = hidden(out, "new")
    if (waiting / LIST).is_file():
        listed = json.loads((waiting / LIST).read_text(encoding="utf-8"))
        if digest_at(out.with_suffix(".json")) == listed["table"]:
            move_files(waiting, out.parent, listed["new"])
            remove_stale(out.parent, listed["stale"])
    shutil.rmtree(waiting, ignore_errors=True)


def move_files(folder: Path, home: Path, before: Mapping[str, str | None]) -> None:
    """Files to the same names elsewhere, where nothing is or what was there before."""
    for name, digest in before.items():
        path = home / name
        if (folder / name).is_file() and digest_at(path) in (None, digest):
            path.parent.mkdir(parents=True, exist_ok=True)
            (folder / name).replace(path)


def remove_stale(home: Path, stale: Mapping[str, str]) -> None:
    """Take away files that are as they were before, and folders that are then empty."""
    for name, digest in stale.items():
        if digest_at(home / name) == digest:
            (home / name).unlink()
    folders = {folder for name in stale for folder in Path(name).parents if folder.name}
    for folder in sorted(folders, reverse=True):
        with suppress(OSError):  # other files are in it, or it is gone
            (home / folder).rmdir()
