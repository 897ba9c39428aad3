"""A video to frames: files through PyAV, folders of numbered images; chosen by time or by number, turned upright, sized.

Frames come as they are read. What can't be decoded comes in between as a `Damage`, and reading goes on behind it.
"""

import io
import math
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from shards.sources import NUMBERED, Video, is_numbered_image

FOLDER_FPS = 25.0  # frame folders don't say theirs; Kinetics' and OxUvA's common rate
SHORTFALL = 0.02  # of a file's frames may be missing without a word: an edit list hides some
TIMED = {"matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"}  # formats that say how long they are; of others FFmpeg guesses by the bit rate
SHORT_SECONDS, SHORT_PART = 1.0, 0.05  # of which that much may be missing: the larger of the two
SPARING = {"h264", "hevc"}  # codecs whose decoders can pass over frames that no other refers to
ERROR_NUMBER = re.compile(r"^\[Errno \d+\] ")
# the same bytes on every processor; and from 4:2:0 to RGB without blurring colours that JPEG will halve again
EXACT = int(Interpolation.BILINEAR | Interpolation.BITEXACT)


TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class Frame:
    """One decoded frame."""

    image: Image.Image
    """RGB, or RGBX, whose fourth byte says nothing."""
    seconds: float
    """Since the start of the video."""
    jpeg: bytes | None = None
    """The very file, if it was a JPEG of the right size: to be stored as it is."""
    stamp: int | None = None
    """The file's own, in ticks of its video stream; None if it has none."""


@dataclass(frozen=True)
class Damage:
    """Something that could not be decoded."""

    reason: str


@dataclass(frozen=True)
class Sampling:
    """Which frames are taken: at a rate by their time stamps, or every n-th."""

    fps: float
    """Frames a second; infinite: all. A slower video gives all of its frames."""
    every: int = 0
    """Every n-th frame instead; 0: by time."""
    folder_fps: float = FOLDER_FPS
    """Rate that folders of frames are taken to have."""

    @property
    def all(self) -> bool:
        """Whether no frame is left out."""
        return self.every == 1 or (not self.every and math.isinf(self.fps))


