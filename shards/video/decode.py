"""Decodes videos to frames: files with PyAV, and folders of numbered images. Frames are chosen by
time or by number, turned upright and resized.

Frames are yielded as they are read. Something that can't be decoded is yielded in between as a
`Damage`, and reading goes on after it.
"""

import io
import math
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from shards.errors import reason_of
from shards.video.clock import Clock
from shards.video.container import open_video, pixel_aspect, transposition
from shards.video.images import DEPTHS, GREY16, UNREADABLE, grey_depth, is_rotated, to_rgb
from shards.video.sampling import Sampling, Sizing
from shards.video.sources import VideoSource, frame_number

SHORTFALL = 0.02  # share of a file's frames that may be missing, since an edit list may hide some
# in this format, FFmpeg silently skips damaged bytes up to the next cluster
MATROSKA = "matroska,webm"
HOLE_FRAMES = 3  # a pause of more than this many frame intervals in an even stream is a hole
HOLE_PART = 0.01  # in a stream with more pauses than this share, they are intended
EVEN_TICKS = 2  # by which the frame intervals of an even stream may differ from the usual one
# formats whose headers say how long they are; for others, FFmpeg guesses it from the bit rate
TIMED = {
    MATROSKA,
    "mov,mp4,m4a,3gp,3g2,mj2",
}
# seconds and share of the length that may be missing at the end: the larger of the two
SHORT_SECONDS, SHORT_PART = 1.0, 0.05
JUMP_SECONDS = 1.0  # a jump back by this much means that another recording begins
SKIPPABLE_CODECS = {"h264", "hevc"}  # codecs whose decoders can skip frames that no other refers to
# gives the same bytes on every processor, and converts 4:2:0 to RGB without blurring colours, which
# JPEG subsamples again
EXACT = int(Interpolation.BILINEAR | Interpolation.BITEXACT)


# operations that exchange a frame's width and height
TRANSPOSED = {
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
}


@dataclass(frozen=True)
class Frame:
    """One decoded frame."""

    image: Image.Image
    """RGB, or RGBX, whose fourth byte has no meaning."""
    seconds: float
    """Time since the start of the video."""
    jpeg: bytes | None = None
    """Content of the image file if it is a JPEG of the right size, which can be stored as it is."""
    stamp: int | None = None
    """The file's time stamp in ticks of its video stream, made continuous where stamps jump back;
    None if the frame has none."""


@dataclass(frozen=True)
class Damage:
    """Something that could not be decoded."""

    reason: str


def decode(
    video: VideoSource, sampling: Sampling, sizing: Sizing, threads: int = 0
) -> Iterator[Frame | Damage]:
    """Yield the chosen frames of a video, resized, and damage in between.

    Args:
        video: what to decode.
        sampling: which frames to choose.
        sizing: their size.
        threads: number of threads of the decoder; 0 lets it choose.
    """
    try:
        folder = stat.S_ISDIR(video.path.stat().st_mode)
        yield from (
            decode_folder(video, sampling, sizing)
            if folder
            else decode_file(video, sampling, sizing, threads)
        )
    except (FileNotFoundError, NotADirectoryError):
        yield Damage("no such file or folder")
    except (OSError, ValueError) as error:
        yield Damage(getattr(error, "strerror", None) or reason_of(error))


def decode_file(
    video: VideoSource, sampling: Sampling, sizing: Sizing, threads: int
) -> Iterator[Frame | Damage]:
    """Yield frames of a video file."""
    try:
        with open_video(video.path) as (container, stream):
            stream.thread_count = threads
            yield from read_stream(container, stream, video, sampling, sizing)
    except (av.FFmpegError, OSError, ValueError) as error:
        yield Damage(reason_of(error))


