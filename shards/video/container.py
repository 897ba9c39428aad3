"""Opens video files: finds the stream that a player shows, and how its frames are displayed.
Decoding is in `decode.py`."""

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from PIL import Image

# keep metadata that is not UTF-8; PyAV does so by default from 19 on, where the argument was
# removed
LENIENT: dict[str, Any] = (
    {"metadata_errors": "surrogateescape"} if int(av.__version__.split(".")[0]) < 19 else {}
)
STILL_IMAGE = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
# formats of which a file's content alone makes it a video; FFmpeg guesses others from too few bytes
FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,gif,mxf,yuv4mpegpipe,rm,nut,ivf,wtv"
PEEK = 500  # packets to search for a second frame; a stream without one is a still image
WIDEST = 8  # largest ratio of a pixel's width and height, either way; more is damaged metadata

# a display matrix's effect on the axes (x to x, x to y, y to x, y to y), and the same operation on
# an image
TRANSPOSITIONS = {
    (1, 0, 0, 1): None,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
}


def open_container(path: Path, options: dict[str, str] | None = None) -> InputContainer:
    """Open a media file for reading, with any version of PyAV."""
    # absolute, because FFmpeg takes `12:30.mp4` for a URL
    container: InputContainer = av.open(str(path.absolute()), options=options or {}, **LENIENT)
    return container


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open a file and the video stream that a player shows; closed at the end of the block.

    Raises:
        av.FFmpegError: FFmpeg can't read the file.
        ValueError: there is no video stream that can be decoded; pictures attached to music do not
            count.
    """
    with open_container(path) as container:
        yield container, shown_stream(container, path)


def shown_stream(container: InputContainer, path: Path) -> av.VideoStream:
    """Choose the video stream that a player shows: moving before still ones, then the default one,
    then the largest."""
    # a stream of a codec that FFmpeg does not know has no context
    known = [stream for stream in container.streams.video if stream.codec_context is not None]
    streams = [stream for stream in known if not stream.disposition & STILL_IMAGE]
    if not streams:
        raise ValueError("no video stream that can be decoded")
    moving = moving_streams(path) if len(streams) > 1 else set()

    def rank(stream: av.VideoStream) -> tuple[bool, bool, int]:
        is_default = bool(stream.disposition & Disposition.default)
        return stream.index in moving, is_default, stream.width * stream.height

    return max(streams, key=rank)


def moving_streams(path: Path) -> set[int]:
    """The indices of a file's video streams with more than one frame, as far as its first packets
    tell."""
    pictures: Counter[int] = Counter()
    with open_container(path) as container:
        streams = container.streams.video
        for number, packet in enumerate(container.demux(*streams)):
            pictures[packet.stream.index] += bool(packet.size)
            if number == PEEK or all(pictures[stream.index] > 1 for stream in streams):
                break
    return {index for index, count in pictures.items() if count > 1}


def is_video(path: Path) -> bool:
    """Whether a file's content, whatever its name, is a video: of a known format, with at least two
    frames."""
    try:
        with open_container(path, {"format_whitelist": FORMATS}) as container:
            stream = shown_stream(container, path)
            return (
                sum(
                    bool(packet.size)
                    for packet, _ in zip(container.demux(stream), range(2), strict=False)
                )
                == 2
            )
    except (av.FFmpegError, OSError, ValueError):
        return False


def pixel_aspect(stream: av.VideoStream) -> Fraction:
    """A stored pixel's width divided by its height."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return aspect if Fraction(1, WIDEST) <= aspect <= WIDEST else Fraction(1)


def transposition(frame: av.VideoFrame) -> Image.Transpose | None:
    """The rotation or mirroring with which a player displays a frame; None if there is none, or the
    rotation is not a multiple of 90 degrees."""
    matrix: Any = frame.side_data.get(SideData.DISPLAYMATRIX)  # type: ignore[call-overload]
    if matrix is None:
        return None
    x_x, x_y, _, y_x, y_y, *_ = struct.unpack_from("=9i", bytes(matrix))
    size = max(map(abs, (x_x, x_y, y_x, y_y)), default=0) or 1
    return TRANSPOSITIONS.get(
        (round(x_x / size), round(x_y / size), round(y_x / size), round(y_y / size))
    )
