"""Which videos there are: below a folder, or in a list. How they are decoded is in `decode.py`."""

import codecs
import csv
import io
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shards.errors import InputError

VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".3gp"}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
LIST_SUFFIXES = {".csv", ".txt", ".lst"}
LINE_END = re.compile(r"\r\n|\r|\n")  # splitlines() would also split at letters that names may hold
NUMBERED = re.compile(r"^(.*?)(\d+)$")


@dataclass(frozen=True)
class Video:
    """A video file or a folder of frames."""

    key: str
    """Its path below the source folder, without the suffix: the sample keys start with it."""
    path: Path
    listed: int | None = None
    """Frames that a list says it has."""


def find_videos(source: Path) -> list[Video]:
    """All videos of `source`: those below a folder in the order of their paths, those of a list in its order, or the one video itself.

    Args:
        source: a folder, a video, a list (`.csv`, `.txt`, `.lst`), or `-` for a list on standard input.

    Raises:
        InputError: nothing is there, or nothing that is a video; a list that names a video twice.
    """
    if str(source) == "-":
        return read_list(sys.stdin.buffer.read(), "standard input", Path())
    try:
        source.stat()
        if source.is_file() and source.suffix.lower() in LIST_SUFFIXES:
            return read_list(source.read_bytes(), str(source), source.parent)
    except FileNotFoundError:
        raise InputError(f"source {source}: no such file or folder") from None
    except OSError as error:
        raise InputError(f"source {source}: {error.strerror}") from None
    if source.is_file():
        paths = [source] if source.suffix.lower() in VIDEO_SUFFIXES else []
        root = source.parent
    else:
        root = source
        paths = sorted(walk(source))
    if not paths:
        kinds = ", ".join(sorted(VIDEO_SUFFIXES))
        raise InputError(f"source {source}: no videos there: expected {kinds} files, folders of numbered images, or a .csv list of either")
    return named([(path.relative_to(root), path, None) for path in paths])


def walk(source: Path) -> Iterator[Path]:
    """Video files and frame folders below a folder."""

    def refuse(error: OSError) -> None:
        raise InputError(f"source {error.filename}: {error.strerror}")

    seen = {os.path.realpath(source)}
    for folder, subfolders, names in os.walk(source, onerror=refuse, followlinks=True):
        places = {os.path.realpath(Path(folder, name)): name for name in sorted(subfolders, reverse=True)}
        subfolders[:] = sorted(name for place, name in places.items() if place not in seen)  # links may go in circles
        seen |= places.keys()
        files = [Path(folder, name) for name in names if not name.startswith(".")]
        yield from (file for file in files if file.suffix.lower() in VIDEO_SUFFIXES)
        if sum(is_numbered_image(file) for file in files) > 1:
            yield Path(folder)


def is_numbered_image(path: Path) -> bool:
    """`image_00001.jpg`, `000000.jpeg`."""
    return path.suffix.lower() in IMAGE_SUFFIXES and NUMBERED.match(path.stem) is not None


def read_list(content: bytes, name: str, root: Path) -> list[Video]:
    """The videos of a list: a line each, `path` or `path,frames`, paths relative to `root`; a first line `path...` is a head.

    What isn't there is found out when it is to be packed, as one more broken video: lists outlive the videos that they name.

    Raises:
        InputError: nothing is listed, or a video twice.
    """
    if b"\0" in content:
        raise InputError(f"{name}: is no text in UTF-8: expected a line for each video")
    found: list[tuple[Path, Path, int | None]] = []
    lines: dict[Path, int] = {}
    for number, line in enumerate(LINE_END.split(os.fsdecode(content.removeprefix(codecs.BOM_UTF8))), 1):
        entry, frames = read_line(line)
        if not entry or (number == 1 and entry.lower() == "path"):
            continue
        path = Path(os.path.normpath(root / entry))
        if path in lines:
            raise InputError(f"{name}, line {number}: {entry!r} was named in line {lines[path]}: expected each video once")
        lines[path] = number
        found.append((Path(entry), path, frames))
    if not found:
        raise InputError(f"{name}: lists no videos: expected a line each, `path` or `path,frames`")
    return named(found)


def read_line(line: str) -> tuple[str, int | None]:
    """`path,frames`, or a path alone, in which commas are its own."""
    cells = next(csv.reader(io.StringIO(line)), [])
    if len(cells) > 1 and (cells[1].strip().isdecimal() or cells[0].strip().lower() == "path"):
        return cells[0].strip(), int(cells[1]) if cells[1].strip().isdecimal() else None
    return (cells[0].strip() if len(cells) == 1 else line.strip()), None


def named(found: list[tuple[Path, Path, int | None]]) -> list[Video]:
    """Videos with keys of their own, from (relative path, path, listed frames)."""
    videos, taken = [], set[str]()
    for relative, path, listed in found:
        whole = os.path.normpath(relative).lstrip("/.") or path.name.strip(".") or path.resolve().name
        pure = PurePosixPath(os.fsencode(whole).decode(errors="backslashreplace"))  # file names are bytes, keys are text
        folder = os.path.isdir(path)  # noqa: PTH112 - Path's raises where one may not look
        key = str(pure if folder or pure.suffix.lower() not in VIDEO_SUFFIXES else pure.with_suffix(""))
        key = str(pure) if key in taken else key  # a.mp4 beside a.webm
        while key in taken:
            key += "_"
        taken.add(key)
        videos.append(Video(key, path, listed))
    return videos
