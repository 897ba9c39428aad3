"""Files that appear together: they are written into a hidden folder beside their places, and the
table, which goes to its place first, says that they are the ones. Who is killed before that leaves
what was there; who is killed after it leaves the rest to the next run."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from corrflow.files import content_digest


class StagedFiles:
    """The results `NAME.mp4` and what lies beside it, until they are published; left unpublished,
    they leave nothing."""

    def __init__(self, out: Path) -> None:
        """Make the hidden folder.

        Args:
            out: the video that is to appear.
        """
        self.home = out.parent
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

    def digests(self, path: Path) -> dict[str, str]:
        """Of a file, or of all files of a folder, that is hidden; by their paths beside `out`."""
        paths = [path] if path.is_file() else sorted(path.rglob("*"))
        return {
            part.relative_to(self.folder).as_posix(): content_digest(part)
            for part in paths
            if part.is_file()
        }

    def publish(self) -> None:
        """Give all files their names, the table first."""
        shutil.rmtree(self.complete, ignore_errors=True)
        self.folder.replace(self.complete)
        (self.complete / self.table).replace(self.home / self.table)
        move_files(self.complete, self.home)


def hidden(out: Path, state: str) -> Path:
    """The folder in which files of a video wait."""
    return out.with_name(f".{out.stem}.{state}")


def names_in(folder: Path) -> Iterator[str]:
    """Of all files of a folder, as `part/file`."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix()


def move_files(folder: Path, home: Path) -> None:
    """All files of a folder to the same names elsewhere; then it is gone."""
    for name in list(names_in(folder)):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).replace(home / name)
    shutil.rmtree(folder, ignore_errors=True)


def complete_publishing(out: Path) -> None:
    """What a run that was killed left over: files whose table is published get their names, but
    where somebody has changed the file since; others go."""
    waiting, table = hidden(out, "new"), out.with_suffix(".json")
    if not waiting.is_dir():
        return
    if table.is_file() and not (waiting / table.name).exists():
        published = table.stat().st_ctime_ns
        for name in list(names_in(waiting)):
            there = out.parent / name
            if there.is_file() and there.stat().st_mtime_ns > published:
                (waiting / name).unlink()
        move_files(waiting, out.parent)
    shutil.rmtree(waiting, ignore_errors=True)


def remove_stale(out: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Take away files that an earlier run published and this one did not, unless somebody has
    changed them."""
    for name in before.keys() - now.keys():
        path = out.parent / name
        if path.is_file() and content_digest(path) == before[name]:
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
