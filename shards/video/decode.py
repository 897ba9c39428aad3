"""A video to frames: files through PyAV, folders of numbered images; chosen by time or by number,
turned upright, sized.

Frames come as they are read. What can't be decoded comes in between as a `Damage`, and reading goes
on behind it.
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
from shards.video.images import DEPTHS, GREY16, UNREADABLE, grey_depth, is_turned, to_rgb
from shards.video.sampling import Sampling, Sizing
from shards.video.sources import VideoSource, frame_number

SHORTFALL = 0.02  # of a file's frames may be missing without a word: an edit list hides some
# behind damaged bytes FFmpeg looks for the next cluster of this format, and says nothing
MATROSKA = "matroska,webm"
HOLE_FRAMES = 3  # so long must a pause be, in an even stream, for frames to be missing there
HOLE_PART = 0.01  # in a stream of more pauses they are meant
EVEN_TICKS = 2  # by which the frames of an even stream are apart more or less than usual
# formats that say how long they are; of others FFmpeg guesses by the bit rate
TIMED = {
    MATROSKA,
    "mov,mp4,m4a,3gp,3g2,mj2",
}
SHORT_SECONDS, SHORT_PART = 1.0, 0.05  # of which that much may be missing: the larger of the two
JUMP_SECONDS = 1.0  # back in time: another recording begins
SPARING = {"h264", "hevc"}  # codecs whose decoders can pass over frames that no other refers to
# the same bytes on every processor; and from 4:2:0 to RGB without blurring colours that JPEG will
# halve again
EXACT = int(Interpolation.BILINEAR | Interpolation.BITEXACT)


# the turns after which a frame's width is its height
LYING = {
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
}


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
    """The file's own, in ticks of its video stream, going on where it jumps back; None if it has
    none."""


@dataclass(frozen=True)
class Damage:
    """Something that could not be decoded."""

    reason: str


def decode(
    video: VideoSource, sampling: Sampling, sizing: Sizing, threads: int = 0
) -> Iterator[Frame | Damage]:
    """The chosen frames of a video, sized, and what is damaged in between.

    Args:
        video: what to decode.
        sampling: which frames to take.
        sizing: how large to give them.
        threads: of the decoder; 0: as many as it likes.
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
    """Frames of a video file."""
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
    """Frames of a file's video stream."""
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
    # stamps of packets whose frames are still to come, and damage to be told behind them
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
    """The stamps of the frames to take, from the packets alone; None if only decoding tells.

    Known before, they spare decoding what is neither taken nor needed for what is: a quarter of the
    work on usual videos.
    """
    with open_video(video.path) as (container, stream):
        if stream.codec_context.name not in SPARING or sampling.all:
            return None
        tick = float(stream.time_base or 0)
        packets = [
            packet for packet in container.demux(stream) if packet.size and not packet.is_discard
        ]
    stamps = [packet.pts for packet in packets if packet.pts is not None]
    decoded = [packet.dts for packet in packets if packet.dts is not None]
    # what leads before the first key frame may not come out of the decoder; stamps that are missing
    # or doubled, or jump back, choose nothing
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
    """How far a file goes: counted while its packets are read, held against what its headers
    say."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        self.container, self.stream = container, stream
        self.packets = 0
        """Of the stream."""
        self.shown = 0
        """Of these, those whose frames are to be shown."""
        self.stamps: list[int] = []
        """Of the frames to be shown."""
        self.ends: dict[int, float] = {}
        """Where each stream's last packet ends, in seconds."""

    def watch(self) -> Iterator["av.Packet[Any]"]:
        """The stream's packets; where the headers give a time but no count, the other streams' are
        looked at on the way."""
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
        """Whether only the length of the whole file is known."""
        return not self.stream.frames and self.container.format.name in TIMED

    def shortfall(self) -> Iterator[Damage]:
        """A Damage if the file gave less than its headers say.

        A count alone is a hint: AVI counts fields, or the ticks of H.264. A stream that ends when
        it should is whole.
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
        """A Damage for each place of an even stream where frames are missing."""
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
        """Whether the stream came to the end that its duration tells."""
        if not self.stream.duration or not self.stream.time_base:
            return False
        tick = float(self.stream.time_base)
        seconds, start = self.stream.duration * tick, (self.stream.start_time or 0) * tick
        return self.ends.get(self.stream.index, 0.0) - start >= seconds * (1 - SHORTFALL)


class FrameConverter:
    """Decoded frames to images: upright, sized, RGB. Keeps what is costly to set up from frame to
    frame."""

    def __init__(self, sizing: Sizing, aspect: Fraction = Fraction(1)) -> None:
        """Args: the size to give them; a stored pixel's width, of its height."""
        self.sizing, self.aspect = sizing, aspect
        self.scaler, self.converter = VideoReformatter(), VideoReformatter()

    def convert(self, frame: av.VideoFrame) -> Image.Image:
        """RGB with square pixels, turned and mirrored as a player shows it.

        Scaled before it becomes RGB, at a third of the cost of the other way.
        """
        turn = transposition(frame)
        lying = turn in LYING
        shown = max(round(frame.width * self.aspect), 1), frame.height
        upright = self.sizing.of(*(reversed(shown) if lying else shown))
        width, height = reversed(upright) if lying else upright
        if (width, height) != (frame.width, frame.height):
            sized = self.scaler.reformat(
                frame, width, height, "yuv420p", interpolation=EXACT, threads=1
            )
        else:
            sized = frame
        # FFmpeg's fast way leaves out the last columns of a width that isn't a multiple of 8, where
        # the row has no room behind it
        way = EXACT if width % 8 == 0 else EXACT | int(Interpolation.ACCURATE_RND)
        pixels = self.converter.reformat(sized, format="rgba", interpolation=way, threads=1).planes[
            0
        ]
        # four bytes a pixel, as Pillow has them: nothing is copied, and the JPEG is made of this
        # very memory
        memory = np.frombuffer(memoryview(pixels), np.uint8)
        image = Image.frombuffer(
            "RGBX", (width, height), memory, "raw", "RGBX", pixels.line_size, 1
        )
        return image if turn is None else image.transpose(turn)


