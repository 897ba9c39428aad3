"""A video written frame by frame, with sound: H.264 in MP4, as every browser plays it. What is
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

# codecs that MP4 holds and browsers play; other sound becomes AAC
COPIED = {"aac", "mp3", "opus", "flac"}
LOWEST_MP3 = 16000  # Hz, of MP3 that MP4 holds
# Hz, those that AAC knows
AAC_RATES = {
    96000, 88200, 64000, 48000, 44100, 32000, 24000,
    22050, 16000, 12000, 11025, 8000,
}  # fmt: skip
# x264's constant rate factor: no difference to be seen, at a third of the size of 15
QUALITY = "20"


Packets = Iterator["av.Packet[av.AudioStream]"]
Sound = tuple[av.AudioStream, Packets]


@dataclass(frozen=True)
class VideoFormat:
    """What a video's frames are like."""

    width: int
    """Pixels; an odd width or height is made even by repeating the last column or row."""
    height: int
    tick: Fraction = Fraction(1, 25)
    """Unit of the stamps, in seconds."""
    fps: float = 25.0
    """About how many frames come a second: how long the last one is shown."""


class VideoWriter:
    """A video that is being written. It appears under its name when it is finished; left
    unfinished, it leaves nothing."""

    def __init__(self, path: Path, video_format: VideoFormat, sound: Sound | None = None) -> None:
        """Open the file that will be `path`; `sound` is what is stored elsewhere, with its packets
        on the clock of the frames."""
        self.path, self.tick = path, video_format.tick
        # 4:2:0 has no odd ones
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
        # MP4 counts its length by the order of decoding: where stamps are uneven, it would end too
        # early
        context.max_b_frames = 0
        # said and done: without a word, players take small videos to be BT.601 and large ones to be
        # BT.709
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
            with suppress(av.FFmpegError):  # of what is thrown away: it may well be what failed
                self.container.close()
            self.unfinished.unlink()

    def add(self, pixels_hw3: Pixels, stamp: int) -> None:
        """One more frame, RGB `[H, W, 3]`, shown from `stamp` ticks on; the sound up to there goes
        with it."""
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
        """Give the video its name. `whole`: no frame is missing at its end, so that the sound may
        last longer than the pictures."""
        self.container.mux(self.video.encode())
        if self.sound and whole:
            self.sound.mux_until(None)
        if self.sound:
            self.sound.finish()
        self.container.close()
        self.unfinished.replace(self.path)


def mixed(container: OutputContainer, source: av.AudioStream, packets: Packets) -> "Copied":
    """Sound as it goes into a video."""
    codec = source.codec_context.codec.canonical_name
    is_copied = codec in COPIED and (codec != "mp3" or source.rate >= LOWEST_MP3)
    return (Copied if is_copied else Encoded)(container, source, packets)


class Copied:
    """Sound whose packets are taken as they are."""

    def __init__(
        self, container: OutputContainer, source: av.AudioStream, packets: Packets
    ) -> None:
        self.container, self.packets = container, packets
        self.stream = container.add_stream_from_template(source)
        self.waiting: av.Packet[av.AudioStream] | None = None

    def mux_until(self, seconds: Fraction | None) -> None:
        """Write what is heard up to then; None: all."""
        while (packet := self.waiting or next(self.packets, None)) is not None:
            self.waiting = packet
            if seconds is not None and (packet.pts or 0) * packet.time_base > seconds:
                return
            self.waiting = None
            self.write(packet)

    def write(self, packet: "av.Packet[av.AudioStream]") -> None:
        """One packet."""
        packet.stream = self.stream
        self.container.mux(packet)

    def finish(self) -> None:
        """Nothing is held back."""


class Encoded(Copied):
    """Sound that is decoded and becomes AAC, in stereo or mono."""

    def __init__(
        self, container: OutputContainer, source: av.AudioStream, packets: Packets
    ) -> None:
        self.container, self.packets, self.waiting = container, packets, None
        rate = source.rate if source.rate in AAC_RATES else 48000
        self.stream = container.add_stream("aac", rate)
        self.stream.codec_context.layout = "mono" if source.channels == 1 else "stereo"

    def write(self, packet: "av.Packet[av.AudioStream]") -> None:
        """One packet; what can't be decoded is a moment of silence."""
        with suppress(av.InvalidDataError):
            for frame in packet.decode():
                self.container.mux(self.stream.encode(frame))

    def finish(self) -> None:
        """What the encoder holds back."""
        self.container.mux(self.stream.encode(None))