@dataclass(frozen=True)
class Sizing:
    """How large frames are stored."""

    short_side: int = 0
    """Pixels; larger frames are shrunk to it, smaller ones stay as they are; 0: all stay."""
    squash: tuple[int, int] | None = None
    """Width and height to force instead."""

    def of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height to store a frame of `width` x `height` at."""
        if self.squash:
            return self.squash
        factor = self.short_side / min(width, height)
        return (max(round(width * factor), 1), max(round(height * factor), 1)) if 0 < factor < 1 else (width, height)


def decode(video: Video, sampling: Sampling, sizing: Sizing, threads: int = 0) -> Iterator[Frame | Damage]:
    """The chosen frames of a video, sized, and what is damaged in between.

    Args:
        video: what to decode.
        sampling: which frames to take.
        sizing: how large to give them.
        threads: of the decoder; 0: as many as it likes.
    """
    try:
        folder = stat.S_ISDIR(video.path.stat().st_mode)
        yield from decode_folder(video, sampling, sizing) if folder else decode_file(video, sampling, sizing, threads)
    except (FileNotFoundError, NotADirectoryError):
        yield Damage("no such file or folder")
    except (OSError, ValueError) as error:
        yield Damage(getattr(error, "strerror", None) or told(error))


def decode_file(video: Video, sampling: Sampling, sizing: Sizing, threads: int) -> Iterator[Frame | Damage]:
    """Frames of a video file."""
    try:
        with av.open(str(video.path), metadata_errors="replace") as container:
            if not container.streams.video:
                yield Damage("no video stream")
                return
            stream = container.streams.video[0]
            stream.thread_count = threads
            yield from read_stream(container, stream, video, sampling, sizing)
    except (av.FFmpegError, OSError, ValueError) as error:
        yield Damage(told(error))


def read_stream(
    container: av.container.InputContainer, stream: av.VideoStream, video: Video, sampling: Sampling, sizing: Sizing
) -> Iterator[Frame | Damage]:
    """Frames of a file's video stream."""
    ticks = {of.index: float(of.time_base or 0) for of in container.streams}  # seconds; fractions would cost a third of a decoded frame
    chosen = choose_ahead(video, sampling)
    rate = float(stream.average_rate or sampling.folder_fps)
    ticker, painter = Ticker(sampling), Painter(sizing)
    start: float | None = None
    index = packets = shown = taken = 0
    end = 0.0
    timed = not stream.frames and container.format.name in TIMED
    for packet in container.demux() if timed else container.demux(stream):
        if packet.pts is not None:
            end = max(end, (packet.pts + (packet.duration or 0)) * ticks[packet.stream.index])
        if packet.stream.index != stream.index:  # of the packet itself, it is not set when there are no more
            continue
        packets += bool(packet.size)
        shown += bool(packet.size) and not packet.is_discard
        if chosen is not None:
            stream.codec_context.skip_frame = "DEFAULT" if packet.pts in chosen or not packet.size else "NONREF"
        try:
            frames = stream.decode(packet)
        except av.FFmpegError as error:
            yield Damage(f"{told(error)}, in frame {packets - 1} as stored")
            continue
        for frame in frames:
            seconds = index / rate if frame.pts is None else frame.pts * ticks[stream.index]
            start = seconds if start is None else start
            wanted = ticker.takes(index, seconds - start) if chosen is None else frame.pts in chosen
            index += 1
            if frame.is_corrupt:
                yield Damage(f"the frame at {seconds - start:.2f} s is corrupt")
            elif wanted:
                taken += 1
                yield Frame(painter.paint(frame), seconds - start, stamp=frame.pts)
    if packets < stream.frames * (1 - SHORTFALL):
        yield Damage(f"ends after {packets} of {stream.frames} frames")
    if timed:
        yield from cut_short(container, end)
    if chosen is not None and taken < len(chosen):
        yield Damage(f"{len(chosen) - taken} frames don't come out of the decoder")
    yield from miscounted(index if chosen is None else shown, video)