def read_stream(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    video: VideoSource,
    sampling: Sampling,
    sizing: Sizing,
) -> Iterator[Frame | Damage]:
    """Yield frames of a file's video stream."""
    chosen = choose_ahead(video, sampling)
    rate = float(stream.average_rate or sampling.folder_fps)
    tick = float(stream.time_base or 0)  # seconds; fractions would cost a third of a decoded frame
    selector = FrameSelector(sampling)
    frame_converter = FrameConverter(sizing, pixel_aspect(stream))
    truncation = TruncationCheck(container, stream)
    start: float | None = None
    index = taken = 0
    usual = max(round(1 / (rate * tick)), 1) if tick else 1
    clock = Clock(max(round(JUMP_SECONDS / tick), 1) if tick else 1)
    # stamps of packets whose frames are still in the decoder, and damage to yield after those
    inside: set[int] = set()
    damages: list[Damage] = []
    for packet in truncation.watch():
        if chosen is not None:
            wanted_or_last = packet.pts in chosen or not packet.size
            stream.codec_context.skip_frame = "DEFAULT" if wanted_or_last else "NONREF"
        try:
            frames = stream.decode(packet)
        except av.FFmpegError as error:
            damages.append(
                Damage(f"{reason_of(error)}, in frame {truncation.packets - 1} as stored")
            )
            lost = packet.pts if packet.pts is not None else -math.inf
            inside = {stamp for stamp in inside if stamp < lost}
            continue
        if packet.pts is not None and not damages:
            inside.add(packet.pts)
        for frame in frames:
            if damages and frame.pts not in inside:
                yield from damages
                damages.clear()
            inside.discard(frame.pts)
            stamp = None if frame.pts is None else clock.time_of(frame.pts, usual)
            seconds = index / rate if stamp is None else stamp * tick
            start = seconds if start is None else start
            wanted = (
                selector.takes(index, seconds - start) if chosen is None else frame.pts in chosen
            )
            index += 1
            if frame.is_corrupt:
                yield Damage(f"the frame at {seconds - start:.2f} s is corrupt")
            elif wanted:
                taken += 1
                yield Frame(frame_converter.convert(frame), seconds - start, stamp=stamp)
    yield from damages
    yield from truncation.holes()
    yield from truncation.shortfall()
    if chosen is not None and taken < len(chosen):
        yield Damage(f"{len(chosen) - taken} frames don't come out of the decoder")
    yield from miscounted(index if chosen is None else truncation.shown, video)


def choose_ahead(video: VideoSource, sampling: Sampling) -> set[int] | None:
    """The stamps of the chosen frames, from the packets alone; None if only decoding tells them.

    With them, frames need not be decoded that are neither chosen nor referred to: a quarter of the
    work on usual videos.
    """
    with open_video(video.path) as (container, stream):
        if stream.codec_context.name not in SKIPPABLE_CODECS or sampling.all:
            return None
        tick = float(stream.time_base or 0)
        packets = [
            packet for packet in container.demux(stream) if packet.size and not packet.is_discard
        ]
    stamps = [packet.pts for packet in packets if packet.pts is not None]
    decoded = [packet.dts for packet in packets if packet.dts is not None]
    # the decoder may drop frames that precede the first key frame; and stamps that are missing,
    # repeated or jump back can't identify frames
    if (
        not packets
        or decoded != sorted(decoded)
        or len(set(stamps)) < len(packets)
        or not packets[0].is_keyframe
        or min(stamps) < stamps[0]
    ):
        return None
    selector = FrameSelector(sampling)
    return {
        stamp
        for index, stamp in enumerate(sorted(stamps))
        if selector.takes(index, (stamp - stamps[0]) * tick)
    }