def decode_folder(
    video: VideoSource, sampling: Sampling, sizing: Sizing
) -> Iterator[Frame | Damage]:
    """Frames of a folder of numbered images, in the order of their numbers."""
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
    """A Damage for each number that is missing between two, or comes twice."""
    for (previous, _), (number, path) in pairwise(files):
        if number == previous:
            yield Damage(f"frame {number} comes twice")
        elif number != previous + 1:
            yield Damage(f"{missing(previous + 1, number)} missing before {path.name}")


def missing(low: int, high: int) -> str:
    """The numbers from `low` to before `high`."""
    return f"frame {low} is" if high == low + 1 else f"frames {low} to {high - 1} are"


def folder_depth(paths: list[Path]) -> int:
    """The bits that 16-bit grey frames use, for which all must be read; any other frames need
    none."""
    try:
        with Image.open(paths[0]) as image:
            is_deep = image.mode in GREY16
    except UNREADABLE:
        is_deep = False  # the damage will be told
    return grey_depth(paths) if is_deep else DEPTHS[-1]


def read_image(path: Path, seconds: float, sizing: Sizing, depth: int) -> Frame:
    """A frame from an image file.

    A JPEG that has the right size already is kept as it is, lest it lose by being packed; not one
    that is turned by its EXIF, which who reads the shards would not look at.
    """
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        is_plain = image.format == "JPEG" and image.mode == "RGB" and not is_turned(image)
        picture = to_rgb(image, depth)  # decodes it, so that damage is seen
    size = sizing.of(*picture.size)
    is_kept = is_plain and picture.size == size
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return Frame(picture, seconds, content if is_kept else None)


def frame_files(folder: Path) -> list[tuple[int, Path]]:
    """The images of a frame folder and their numbers, in that order."""
    numbered = [(frame_number(path), path) for path in folder.iterdir()]
    return sorted((number, path) for number, path in numbered if number is not None)


def miscounted(count: int, video: VideoSource) -> Iterator[Damage]:
    """A Damage if a list says another number of frames."""
    if video.listed not in (None, count):
        yield Damage(f"has {count} frames, the list says {video.listed}")


class FrameSelector:
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
        # 1e-6: a stamp a rounding error early is on time
        tick = int(seconds * self.sampling.fps + 1e-6)
        if tick < self.due:
            return False
        self.due = tick + 1
        return True
