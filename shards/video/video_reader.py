"""Reads a video from its first frame to its last: frames with their time stamps, and sound.
Decoding is in `decode.py`."""

import itertools
import math
import os
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.format import Flags
from numpy.typing import NDArray

from shards.errors import DataError
from shards.video.clock import Clock
from shards.video.container import open_container, open_video, pixel_aspect
from shards.video.decode import (
    Damage,
    Frame,
    FrameConverter,
    decode,
    frame_files,
)
from shards.video.sampling import FOLDER_FPS, Sampling, Sizing
from shards.video.sources import VideoSource

# the format whose headers have a reliable number of frames
COUNTED = "mov,mp4,m4a,3gp,3g2,mj2"
# formats in which seeking ends at a key frame before the time; in others it may end after the time
INDEXED = {COUNTED, "matroska,webm"}


class BrokenVideoError(Exception):
    """A video can't be decoded to its end; the message is the reason."""


@dataclass(frozen=True)
class Picture:
    """One frame."""

    pixels: NDArray[np.uint8]
    """RGB `[H, W, 3]`, upright."""
    stamp: int
    """Time at which it is shown, in the video's ticks; larger than the stamp before."""


@dataclass(frozen=True)
class Sound:
    """The sound of a video, in its stored encoding."""

    stream: av.AudioStream
    packets: Iterator["av.Packet[av.AudioStream]"]
    """Can be read once; their time stamps have the same origin as those of the frames."""


@dataclass(frozen=True)
class VideoReader:
    """An opened video, which can be read once, from its first frame to its last, at its own size
    and speed."""

    width: int
    height: int
    fps: float
    """Average frame rate."""
    count: int
    """Number of frames by the file's header, or else by its packets; decoding may yield a few
    less."""
    tick: Fraction
    """Unit of the stamps, in seconds."""
    frames: Iterator[Picture]
    """Raises BrokenVideoError where the video can't be decoded further."""
    sound: Sound | None
    names: "FrameNames"
    """Numbers and names of its frames."""


@dataclass(frozen=True)
class FrameNames:
    """Numbers and names of a video's frames. The frames of a folder have those of their files,
    whose numbers have no gaps; the frames of a video file are counted from 0. The index of a frame
    is its index from 0."""

    files: tuple[tuple[int, str], ...] = ()
    """Number and name, without suffix, of each frame of a folder; empty for a video file."""
    video: str = ""
    """Name of the file or folder."""

    def number(self, index: int) -> int:
        """The number by which a user knows the frame at an index."""
        return self.files[index][0] if self.files else index

    def name(self, index: int) -> str:
        """The name, without suffix, of files that belong to the frame at an index."""
        return self.files[index][1] if self.files else f"{index:05d}"

    def index(self, number: int) -> int | None:
        """The index of the frame with this number; None if a folder has none."""
        if not self.files:
            return number
        index = number - self.files[0][0]
        return index if 0 <= index < len(self.files) else None

    def index_of(self, name: str) -> int | None:
        """The index of a folder's frame with this name; None if there is none."""
        return self.indices.get(name)

    @cached_property
    def indices(self) -> dict[str, int]:
        """Indices of a folder's frames, by name."""
        return {name: index for index, (_, name) in enumerate(self.files)}


@dataclass(frozen=True)
class Facts:
    """Properties of a file's video stream."""

    fps: float = FOLDER_FPS
    count: int = 0
    tick: Fraction = 1 / Fraction(FOLDER_FPS)
    zero: Fraction = Fraction(0)
    """The time in the file, in seconds, that counts as 0."""


@contextmanager
def open_video_reader(path: Path) -> Iterator[VideoReader]:
    """Open a video file or a folder of numbered frames.

    Raises:
        DataError: there is no such file or folder.
        BrokenVideoError: it is not a video, or can't be decoded to its end.
    """
    if not path.exists():
        raise DataError(f"video {path}: no such file or folder")
    decoded = decode(VideoSource(path.stem, path), Sampling(math.inf), Sizing())
    first = whole(next(decoded, None))
    width, height = first.image.size
    names = folder_names(path) if path.is_dir() else FrameNames(video=path.name)
    facts = Facts(count=len(names.files)) if path.is_dir() else file_facts(path)
    frames = pictures(itertools.chain([first], map(whole, decoded)), facts, names)
    with ExitStack() as stack:
        stack.callback(frames.close)
        sound = (
            None
            if path.is_dir()
            else open_sound(stack.enter_context(open_container(path)), facts.zero)
        )
        yield VideoReader(width, height, facts.fps, facts.count, facts.tick, frames, sound, names)


def folder_names(folder: Path) -> FrameNames:
    """The names of a folder of numbered frames."""
    files = tuple((number, path.stem) for number, path in frame_files(folder))
    return FrameNames(files, folder.resolve().name)


def whole(frame: Frame | Damage | None) -> Frame:
    """Return a frame that could be decoded; BrokenVideoError otherwise."""
    if not isinstance(frame, Frame):
        raise BrokenVideoError("no frames" if frame is None else frame.reason)
    return frame


