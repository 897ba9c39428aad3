"""Finds videos and decodes their frames: video files through PyAV, and folders of numbered images.

What is made of the frames is in `pack.py`.
"""

import itertools
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shards.errors import InputError

VIDEO_SUFFIXES = {".mp4", ".webm", ".mkv", ".avi", ".mov"}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
FOLDER_FPS = 25.0  # frame folders don't say theirs; Kinetics' and OxUvA's common rate
NUMBERED = re.compile(r"^(.*?)(\d+)$")


class BrokenVideoError(Exception):
    """A source that can't be decoded to its end; the message is the reason, for `failures.csv`."""


@dataclass(frozen=True)
class Video:
    """A video file or a folder of frames."""

    key: str
    """Its path below the source folder, without the suffix: the sample keys start with it."""
    path: Path


@dataclass(frozen=True)
class Footage:
    """A video opened to be read once, from its first frame to its last, at its own size and speed."""

    width: int
    height: int
    fps: float
    count: int | None
    """Frames in all, if the file says."""
    frames: Iterator[NDArray[np.uint8]]
    """RGB `[H, W, 3]`; raises BrokenVideoError where the video can't be decoded further."""


@dataclass(frozen=True)
class Frame:
    """One decoded frame."""

    image: Image.Image
    """RGB."""
    seconds: float
    """Since the start of the video."""


def find_videos(source: Path) -> list[Video]:
    """All videos below `source`, in the order of their paths; `source` may also be one video itself.

    Raises:
        InputError: nothing is there, or nothing that is a video.
    """
    if not source.exists():
        raise InputError(f"source {source}: no such file or folder")
    if source.is_file():
        paths = [source] if source.suffix.lower() in VIDEO_SUFFIXES else []
        root = source.parent
    else:
        root = source
        paths = sorted(walk(source))
    if not paths:
        kinds = ", ".join(sorted(VIDEO_SUFFIXES))
        raise InputError(f"source {source}: no videos there: expected {kinds} files or folders of numbered images")
    if paths == [source] and source.is_dir():
        return [Video(source.name, source)]
    videos, taken = [], set[str]()
    for path in paths:
        relative = path.relative_to(root)
        key = relative.as_posix() if path.is_dir() else relative.with_suffix("").as_posix()
        key = relative.as_posix() if key in taken else key  # a.mp4 beside a.webm
        key = os.fsencode(key).decode(errors="backslashreplace")  # file names are bytes, keys are text
        taken.add(key)
        videos.append(Video(key, path))
    return videos


def walk(source: Path) -> Iterator[Path]:
    """Video files and frame folders below a folder."""

    def refuse(error: OSError) -> None:
        raise InputError(f"source {error.filename}: {error.strerror}")

    seen = set[str]()
    for folder, subfolders, names in os.walk(source, onerror=refuse, followlinks=True):
        subfolders[:] = [name for name in subfolders if os.path.realpath(Path(folder, name)) not in seen]  # links may go in circles
        seen |= {os.path.realpath(Path(folder, name)) for name in subfolders}
        files = [Path(folder, name) for name in names if not name.startswith(".")]
        yield from (file for file in files if file.suffix.lower() in VIDEO_SUFFIXES)
        if sum(is_numbered_image(file) for file in files) > 1:
            yield Path(folder)


def is_numbered_image(path: Path) -> bool:
    """`image_00001.jpg`, `000000.jpeg`."""
    return path.suffix.lower() in IMAGE_SUFFIXES and NUMBERED.match(path.stem) is not None


def frame_files(folder: Path) -> list[Path]:
    """The images of a frame folder in the order of their numbers.

    Raises:
        BrokenVideoError: a number is missing, or comes twice.
    """
    files = [path for path in folder.iterdir() if is_numbered_image(path) and not path.name.startswith(".")]
    numbered = sorted((int(NUMBERED.match(path.stem)[2]), path) for path in files)  # type: ignore[index]
    if not numbered:
        raise BrokenVideoError("no numbered images")
    for (number, path), (following, _) in itertools.pairwise(numbered):
        if following != number + 1:
            gap = f"frame {number + 1} is missing" if following > number else f"frame {number} comes twice"
            raise BrokenVideoError(f"{gap} after {path.name}")
    return [path for _, path in numbered]


