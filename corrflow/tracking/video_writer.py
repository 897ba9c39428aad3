"""Writes a video with sound frame by frame, as H.264 in MP4, which every browser plays. What is
drawn on the frames is in `drawing.py`."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from corrflow.pictures import Pixels

# audio codecs that MP4 can hold and browsers play; other sound is encoded as AAC
COPIED = {"aac", "mp3", "opus", "flac"}
LOWEST_MP3 = 16000  # Hz, the lowest sample rate of MP3 in MP4
# Hz, the sample rates of AAC
AAC_RATES = {
    96000, 88200, 64000, 48000, 44100, 32000, 24000,
    22050, 16000, 12000, 11025, 8000,
}  # fmt: skip
# x264's constant rate factor: looks the same as 15, at a third of the size
QUALITY = "20"


Packets = Iterator["av.Packet[av.AudioStream]"]
Sound = tuple[av.AudioStream, Packets]


@dataclass(frozen=True)
class VideoFormat:
    """Size and timing of a video's frames."""

    width: int
    """Pixels; an odd width or height is made even by repeating the last column or row."""
    height: int
    tick: Fraction = Fraction(1, 25)
    """Unit of the timestamps, in seconds."""
    fps: float = 25.0
    """Approximate frames per second, which sets how long the last frame is shown."""


class VideoWriter:
    """Writes a video, which appears under its name when it is finished. If it is not finished,
    nothing is left."""

    def __init__(self, path: Path, video_format: VideoFormat, sound: Sound | None = None) -> None:
        """Open a temporary file for `path`; `sound` is an audio stream of another file with its
        packets, timed on the clock of the frames."""
        self.path, self.tick = path, video_format.tick
        # 4:2:0 needs even sides
        width, height = (
            video_format.width + video_format.width % 2,
            video_format.height + video_format.height % 2,
        )
        self.padding = ((0, video_format.height % 2), (0, video_format.width % 2), (0, 0))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.unfinished = path.with_name(f".{path.name}.tmp.mp4")
        place = str(self.unfinished.absolute())  # FFmpeg takes `12:30.mp4` for a URL
        self.container = av.open(place, "w", options={"movflags": "+faststart"})
        self.video = self.container.add_stream(
            "libx264", Fraction(video_format.fps).limit_denominator(1001), {"crf": QUALITY}
        )
        self.video.width, self.video.height, self.video.pix_fmt = width, height, "yuv420p"
        context = self.video.codec_context
        context.time_base, context.bit_rate, context.sample_aspect_ratio = (
            video_format.tick,
            0,
            Fraction(1),
        )
        # MP4 takes a video's length from the decoding order: with B-frames and uneven timestamps
        # the video would end too early
        context.max_b_frames = 0
        # frames are converted to BT.709 and tagged so: without tags, players take small videos for
        # BT.601 and large ones for BT.709
        context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        self.sound = sound and mixed(self.container, *sound)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.unfinished.exists():
            with suppress(av.FFmpegError):  # closing may fail again if writing failed
                self.container.close()
            self.unfinished.unlink()

    def add(self, pixels_hw3: Pixels, stamp: int) -> None:
        """Write a frame, RGB `[H, W, 3]`, shown from `stamp` ticks on, and the sound up to it."""
        padded = (
            np.pad(pixels_hw3, self.padding, mode="edge")
            if any(map(any, self.padding))
            else pixels_hw3
        )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        frame = frame.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        frame.pts, frame.time_base = stamp, self.tick
        self.container.mux(self.video.encode(frame))
        if self.sound:
            self.sound.mux_until(stamp * self.tick)

    def finish(self, *, whole: bool) -> None:
        """Complete the video and give it its name. `whole`: no frame is missing at the end, so the
        sound may last longer than the frames."""
        self.container.mux(self.video.encode())
        if self.sound and whole:
            self.sound.mux_until(None)
        if self.sound:
            self.sound.finish()
        self.container.close()
        self.unfinished.replace(self.path)


def mixed(container: OutputContainer, source: av.AudioStream, packets: Packets) -> "Copied":
    """Add sound to a video, copied if MP4 can hold it, else encoded."""
    codec = source.codec_context.codec.canonical_name
    is_copied = codec in COPIED and (codec != "mp3" or source.rate >= LOWEST_MP3)
    return (Copied if is_copied else Encoded)(container, source, packets)


class Copied:
    """Sound whose packets are copied unchanged."""

    def __init__(
        self, container: OutputContainer, source: av.AudioStream, packets: Packets
    ) -> None:
        self.container, self.packets = container, packets
        self.stream = container.add_stream_from_template(source)
        self.waiting: av.Packet[av.AudioStream] | None = None

    def mux_until(self, seconds: Fraction | None) -> None:
        """Write the sound up to a time; None: all of it."""
        while (packet := self.waiting or next(self.packets, None)) is not None:
            self.waiting = packet
            if seconds is not None and (packet.pts or 0) * packet.time_base > seconds:
                return
            self.waiting = None
            self.write(packet)

    def write(self, packet: "av.Packet[av.AudioStream]") -> None:
        """Write one packet."""
        packet.stream = self.stream
        self.container.mux(packet)

    def finish(self) -> None:
        """Do nothing: all packets are written."""


class Encoded(Copied):
    """Sound that is decoded and encoded again as AAC, in stereo or mono."""

    def __init__(
        self, container: OutputContainer, source: av.AudioStream, packets: Packets
    ) -> None:
        self.container, self.packets, self.waiting = container, packets, None
        rate = source.rate if source.rate in AAC_RATES else 48000
        self.stream = container.add_stream("aac", rate)
        self.stream.codec_context.layout = "mono" if source.channels == 1 else "stereo"

    def write(self, packet: "av.Packet[av.AudioStream]") -> None:
        """Decode and encode one packet; one that can't be decoded leaves a moment of silence."""
        with suppress(av.InvalidDataError):
            for frame in packet.decode():
                self.container.mux(self.stream.encode(frame))

    def finish(self) -> None:
        """Write what is left in the encoder."""
        self.container.mux(self.stream.encode(None))