def pictures(
    frames: Iterator[Frame], facts: Facts, names: FrameNames
) -> Generator[Picture, None, None]:
    """Yield pixels and stamps. A stamp that is missing, or not larger than the last one, is
    replaced, because encoders require increasing stamps."""
    usual, zero = max(round(1 / (facts.fps * facts.tick)), 1), round(facts.zero / facts.tick)
    stamp, size = -usual, None
    for index, frame in enumerate(frames):
        size = size or frame.image.size
        if frame.image.size != size:
            sizes = f"{frame.image.width}x{frame.image.height}, those before {size[0]}x{size[1]}"
            number = names.number(index)
            raise BrokenVideoError(f"frame {number} is {sizes}: expected the same size")
        stamp = (
            stamp + usual
            if frame.stamp is None
            else max(frame.stamp - zero, stamp + 1 if index else frame.stamp - zero)
        )
        yield Picture(np.asarray(frame.image.convert("RGB")), stamp)


def file_facts(path: Path) -> Facts:
    """Read the properties of a file's video stream."""
    with open_video(path) as (container, stream):
        # in formats whose stamps may jump, such as recordings of broadcasts, they begin anywhere;
        # in other formats a late beginning is intended
        zero = (
            Fraction(container.start_time or 0, av.time_base)
            if Flags.ts_discont in Flags(container.format.flags)
            else Fraction(0)
        )
        is_counted = (
            container.format.name == COUNTED
            and not is_fragmented(path)
            and not has_hidden_frames(stream)
        )
        return Facts(
            fps=float(stream.average_rate or FOLDER_FPS),
            tick=stream.time_base or 1 / Fraction(FOLDER_FPS),
            zero=zero,
            count=(stream.frames if is_counted else 0) or count_packets(path),
        )


def has_hidden_frames(stream: av.VideoStream) -> bool:
    """Whether fewer frames are shown than the header counts, as after a cut between two key frames
    without re-encoding."""
    seconds = (stream.duration or 0) * (stream.time_base or 0)
    return stream.frames > seconds * (stream.average_rate or 0) + 1


def is_fragmented(path: Path) -> bool:
    """Whether an MP4 has fragments (boxes `moof`); its header counts only the frames of the first
    one."""
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size, kind = int.from_bytes(head[:4]), head[4:]
            if kind == b"moof":
                return True
            read = 8
            if size == 1:  # a 64-bit size follows
                size, read = int.from_bytes(file.read(8)), 16
            if size < read:  # size 0: the last box, which goes to the end of the file
                return False
            file.seek(size - read, os.SEEK_CUR)
    return False


def picture_at(path: Path, number: int) -> NDArray[np.uint8]:
    """Decode one frame of a video file, RGB `[H, W, 3]`; the last frame if the number is beyond the
    end. In common formats, it seeks to a key frame instead of decoding from the beginning.

    Raises:
        DataError: there is no such file.
        BrokenVideoError: it is not a video, or that frame can't be decoded.
    """
    with open_video_reader(path) as reader, open_video(path) as (container, stream):
        try:
            is_indexed = container.format.name in INDEXED
            if number and is_indexed and (found := find_key(container, stream, number)):
                wanted, key = found
                container.seek(key, stream=stream)
                frame = next(
                    frame
                    for frame in container.decode(stream)
                    if frame.pts is not None and frame.pts >= wanted
                )
                frame_converter = FrameConverter(Sizing(), pixel_aspect(stream))
                return np.asarray(frame_converter.convert(frame).convert("RGB"))
        except (StopIteration, av.FFmpegError):
            raise BrokenVideoError(f"frame {number} can't be decoded") from None
        return deque(itertools.islice(reader.frames, number + 1), maxlen=1).pop().pixels


def find_key(
    container: InputContainer, stream: av.VideoStream, number: int
) -> tuple[int, int] | None:
    """The stamp of a frame (the last one if `number` is beyond the end), and the decoding stamp of
    the key frame where decoding must begin. None if packets lack stamps."""
    shown, keys = list[int](), list[tuple[int, int]]()
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.pts is None or packet.dts is None:
            return None
        if not packet.is_discard:
            shown.append(packet.pts)
        if packet.is_keyframe:
            keys.append((packet.pts, packet.dts))
    wanted = sorted(shown)[min(number, len(shown) - 1)]
    before = [(pts, dts) for pts, dts in keys if pts <= wanted]
    return (wanted, max(before)[1]) if before else None


def count_packets(path: Path) -> int:
    """Count the frames of the video stream, up to damage, without decoding them."""
    count = 0
    with open_video(path) as (container, stream), suppress(av.FFmpegError):
        for packet in container.demux(stream):
            count += bool(packet.size) and not packet.is_discard
    return count


def open_sound(container: InputContainer, zero: Fraction) -> Sound | None:
    """Open the sound that a player would choose; None if there is none that can be decoded."""
    streams = (container.streams.best("audio"), *container.streams.audio)
    # a stream of a codec that FFmpeg does not know has no context
    known = (stream for stream in streams if stream and stream.codec_context is not None)
    stream = next(known, None)
    if not isinstance(stream, av.AudioStream) or stream.time_base is None:
        return None
    return Sound(stream, stamped(container, stream, round(zero / stream.time_base)))


def stamped(
    container: InputContainer, stream: av.AudioStream, zero: int
) -> Iterator["av.Packet[av.AudioStream]"]:
    """Yield packets of sound, with stamps relative to `zero`, the frames' origin. Damage ends the
    sound without an error, because the frames matter more."""
    packets, clock = container.demux(stream), Clock(0)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            return
        if packet is None:
            return
        if packet.size and packet.pts is not None:
            packet.pts = packet.dts = clock.time_of(packet.pts - zero, packet.duration or 1)
            yield packet