def decode(video: Video, fps: float, short_side: int, squash: tuple[int, int] | None = None) -> Iterator[Frame]:
    """Frames of a video at `fps`, chosen by their time stamps, sized for storage.

    Args:
        video: what to decode.
        fps: frames a second; a slower video gives all of its frames.
        short_side: pixels; larger frames are shrunk to it, smaller ones stay as they are.
        squash: width and height to force instead.

    Raises:
        BrokenVideoError: it can't be decoded to its end.
    """
    decoder = decode_folder if video.path.is_dir() else decode_file
    for frame in decoder(video.path, fps):
        yield Frame(resized(frame.image, short_side, squash), frame.seconds)


def decode_file(path: Path, fps: float) -> Iterator[Frame]:
    """Frames of a video file at `fps`, upright (rotation metadata applied)."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise BrokenVideoError("no video stream")
            stream = container.streams.video[0]
            rate = float(stream.average_rate or FOLDER_FPS)
            ticker = Ticker(fps)
            start = None
            for index, frame in enumerate(container.decode(stream)):
                seconds = frame.time if frame.time is not None else index / rate
                start = seconds if start is None else start
                if ticker.takes(seconds - start):
                    yield Frame(upright(frame), seconds - start)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BrokenVideoError(str(error)) from None


def upright(frame: av.VideoFrame) -> Image.Image:
    """RGB, turned as the file's rotation metadata asks."""
    pixels = frame.to_ndarray(format="rgb24")
    return Image.fromarray(np.rot90(pixels, k=frame.rotation // 90 % 4) if frame.rotation else pixels)


@contextmanager
def open_footage(path: Path) -> Iterator[Footage]:
    """Open a video file or a folder of numbered frames.

    Raises:
        InputError: nothing is there.
        BrokenVideoError: it is no video, or a frame is missing.
    """
    if not path.exists():
        raise InputError(f"video {path}: no such file or folder")
    found = Video(path.stem, path)
    frames = (np.asarray(frame.image) for frame in decode(found, fps=math.inf, short_side=sys.maxsize))
    first = next(frames, None)
    if first is None:
        raise BrokenVideoError("no frames")
    fps, count = (FOLDER_FPS, len(frame_files(path))) if path.is_dir() else file_facts(path)
    try:
        yield Footage(first.shape[1], first.shape[0], fps, count, itertools.chain([first], frames))
    finally:
        frames.close()


def file_facts(path: Path) -> tuple[float, int | None]:
    """Frames a second and, if the file says, the number of frames."""
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        return float(stream.average_rate or FOLDER_FPS), stream.frames or None


def decode_folder(folder: Path, fps: float) -> Iterator[Frame]:
    """Frames of a folder at `fps`, of the 25 a second that such folders are taken to have."""
    ticker = Ticker(fps)
    for index, path in enumerate(frame_files(folder)):
        if ticker.takes(index / FOLDER_FPS):
            try:
                with Image.open(path) as image:
                    yield Frame(image.convert("RGB"), index / FOLDER_FPS)
            except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for damage of one kind or another
                raise BrokenVideoError(f"{path.name}: {error}") from None


class Ticker:
    """Chooses frames by time: the first at or after each multiple of 1/fps."""

    def __init__(self, fps: float) -> None:
        self.fps = fps
        self.due = 0

    def takes(self, seconds: float) -> bool:
        """Whether the frame at `seconds` is one of the chosen; ask in the order of time. At an infinite rate all are."""
        if math.isinf(self.fps):
            return True
        tick = int(seconds * self.fps + 1e-6)  # 1e-6: a stamp a rounding error early is on time
        if tick < self.due:
            return False
        self.due = tick + 1
        return True


def resized(image: Image.Image, short_side: int, squash: tuple[int, int] | None) -> Image.Image:
    """Squashed to `squash`, or shrunk to `short_side`."""
    size = squash
    if size is None:
        factor = short_side / min(image.size)
        size = (max(round(image.width * factor), 1), max(round(image.height * factor), 1)) if factor < 1 else image.size
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