class TruncationCheck:
    """Checks whether a file is truncated: counts its packets while they are read, and compares them
    with its headers."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        self.container, self.stream = container, stream
        self.packets = 0
        """Number of the stream's packets."""
        self.shown = 0
        """Number of packets whose frames are to be shown."""
        self.stamps: list[int] = []
        """Stamps of the packets."""
        self.ends: dict[int, float] = {}
        """Where each stream's last packet ends, in seconds."""

    def watch(self) -> Iterator["av.Packet[Any]"]:
        """Yield the stream's packets. If the headers give a length but no number of frames, other
        streams' packets are read, too, and checked."""
        ticks = {stream.index: float(stream.time_base or 0) for stream in self.container.streams}
        for packet in (
            self.container.demux() if self.is_timed else self.container.demux(self.stream)
        ):
            index = packet.stream.index
            if packet.pts is not None:
                end = (packet.pts + (packet.duration or 0)) * ticks[index]
                self.ends[index] = max(end, self.ends.get(index, 0.0))
            if index == self.stream.index:
                self.packets += bool(packet.size)
                self.shown += bool(packet.size) and not packet.is_discard
                if packet.pts is not None:
                    self.stamps.append(packet.pts)
                yield packet

    @property
    def is_timed(self) -> bool:
        """Whether the headers give only the length of the whole file."""
        return not self.stream.frames and self.container.format.name in TIMED

    def shortfall(self) -> Iterator[Damage]:
        """Yield a Damage if the file has less than its headers say.

        A number of frames alone is not reliable, since AVI may count fields or ticks of H.264. A
        stream that has its full duration is complete.
        """
        counted = self.stream.frames
        if self.packets < counted * (1 - SHORTFALL) and not self.is_complete:
            yield Damage(f"ends after {self.packets} of {counted} frames")
        if self.is_timed:
            seconds = (self.container.duration or 0) / av.time_base
            end = max(self.ends.values(), default=0.0)
            if end < seconds - max(SHORT_SECONDS, SHORT_PART * seconds):
                yield Damage(f"ends after {end:.1f} of {seconds:.1f} seconds")

    def holes(self) -> Iterator[Damage]:
        """Yield a Damage for each place of an even stream where frames are missing."""
        if self.container.format.name != MATROSKA or len(self.stamps) < HOLE_FRAMES:
            return
        stamps = np.sort(self.stamps)
        steps = np.diff(stamps)
        usual = float(np.median(steps))
        is_hole = steps > HOLE_FRAMES * usual
        is_even = np.abs(steps[~is_hole] - usual).max(initial=0) <= EVEN_TICKS
        if is_even and is_hole.sum() <= max(1, HOLE_PART * len(steps)):
            tick = float(self.stream.time_base or 0)
            for begin, step in zip(stamps[:-1][is_hole], steps[is_hole], strict=True):
                start = (begin - stamps[0] + usual) * tick
                end = (begin - stamps[0] + step) * tick
                yield Damage(f"frames are missing from {start:.2f} to {end:.2f} s")

    @property
    def is_complete(self) -> bool:
        """Whether the stream has reached its duration."""
        if not self.stream.duration or not self.stream.time_base:
            return False
        tick = float(self.stream.time_base)
        seconds, start = self.stream.duration * tick, (self.stream.start_time or 0) * tick
        return self.ends.get(self.stream.index, 0.0) - start >= seconds * (1 - SHORTFALL)


class FrameConverter:
    """Converts decoded frames to images: upright, resized, RGB. Reuses objects that are costly to
    set up."""

    def __init__(self, sizing: Sizing, aspect: Fraction = Fraction(1)) -> None:
        """`sizing` gives the images' size; `aspect` is a stored pixel's width divided by its
        height."""
        self.sizing, self.aspect = sizing, aspect
        self.scaler, self.converter = VideoReformatter(), VideoReformatter()

    def convert(self, frame: av.VideoFrame) -> Image.Image:
        """Convert a frame to RGB with square pixels, rotated and mirrored as a player shows it.

        It is resized before the conversion to RGB, which takes a third of the time of the other
        order.
        """
        turn = transposition(frame)
        lying = turn in TRANSPOSED
        shown = max(round(frame.width * self.aspect), 1), frame.height
        upright = self.sizing.of(*(reversed(shown) if lying else shown))
        width, height = reversed(upright) if lying else upright
        if (width, height) != (frame.width, frame.height):
            sized = self.scaler.reformat(
                frame, width, height, "yuv420p", interpolation=EXACT, threads=1
            )
        else:
            sized = frame
        # if the width is not a multiple of 8, FFmpeg's fast path may leave out the last columns,
        # where rows have no padding
        way = EXACT if width % 8 == 0 else EXACT | int(Interpolation.ACCURATE_RND)
        pixels = self.converter.reformat(sized, format="rgba", interpolation=way, threads=1).planes[
            0
        ]
        # four bytes per pixel, as in Pillow: nothing is copied, and the JPEG is encoded from this
        # memory
        memory = np.frombuffer(memoryview(pixels), np.uint8)
        image = Image.frombuffer(
            "RGBX", (width, height), memory, "raw", "RGBX", pixels.line_size, 1
        )
        return image if turn is None else image.transpose(turn)


