"""Finds videos in a folder or a list. Decoding is in `decode.py`."""

import codecs
import csv
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from shards.errors import DataError
from shards.video.container import is_video

# files with these suffixes are taken for videos; others are videos if a decoder opens them
VIDEO_SUFFIXES = {
    ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv",
    ".3gp",
    ".3g2", ".mts", ".m2ts", ".vob", ".gif", ".f4v", ".mxf", ".asf", ".divx", ".m2v", ".qt",
    ".y4m", ".ivf",
}  # fmt: skip
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
LIST_SUFFIXES = {".csv", ".txt", ".lst"}
# folders with previews on NAS systems and of archives from Macs; other system folders begin with a
# dot
SYSTEM_FOLDERS = {
    "@eaDir",
    "__MACOSX",
}
# splitlines() would also split at characters that may occur in names
LINE_END = re.compile(r"\r\n|\r|\n")
# the number of image_00001, or of frame (1), as Windows numbers copies
TRAILING_NUMBER = re.compile(r"(\d+)\)?$")


@dataclass(frozen=True)
class VideoSource:
    """A video file or a folder of frames."""

    key: str
    """Its path relative to the source folder, without the suffix; keys of samples start with it."""
    path: Path
    listed: int | None = None
    """Number of frames that a list gives for it."""


class Survey(NamedTuple):
    """The contents of a source."""

    videos: list[VideoSource]
    skipped: dict[str, int]
    """Number of files that are not videos, by suffix, the most frequent first; hidden files are not
    counted."""


def find_videos(source: Path) -> list[VideoSource]:
    """Find the videos of `source`, see `survey`."""
    return survey(source).videos


def survey(source: Path) -> Survey:
    """Find all videos of `source`: those under a folder in the order of their paths, those of a
    list in its order, or the one video itself.

    Args:
        source: a folder, a video, a list (`.csv`, `.txt`, `.lst`), or `-` for a list on standard
            input.

    Raises:
        DataError: the source does not exist or has no videos, or a list names a video twice.
    """
    if str(source) == "-":
        return Survey(read_list(sys.stdin.buffer.read(), "standard input", Path()), {})
    try:
        source.stat()
        if source.is_file() and source.suffix.lower() in LIST_SUFFIXES:
            return Survey(read_list(source.read_bytes(), str(source), source.parent), {})
    except FileNotFoundError:
        raise DataError(f"source {source}: no such file or folder") from None
    except OSError as error:
        raise DataError(f"source {source}: {error.strerror}") from None
    skipped: Counter[str] = Counter()
    if source.is_file():
        paths = [source] if looks_like_video(source) else []
        root = source.parent
    else:
        root = source
        paths = sorted(walk(source, skipped))
    if not paths:
        kinds = ", ".join(sorted(VIDEO_SUFFIXES))
        others = f"; skipped: {counted(dict(skipped.most_common()))}" if skipped else ""
        raise DataError(
            f"source {source}: no videos there: expected video files ({kinds}, or any other that "
            "a decoder opens), "
            f"folders of numbered images, or a .csv list of either{others}"
        )
    videos = named([(path.relative_to(root), path, None) for path in paths])
    return Survey(videos, dict(skipped.most_common()))


def counted(skipped: dict[str, int]) -> str:
    """The counts in words: `12 .jpg, 3 .txt, 1 without suffix`."""
    return ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in skipped.items())


def walk(source: Path, skipped: Counter[str]) -> Iterator[Path]:
    """Yield video files and frame folders under a folder; count other files in `skipped`."""

    def refuse(error: OSError) -> None:
        raise DataError(f"source {error.filename}: {error.strerror}")

    seen = {os.path.realpath(source)}
    for folder, subfolders, names in os.walk(source, onerror=refuse, followlinks=True):
        visible = sorted(filter(is_visible, subfolders), reverse=True)
        targets = {os.path.realpath(Path(folder, name)): name for name in visible}
        # links may form cycles
        subfolders[:] = sorted(name for target, name in targets.items() if target not in seen)
        seen |= targets.keys()
        files = [Path(folder, name) for name in names if is_visible(name)]
        frames = [file for file in files if frame_number(file) is not None]
        if len(frames) > 1:
            yield Path(folder)
            files = sorted(set(files).difference(frames))
        for file in files:
            if looks_like_video(file):
                yield file
            else:
                skipped[file.suffix.lower()] += 1