def choose_ahead(video: Video, sampling: Sampling) -> set[int] | None:
    """The stamps of the frames to take, from the packets alone; None if only decoding tells.

    Known before, they spare decoding what is neither taken nor needed for what is: a quarter of the work on usual footage.
    """
    with av.open(str(video.path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        if stream.codec_context.name not in SPARING or sampling.all:
            return None
        tick = float(stream.time_base or 0)
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
    stamps = [packet.pts for packet in packets if packet.pts is not None]
    # what leads before the first key frame may not come out of the decoder; stamps that are missing or doubled choose nothing
    if not packets or len(set(stamps)) < len(packets) or not packets[0].is_keyframe or min(stamps) < stamps[0]:
        return None
    ticker = Ticker(sampling)
    return {stamp for index, stamp in enumerate(sorted(stamps)) if ticker.takes(index, (stamp - stamps[0]) * tick)}


def cut_short(container: av.container.InputContainer, end: float) -> Iterator[Damage]:
    """A Damage if, of all its streams together, the file gave less than the time that it says it has."""
    seconds = (container.duration or 0) / av.time_base
    if end < seconds - max(SHORT_SECONDS, SHORT_PART * seconds):
        yield Damage(f"ends after {end:.1f} of {seconds:.1f} seconds")


class Painter:
    """Decoded frames to images: upright, sized, RGB. Keeps what is costly to set up from frame to frame."""

    def __init__(self, sizing: Sizing) -> None:
        self.sizing, self.scaler, self.converter = sizing, VideoReformatter(), VideoReformatter()

    def paint(self, frame: av.VideoFrame) -> Image.Image:
        """RGB, turned as the file's rotation metadata asks. Scaled before it becomes RGB, at a third of the cost of the other way."""
        lying = frame.rotation // 90 % 2 == 1
        width, height = self.sizing.of(*((frame.height, frame.width) if lying else (frame.width, frame.height)))
        width, height = (height, width) if lying else (width, height)
        if (width, height) != (frame.width, frame.height):
            sized = self.scaler.reformat(frame, width, height, "yuv420p", interpolation=EXACT, threads=1)
        else:
            sized = frame
        # FFmpeg's fast way leaves out the last columns of a width that isn't a multiple of 8, where the row has no room behind it
        way = EXACT if width % 8 == 0 else EXACT | int(Interpolation.ACCURATE_RND)
        pixels = self.converter.reformat(sized, format="rgba", interpolation=way, threads=1).planes[0]
        # four bytes a pixel, as Pillow has them: nothing is copied, and the JPEG is made of this very memory
        memory = np.frombuffer(memoryview(pixels), np.uint8)
        image = Image.frombuffer("RGBX", (width, height), memory, "raw", "RGBX", pixels.line_size, 1)
        return image.transpose(TURNS[frame.rotation % 360]) if frame.rotation % 360 in TURNS else image


def decode_folder(video: Video, sampling: Sampling, sizing: Sizing) -> Iterator[Frame | Damage]:
    """Frames of a folder of numbered images, in the order of their numbers."""
    ticker = Ticker(sampling)
    files = frame_files(video.path)
    if not files:
        yield Damage("no numbered images")
        return
    previous = files[0][0] - 1
    for index, (number, path) in enumerate(files):
        if number != previous + 1:
            yield Damage(
                f"frame {number} comes twice" if number == previous else f"{missing(previous + 1, number)} missing before {path.name}"
            )
        previous = number
        seconds = index / sampling.folder_fps
        if ticker.takes(index, seconds):
            try:
                yield read_image(path, seconds, sizing)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow has many for one fact
                yield Damage(f"{path.name}: {told(error)}")
    yield from miscounted(len(files), video)


def missing(low: int, high: int) -> str:
    """The numbers from `low` to before `high`."""
    return f"frame {low} is" if high == low + 1 else f"frames {low} to {high - 1} are"


def read_image(path: Path, seconds: float, sizing: Sizing) -> Frame:
    """A frame from an image file; a JPEG that has the right size already is kept as it is, lest it lose by being packed."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        size = sizing.of(*image.size)
        plain = image.format == "JPEG" and image.mode == "RGB" and image.size == size
        picture = image.convert("RGB")  # decodes it, so that damage is seen
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return Frame(picture, seconds, content if plain else None)


def frame_files(folder: Path) -> list[tuple[int, Path]]:
    """The images of a frame folder and their numbers, in that order."""
    files = [path for path in folder.iterdir() if is_numbered_image(path) and not path.name.startswith(".")]
    return sorted((int(NUMBERED.match(path.stem)[2]), path) for path in files)  # type: ignore[index]


def miscounted(count: int, video: Video) -> Iterator[Damage]:
    """A Damage if a list says another number of frames."""
    if video.listed not in (None, count):
        yield Damage(f"has {count} frames, the list says {video.listed}")


def told(error: Exception) -> str:
    """An error's text without its number."""
    return ERROR_NUMBER.sub("", str(error)) or type(error).__name__


class Ticker:
    """Chooses frames: by time, the first at or after each multiple of 1/fps; or by number."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.due = 0

    def takes(self, index: int, seconds: float) -> bool:
        """Whether the frame is one of the chosen; ask in the order of time."""
        if self.sampling.every:
            return index % self.sampling.every == 0
        if math.isinf(self.sampling.fps):
            return True
        tick = int(seconds * self.sampling.fps + 1e-6)  # 1e-6: a stamp a rounding error early is on time
        if tick < self.due:
            return False
        self.due = tick + 1
        return True