def decode_folder(
    video: VideoSource, sampling: Sampling, sizing: Sizing
) -> Iterator[Frame | Damage]:
    """Yield frames of a folder of numbered images, in the order of their numbers."""
    selector = FrameSelector(sampling)
    files = frame_files(video.path)
    if not files:
        yield Damage("no numbered images")
        return
    yield from misnumbered(files)
    depth = folder_depth([path for _, path in files])
    for index, (_, path) in enumerate(files):
        seconds = index / sampling.folder_fps
        if selector.takes(index, seconds):
            try:
                yield read_image(path, seconds, sizing, depth)
            except UNREADABLE as error:
                yield Damage(f"{path.name}: {reason_of(error)}")
    yield from miscounted(len(files), video)


def misnumbered(files: list[tuple[int, Path]]) -> Iterator[Damage]:
    """Yield a Damage for each gap in the numbers, and for each number that occurs twice."""
    for (previous, _), (number, path) in pairwise(files):
        if number == previous:
            yield Damage(f"frame {number} comes twice")
        elif number != previous + 1:
            yield Damage(f"{missing(previous + 1, number)} missing before {path.name}")


def missing(low: int, high: int) -> str:
    """The frame numbers from `low` to before `high`, in words."""
    return f"frame {low} is" if high == low + 1 else f"frames {low} to {high - 1} are"


def folder_depth(paths: list[Path]) -> int:
    """The number of bits that 16-bit grey frames use, for which all frames are read. Other frames
    are not read; the result does not matter for them."""
    try:
        with Image.open(paths[0]) as image:
            is_deep = image.mode in GREY16
    except UNREADABLE:
        is_deep = False  # the damage will be reported when the frame is read
    return grey_depth(paths) if is_deep else DEPTHS[-1]


def read_image(path: Path, seconds: float, sizing: Sizing, depth: int) -> Frame:
    """Read a frame from an image file.

    The content of a JPEG that has the right size is kept, so that packing does not lower its
    quality; but not if its EXIF rotates it, because readers of the shards ignore EXIF.
    """
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        is_plain = image.format == "JPEG" and image.mode == "RGB" and not is_rotated(image)
        picture = to_rgb(image, depth)  # decodes it, so that damage is found
    size = sizing.of(*picture.size)
    is_kept = is_plain and picture.size == size
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return Frame(picture, seconds, content if is_kept else None)


def frame_files(folder: Path) -> list[tuple[int, Path]]:
    """The numbers and images of a frame folder, in the order of the numbers."""
    numbered = [(frame_number(path), path) for path in folder.iterdir()]
    return sorted((number, path) for number, path in numbered if number is not None)


def miscounted(count: int, video: VideoSource) -> Iterator[Damage]:
    """Yield a Damage if a list gives another number of frames."""
    if video.listed not in (None, count):
        yield Damage(f"has {count} frames, the list says {video.listed}")


class FrameSelector:
    """Chooses frames by time, the first at or after each multiple of 1/fps, or by number."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.due = 0

    def takes(self, index: int, seconds: float) -> bool:
        """Whether the frame is chosen; must be called in the order of time."""
        if self.sampling.every:
            return index % self.sampling.every == 0
        if math.isinf(self.sampling.fps):
            return True
        # 1e-6: a stamp a rounding error early is on time
        tick = int(seconds * self.sampling.fps + 1e-6)
        if tick < self.due:
            return False
        self.due = tick + 1
        return True
