"""Video files opened: which stream of them a player shows, and how its frames are to be shown.
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

# bytes of metadata that are no UTF-8 are kept; PyAV does so by itself from 19 on, and has no such
# argument any more
LENIENT: dict[str, Any] = (
    {"metadata_errors": "surrogateescape"} if int(av.__version__.split(".")[0]) < 19 else {}
)
STILLS = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
# by its content alone, a file is taken for a video if it is one of these: others are guessed from
# too little
FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,gif,mxf,yuv4mpegpipe,rm,nut,ivf,wtv"
PEEK = 500  # packets in which a second picture must come, if a stream is not a single one
WIDEST = 8  # times a pixel's width its height, or the other way: more is no aspect but damage

# what a display matrix does to the axes (x to x, x to y, y to x, y to y), and what does the same to
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
    """A media file, opened to be read; with any PyAV."""
    # FFmpeg takes `12:30.mp4` for a URL
    container: InputContainer = av.open(str(path.absolute()), options=options or {}, **LENIENT)
    return container


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """A file, and the stream of it that a player shows; closed at the end of the block.

    Raises:
        av.FFmpegError: nothing that FFmpeg reads.
        ValueError: no video stream that can be decoded; pictures that are attached to music are
            none.
    """
    with open_container(path) as container:
        yield container, shown_stream(container, path)


def shown_stream(container: InputContainer, path: Path) -> av.VideoStream:
    """Of several: the one that moves, then the one that is marked as the default, then the
    largest."""
    # a stream of a codec that FFmpeg does not know has no context
    known = [stream for stream in container.streams.video if stream.codec_context is not None]
    streams = [stream for stream in known if not stream.disposition & STILLS]
    if not streams:
        raise ValueError("no video stream that can be decoded")
    moving = moving_streams(path) if len(streams) > 1 else set()

    def rank(stream: av.VideoStream) -> tuple[bool, bool, int]:
        is_default = bool(stream.disposition & Disposition.default)
        return stream.index in moving, is_default, stream.width * stream.height

    return max(streams, key=rank)


def moving_streams(path: Path) -> set[int]:
    """The numbers of a file's video streams of more than one picture; looked for at its beginning
    alone."""
    pictures: Counter[int] = Counter()
    with open_container(path) as container:
        streams = container.streams.video
        for number, packet in enumerate(container.demux(*streams)):
            pictures[packet.stream.index] += bool(packet.size)
            if number == PEEK or all(pictures[stream.index] > 1 for stream in streams):
                break
    return {index for index, count in pictures.items() if count > 1}


def is_video(path: Path) -> bool:
    """Whether a file is a video by its content, whatever it is called: of a known format, with two
    pictures at least."""
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
    """A pixel's width, of its height, as it is stored."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return aspect if Fraction(1, WIDEST) <= aspect <= WIDEST else Fraction(1)


def transposition(frame: av.VideoFrame) -> Image.Transpose | None:
    """What turns a decoded frame as a player shows it, which may be mirrored; None: nothing, or an
    oblique turn."""
    matrix: Any = frame.side_data.get(SideData.DISPLAYMATRIX)  # type: ignore[call-overload]
    if matrix is None:
        return None
    x_x, x_y, _, y_x, y_y, *_ = struct.unpack_from("=9i", bytes(matrix))
    size = max(map(abs, (x_x, x_y, y_x, y_y)), default=0) or 1
    return TRANSPOSITIONS.get(
        (round(x_x / size), round(x_y / size), round(y_x / size), round(y_y / size))
    )