def is_visible(name: str) -> bool:
    """Whether a file or folder belongs to the user, and is not hidden or a system's own."""
    return not name.startswith(".") and name not in SYSTEM_FOLDERS


def looks_like_video(path: Path) -> bool:
    """Whether a file is a video, by its suffix or else by its content."""
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or (
        suffix not in IMAGE_SUFFIXES and path.is_file() and is_video(path)
    )


def frame_number(path: Path) -> int | None:
    """The number at the end of an image's name: 1 for `image_00001.jpg` or `frame (1).png`; None if
    the file is not a numbered image."""
    if path.suffix.lower() not in IMAGE_SUFFIXES or not is_visible(path.name):
        return None
    digits = TRAILING_NUMBER.search(path.stem)
    return int(digits[1]) if digits else None


def read_list(content: bytes, name: str, root: Path) -> list[VideoSource]:
    """Parse a list of videos, with a line `path` or `path,frames` for each. Paths are relative to
    `root`; a first line `path...` is a header.

    Missing files are not an error here: they count as broken videos when they are packed, because
    videos may have been deleted since the list was made.

    Raises:
        DataError: the list is empty or not text, or names a video twice.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = content.decode("utf-16", errors="surrogatepass").encode(
            "utf-8", errors="surrogatepass"
        )
    if b"\0" in content:
        raise DataError(f"{name}: is not text in UTF-8 or UTF-16: expected a line for each video")
    entries: list[tuple[Path, Path, int | None]] = []
    lines: dict[Path, int] = {}
    for number, line in enumerate(
        LINE_END.split(os.fsdecode(content.removeprefix(codecs.BOM_UTF8))), 1
    ):
        entry, frames = read_line(line)
        if not entry or (number == 1 and entry.lower() == "path"):
            continue
        path = Path(os.path.normpath(root / entry))
        if path in lines:
            raise DataError(
                f"{name}, line {number}: {entry!r} was named in line {lines[path]}: expected each "
                "video once"
            )
        lines[path] = number
        entries.append((Path(entry), path, frames))
    if not entries:
        raise DataError(f"{name}: lists no videos: expected lines `path` or `path,frames`")
    return named(entries)


def read_line(line: str) -> tuple[str, int | None]:
    """Parse `path,frames`, or a path alone, which may contain commas."""
    cells = next(csv.reader(io.StringIO(line)), [])
    if len(cells) > 1 and (cells[1].strip().isdecimal() or cells[0].strip().lower() == "path"):
        return cells[0].strip(), int(cells[1]) if cells[1].strip().isdecimal() else None
    return (cells[0].strip() if len(cells) == 1 else line.strip()), None


def named(entries: list[tuple[Path, Path, int | None]]) -> list[VideoSource]:
    """Give each video a unique key; entries are (relative path, path, listed frames)."""
    videos, taken = [], set[str]()
    for relative, path, listed in entries:
        whole = (
            os.path.normpath(relative).lstrip("/.") or path.name.strip(".") or path.resolve().name
        )
        pure = PurePosixPath(as_text(whole))
        folder = os.path.isdir(path)  # noqa: PTH112 - Path's raises where one may not look
        key = str(
            pure if folder or pure.suffix.lower() not in VIDEO_SUFFIXES else pure.with_suffix("")
        )
        key = str(pure) if key in taken else key  # a.mp4 beside a.webm
        while key in taken:
            key += "_"
        taken.add(key)
        videos.append(VideoSource(key, path, listed))
    return videos


def as_text(path: str | Path) -> str:
    """A path as text; bytes of file names that are not UTF-8 are escaped."""
    return os.fsencode(path).decode(errors="backslashreplace")
