import csv
import math
import re
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.stream import Disposition
from conftest import SHARED
from PIL import ExifTags, Image
from test_pack import SMALL, write_folder, write_video
from test_sources import NEEDS_FORK, as_nobody

from shards.packing.pack import pack
from shards.video.decode import Damage, Frame, FrameSelector, choose_ahead, decode
from shards.video.sampling import Sampling, Sizing
from shards.video.sources import VideoSource
from shards.video.video_reader import open_video_reader

ALL, AS_IS = Sampling(math.inf), Sizing()
RED, GREEN, BLUE, YELLOW = (200, 30, 30), (30, 180, 30), (30, 30, 200), (210, 210, 40)
# a, b, c, d of the display matrix with which players rotate the picture clockwise, by degrees
TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
# and of the matrices that mirror it: left to right, upside down, about each diagonal
MIRRORS = {
    "hflip": (-1, 0, 0, 1),
    "vflip": (1, 0, 0, -1),
    "transpose": (0, 1, 1, 0),
    "transverse": (0, -1, -1, 0),
}


def quadrants(width, height):
    """A picture with one colour in each quadrant."""
    pixels = np.zeros((height, width, 3), np.uint8)
    y, x = height // 2, width // 2
    pixels[:y, :x], pixels[:y, x:], pixels[y:, :x], pixels[y:, x:] = RED, GREEN, BLUE, YELLOW
    return pixels


def moving(count, width=96, height=64):
    """Moving pictures with much detail, so that an encoded file is not tiny."""
    blocks = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3))
    blocks = np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8)
    return [np.roll(blocks, (2 * t, 3 * t), (0, 1)) for t in range(count)]


def write(
    path,
    pictures,
    codec="libx264",
    pixel_format="yuv420p",
    rate=25,
    pts=None,
    gop=12,
    container=None,
    aspect=None,
    options=None,
    **colours,
):
    """Encode the pictures to a file. `options` are further ones of the encoder; `colours` are
    colorspace or color_range."""
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec}")
    with av.open(str(path), "w", options=container or {}) as output:
        stream = output.add_stream(
            codec,
            rate=rate,
            options={**({"crf": "8"} if codec == "libx264" else {}), **(options or {})},
        )
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = pixel_format, 4_000_000
        stream.codec_context.gop_size, stream.codec_context.sample_aspect_ratio = (
            gop,
            aspect or Fraction(1),
        )
        for name, value in colours.items():
            setattr(stream.codec_context, name, value)
        for t, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(
                format=pixel_format, **{f"dst_{name}": value for name, value in colours.items()}
            )
            frame.pts = pts[t] if pts else t
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def set_display_matrix(path, matrix):
    """Set a, b, c, d of an MP4's display matrix, by which players rotate or mirror it."""
    content = bytearray(path.read_bytes())
    a, b, c, d = (65536 * n for n in matrix)
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def damage(path, begin):
    """Overwrite 400 bytes with random ones."""
    content = bytearray(path.read_bytes())
    content[begin : begin + 400] = np.random.default_rng(0).bytes(400)
    path.write_bytes(content)


def decode_video(path, sampling=ALL, sizing=AS_IS, listed=None):
    """The decoded frames of a video, and the reasons of its damage."""
    items = list(decode(VideoSource("key", path, listed), sampling, sizing, threads=1))
    return [f for f in items if isinstance(f, Frame)], [
        d.reason for d in items if isinstance(d, Damage)
    ]


def frames_of(path, sampling=ALL, sizing=AS_IS):
    """The decoded frames of a video, which must have no damage."""
    frames, reasons = decode_video(path, sampling, sizing)
    assert not reasons
    return frames


def corners(image):
    """The colours of the quadrants, row by row."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    return [
        pixels[y, x] for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)
    ]


def pack_failures(source, out):
    """Pack a folder; returns reason and number of good frames of each video that failed."""
    pack(source, out, SMALL, processes=1)
    with (out / "failures.csv").open() as file:
        return {
            row["video"]: (row["reason"], int(row["good_frames"])) for row in csv.DictReader(file)
        }


def chosen_frames(sampling, rate):
    selector = FrameSelector(sampling)
    return [n for n in range(20) if selector.takes(n, n / rate)]


def test_frames_are_chosen_by_their_time(tmp_path):
    assert chosen_frames(Sampling(6.25), 25) == [0, 4, 8, 12, 16]
    assert chosen_frames(Sampling(10), 25) == [0, 3, 5, 8, 10, 13, 15, 18]
    assert chosen_frames(Sampling(50), 25) == chosen_frames(ALL, 25) == list(range(20))
    frames = frames_of(write_video(tmp_path / "a.mp4"), Sampling(6.25))
    np.testing.assert_allclose(
        [np.asarray(f.image.convert("L")).mean() for f in frames], [0, 40, 80], atol=3
    )
    assert [f.seconds for f in frames] == pytest.approx([0, 0.16, 0.32])


def test_every_nth_frame_is_chosen_regardless_of_time(tmp_path):
    assert chosen_frames(Sampling(6.25, every=3), 25) == [0, 3, 6, 9, 12, 15, 18]
    frames = frames_of(write_video(tmp_path / "a.mp4", fps=5), Sampling(25, every=4))
    assert [f.seconds for f in frames] == pytest.approx([0, 0.8, 1.6])


@pytest.mark.parametrize("sampling", [Sampling(6.25), Sampling(0.0, every=3)])
def test_skipping_frames_does_not_change_the_chosen_ones(tmp_path, sampling):
    path = write(tmp_path / "b.mp4", moving(60), gop=30)
    chosen = frames_of(path, sampling)
    all_frames = frames_of(path)
    selector = FrameSelector(sampling)
    expected = [
        frame for index, frame in enumerate(all_frames) if selector.takes(index, frame.seconds)
    ]
    assert [(f.seconds, f.image.tobytes()) for f in chosen] == [
        (f.seconds, f.image.tobytes()) for f in expected
    ]
    stamps = choose_ahead(VideoSource("b", path), sampling)
    assert stamps is not None and len(stamps) == len(chosen)


def test_without_usable_stamps_every_frame_is_decoded(tmp_path):
    video = VideoSource(
        "key", write(tmp_path / "m.avi", moving(12), codec="mjpeg", pixel_format="yuvj420p")
    )
    assert choose_ahead(video, Sampling(6.25)) is None
    headless = write(tmp_path / "h.ts", moving(40), gop=10)
    content = headless.read_bytes()
    # the file now begins between two key frames
    headless.write_bytes(content[188 * (len(content) // 188 // 6) :])
    assert choose_ahead(VideoSource("h", headless), Sampling(6.25)) is None


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_time_stamps_are_used_for_a_variable_frame_rate(tmp_path, name):
    pts = [0, 1, 2, 3, 4, 20, 21, 40, 41, 60]
    path = write(tmp_path / name, moving(10), pts=pts)
    frames = frames_of(path)
    assert [f.seconds for f in frames] == pytest.approx([p / 25 for p in pts], abs=2e-3)
    assert [round(f.seconds * 25) for f in frames_of(path, Sampling(6.25))] == [0, 4, 20, 40, 60]


@pytest.mark.parametrize(("name", "codec"), [("a.ts", "libx264"), ("a.mpg", "mpeg2video")])
def test_a_second_recording_in_one_file_follows_the_first_in_time(tmp_path, name, codec):
    path = write(tmp_path / name, moving(50), codec)
    path.write_bytes(2 * path.read_bytes())
    seconds = [frame.seconds for frame in frames_of(path)]
    assert seconds == pytest.approx([n / 25 for n in range(100)], abs=1e-3)
    chosen = [frame.seconds for frame in frames_of(path, Sampling(5))]
    assert chosen == pytest.approx([n / 5 for n in range(20)], abs=1e-3)


def test_time_begins_with_the_first_frame(tmp_path):
    path = write(tmp_path / "a.mkv", moving(10), pts=list(range(100, 110)))
    assert [round(f.seconds * 25) for f in frames_of(path, Sampling(6.25))] == [0, 4, 8]


def test_a_folder_of_frames_is_timed_by_the_given_frame_rate(tmp_path):
    folder = write_folder(tmp_path / "a", range(1, 21))
    assert len(frames_of(folder, Sampling(5))) == 4
    assert [f.seconds for f in frames_of(folder, Sampling(5, folder_fps=10))] == pytest.approx(
        [0.2 * n for n in range(10)]
    )


def test_frames_are_shrunk_or_squashed_but_not_enlarged(tmp_path):
    for path, size in (
        (write_video(tmp_path / "a.mp4"), (64, 48)),
        (write_folder(tmp_path / "b"), (60, 40)),
    ):
        assert frames_of(path, sizing=Sizing(24))[0].image.size == (size[0] * 24 // size[1], 24)
        assert (
            frames_of(path, sizing=Sizing(500))[0].image.size
            == frames_of(path)[0].image.size
            == size
        )
        assert frames_of(path, sizing=Sizing(squash=(20, 30)))[0].image.size == (20, 30)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(64, 96, (32, 48)), (101, 67, (48, 32)), (67, 101, (32, 48)), (97, 33, (94, 32))],
)
def test_odd_and_portrait_sizes_keep_their_aspect_ratio(tmp_path, width, height, expected):
    path = write(tmp_path / "a.mp4", [quadrants(width, height)] * 3, pixel_format="yuv444p")
    assert frames_of(path)[0].image.size == (width, height)
    image = frames_of(path, sizing=Sizing(32))[0].image
    assert image.size == expected
    np.testing.assert_allclose(corners(image), [RED, GREEN, BLUE, YELLOW], atol=6)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_video_with_a_rotation_is_turned_upright(tmp_path, turn):
    path = write(tmp_path / "a.mp4", [quadrants(96, 64)] * 3)
    set_display_matrix(path, TURNS[turn])
    size = (96, 64) if turn == 180 else (64, 96)
    upright = {
        90: (BLUE, RED, YELLOW, GREEN),
        180: (YELLOW, BLUE, GREEN, RED),
        270: (GREEN, YELLOW, RED, BLUE),
    }[turn]
    small = (size[0] // 2, size[1] // 2)
    for sizing, expected in (
        (AS_IS, size),
        (Sizing(32), small),
        (Sizing(squash=(40, 80)), (40, 80)),
    ):
        image = frames_of(path, sizing=sizing)[0].image
        assert image.size == expected
        np.testing.assert_allclose(corners(image), upright, atol=6)
    with open_video_reader(path) as reader:
        assert (reader.width, reader.height) == size


@pytest.mark.parametrize(
    ("mirror", "size", "expected"),
    [
        ("hflip", (96, 64), (GREEN, RED, YELLOW, BLUE)),
        ("vflip", (96, 64), (BLUE, YELLOW, RED, GREEN)),
        ("transpose", (64, 96), (RED, BLUE, GREEN, YELLOW)),
        ("transverse", (64, 96), (YELLOW, GREEN, BLUE, RED)),
    ],
)
def test_a_video_with_a_mirroring_is_mirrored_as_players_do(tmp_path, mirror, size, expected):
    path = write(tmp_path / "a.mp4", [quadrants(96, 64)] * 3)
    set_display_matrix(path, MIRRORS[mirror])
    for sizing in (AS_IS, Sizing(32)):
        image = frames_of(path, sizing=sizing)[0].image
        assert image.size == sizing.of(*size)
        np.testing.assert_allclose(corners(image), expected, atol=6)


def test_an_absurd_pixel_aspect_ratio_is_ignored(tmp_path):
    path = write(tmp_path / "a.mkv", [quadrants(96, 64)] * 3, aspect=Fraction(200))
    assert frames_of(path)[0].image.size == (96, 64)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "colours"),
    [
        ("a.mp4", "libx264", "yuv420p", {}),
        ("full.mp4", "libx264", "yuvj420p", {}),
        ("full.mp4", "libx264", "yuv420p", {"color_range": 2}),
        ("limited.mp4", "libx264", "yuv420p", {"color_range": 1}),
        ("hd.mp4", "libx264", "yuv420p", {"colorspace": 1}),
        ("ten-bit.mp4", "libx264", "yuv420p10le", {}),
        ("a.webm", "libvpx-vp9", "yuv420p", {}),
        ("a.mkv", "libx264", "yuv420p", {}),
        ("rgb.mkv", "ffv1", "bgr0", {}),
        ("a.avi", "mpeg4", "yuv420p", {}),
        ("jpegs.avi", "mjpeg", "yuvj420p", {}),
        ("a.mpg", "mpeg2video", "yuv420p", {}),
        ("a.wmv", "wmv2", "yuv420p", {}),
        ("a.flv", "flv", "yuv420p", {}),
        ("a.mov", "mpeg4", "yuv420p", {}),
    ],
)
def test_colours_are_those_of_the_source_in_every_format(
    tmp_path, name, codec, pixel_format, colours
):
    path = write(tmp_path / name, [quadrants(96, 64)] * 10, codec, pixel_format, **colours)
    for sizing in (AS_IS, Sizing(32)):
        frames = frames_of(path, sizing=sizing)
        assert len(frames) == 10
        np.testing.assert_allclose(corners(frames[-1].image), [RED, GREEN, BLUE, YELLOW], atol=6)
        assert frames[-1].seconds == pytest.approx(0.36, abs=2e-3)


def test_monochrome_video_becomes_grey_rgb(tmp_path):
    path = write(tmp_path / "a.mkv", [quadrants(96, 64)] * 3, "ffv1", "gray")
    grey = [[0.299 * r + 0.587 * g + 0.114 * b] * 3 for r, g, b in (RED, GREEN, BLUE, YELLOW)]
    for sizing in (AS_IS, Sizing(32)):
        np.testing.assert_allclose(corners(frames_of(path, sizing=sizing)[0].image), grey, atol=4)


def test_metadata_that_is_not_utf8_is_accepted(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    assert b"Lavf" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"\xff\xfe\xfd\xfc"))
    assert len(frames_of(path)) == 10
    with open_video_reader(path) as reader:
        assert (reader.fps, reader.count) == (25, 10)


def write_two_streams(path, first, second, default=None, first_count=1, attached=False):
    """Write a file with two video streams: `first_count` frames of the picture `first`, and ten
    frames of `second`."""
    with av.open(str(path), "w") as output:
        streams = []
        for pixels, codec in ((first, "mjpeg"), (second, "mpeg4")):
            stream = output.add_stream(codec, rate=10)
            stream.height, stream.width = pixels.shape[:2]
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.bit_rate = 4_000_000
            streams.append(stream)
        if default is not None:
            streams[default].disposition = Disposition.default
            streams[1 - default].disposition = Disposition(0)
        if attached:
            streams[0].disposition = Disposition.attached_pic
        for stream, pixels, count in zip(streams, (first, second), (first_count, 10), strict=True):
            for t in range(count):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                    format=stream.pix_fmt
                )
                frame.pts = t
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", ["a.mkv", "a.mov", "a.avi", "a.wmv"])
def test_a_still_image_in_the_first_stream_is_not_the_video(tmp_path, name):
    path = write_two_streams(tmp_path / name, quadrants(128, 96), quadrants(96, 64))
    frames = frames_of(path)
    assert [frame.image.size for frame in frames] == [(96, 64)] * 10
    with open_video_reader(path) as reader:
        assert (reader.width, reader.height, reader.count) == (96, 64, 10)
    assert len(frames_of(path, Sampling(5))) == 5


def test_a_still_image_marked_as_default_is_not_the_video(tmp_path):
    path = write_two_streams(tmp_path / "a.mkv", quadrants(128, 96), quadrants(96, 64), default=0)
    assert frames_of(path)[0].image.size == (96, 64)


def test_of_two_video_streams_the_default_or_else_the_larger_is_decoded(tmp_path):
    two_videos = {"first_count": 10}
    small, large = quadrants(48, 32), quadrants(96, 64)
    larger = write_two_streams(tmp_path / "a.avi", small, large, **two_videos)
    assert frames_of(larger)[0].image.size == (96, 64)
    for default, size in ((0, (48, 32)), (1, (96, 64))):
        path = write_two_streams(
            tmp_path / f"{default}.mkv", small, large, default=default, **two_videos
        )
        assert frames_of(path)[0].image.size == size


def test_the_cover_image_of_an_audio_file_is_not_a_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        cover, sound = output.add_stream("mjpeg", rate=1), output.add_stream("aac", rate=16000)
        cover.width, cover.height, cover.pix_fmt = 96, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(quadrants(96, 64), format="rgb24")
        output.mux(cover.encode(picture.reformat(format="yuvj420p")))
        output.mux(cover.encode())
        encode_silence(output, sound, seconds=1)
    assert decode_video(tmp_path / "a.mp4") == ([], ["no video stream that can be decoded"])


def test_a_wrong_frame_count_in_an_avi_header_is_not_damage(tmp_path):
    source = write(tmp_path / "a.mp4", moving(100), rate=10)
    with av.open(str(source)) as opened, av.open(str(tmp_path / "a.avi"), "w") as output:
        stream = output.add_stream_from_template(opened.streams.video[0])
        # two ticks per frame, as FFmpeg writes it if frames are reordered
        stream.time_base = Fraction(1, 20)
        plain = BitStreamFilterContext("h264_mp4toannexb", opened.streams.video[0])
        for stored in opened.demux(video=0):
            for packet in plain.filter(stored) if stored.size else ():
                packet.stream = stream
                output.mux(packet)
    with av.open(str(tmp_path / "a.avi")) as opened:
        assert opened.streams.video[0].frames == 200
    assert len(frames_of(tmp_path / "a.avi")) == 100
    with open_video_reader(tmp_path / "a.avi") as reader:
        assert reader.count == 100
    frames, reasons = decode_video(cut(tmp_path / "a.avi", 0.6))
    assert 50 < len(frames) < 75
    assert reasons


@pytest.mark.parametrize(
    ("bits", "suffix"), [(16, "png"), (14, "png"), (12, "png"), (10, "tif"), (16, "tiff")]
)
def test_deep_grey_images_are_scaled_by_their_used_bits(tmp_path, bits, suffix):
    grey = np.arange(256, dtype=np.uint16).repeat(32).reshape(64, 128)
    for number in range(3):
        # one dark frame does not change the number of bits that the video uses
        dark = grey // 4 if number == 0 else grey
        Image.fromarray((dark << (bits - 8)).astype(np.uint16)).save(
            tmp_path / f"{number}.{suffix}"
        )
    frames = frames_of(tmp_path)
    expected = [grey // 4, grey, grey]
    for frame, values in zip(frames, expected, strict=True):
        assert np.array_equal(np.asarray(frame.image)[..., 1], values)


def test_grey_values_that_cannot_be_scaled_are_damage(tmp_path):
    cases = {
        "deep": (
            np.full((16, 16), 70_000, np.int32),
            "0.tif: holds the grey value 70000: expected 0 to 65535",
        ),
        "negative": (
            np.full((16, 16), -1, np.int32),
            "0.tif: holds the grey value -1: expected 0 to 255",
        ),
        "fractions": (
            np.full((16, 16), 0.5, np.float32),
            "0.tif: holds fractions: expected whole numbers of 8 or 16 bits",
        ),
    }
    for name, (pixels, reason) in cases.items():
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "0.tif")
        assert decode_video(tmp_path / name) == ([], [reason])


def write_exif_frames(folder, orientation, transpose):
    """Write two JPEGs with an EXIF orientation, which viewers show as `quadrants(96, 64)`."""
    folder.mkdir()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for number in range(2):
        stored = Image.fromarray(quadrants(96, 64)).transpose(transpose)
        stored.save(folder / f"{number}.jpg", quality=95, exif=exif)
    return folder


@pytest.mark.parametrize(
    ("orientation", "transpose"),
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_frames_rotated_by_exif_are_turned_upright_without_exif(tmp_path, orientation, transpose):
    folder = write_exif_frames(tmp_path / "a", orientation, transpose)
    for sizing, size in ((AS_IS, (96, 64)), (Sizing(32), (48, 32)), (Sizing(64), (96, 64))):
        for frame in frames_of(folder, sizing=sizing):
            assert (frame.image.size, frame.jpeg) == (size, None)
            np.testing.assert_allclose(corners(frame.image), [RED, GREEN, BLUE, YELLOW], atol=6)
            assert ExifTags.Base.Orientation not in frame.image.getexif()


def test_frames_in_every_common_image_format_are_read(tmp_path):
    for suffix in ("png", "webp", "bmp", "tif", "ppm"):
        folder = tmp_path / suffix
        folder.mkdir()
        for number in range(2):
            Image.fromarray(quadrants(96, 64)).save(folder / f"frame ({number}).{suffix}")
        frames = frames_of(folder)
        assert len(frames) == 2
        np.testing.assert_allclose(corners(frames[1].image), [RED, GREEN, BLUE, YELLOW], atol=12)


def test_a_jpeg_of_the_right_size_is_kept_byte_for_byte(tmp_path):
    folder = write_folder(tmp_path / "a")
    content = [path.read_bytes() for path in sorted(folder.iterdir())]
    assert (
        [f.jpeg for f in frames_of(folder)]
        == [f.jpeg for f in frames_of(folder, sizing=Sizing(40))]
        == content
    )
    assert {f.jpeg for f in frames_of(folder, sizing=Sizing(20))} == {None}
    assert {f.jpeg for f in frames_of(folder, sizing=Sizing(squash=(40, 40)))} == {None}


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("1.png", "RGB"),
        ("1.png", "RGBA"),
        ("1.png", "P"),
        ("1.png", "L"),
        ("1.jpeg", "L"),
        ("1.JPG", "CMYK"),
    ],
)
def test_images_that_are_not_plain_jpegs_are_converted(tmp_path, name, mode):
    Image.fromarray(quadrants(96, 64)).convert(mode).save(tmp_path / name, quality=95)
    (frame,) = frames_of(tmp_path)
    assert (frame.image.mode, frame.jpeg) == ("RGB", None)
    if mode != "L":
        np.testing.assert_allclose(
            corners(frame.image), [RED, GREEN, BLUE, YELLOW], atol=30 if mode == "P" else 6
        )


def test_frames_come_in_the_order_of_their_numbers(tmp_path):
    for n in (8, 9, 10, 11):
        Image.new("RGB", (16, 16), (10 * n, 0, 0)).save(tmp_path / f"{n}.png")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "._8.png").touch()
    assert [f.image.getpixel((0, 0))[0] for f in frames_of(tmp_path)] == [80, 90, 100, 110]


def cut(path, part, name=None):
    """Write the beginning of a file to another file."""
    content = path.read_bytes()
    shorter = path.with_name(name or f"cut{path.suffix}")
    shorter.write_bytes(content[: int(len(content) * part)])
    return shorter


def test_a_truncated_mp4_yields_frames_only_if_its_index_comes_first(tmp_path):
    path = cut(write(tmp_path / "a.mp4", moving(100), container={"movflags": "faststart"}), 0.6)
    frames, reasons = decode_video(path)
    assert 50 < len(frames) < 65
    assert reasons[-1] == f"ends after {len(frames) + 1} of 100 frames"
    frames, reasons = decode_video(cut(write(tmp_path / "b.mp4", moving(100)), 0.6))
    assert not frames
    assert reasons[0].startswith("Invalid data found")


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mpeg4"),
        ("a.flv", "flv"),
        ("a.mpg", "mpeg2video"),
    ],
)
def test_truncation_is_detected_in_other_formats_too(tmp_path, name, codec):
    path = write(tmp_path / name, moving(100), codec)
    assert len(frames_of(path)) == 100
    frames, reasons = decode_video(cut(path, 0.6))
    assert 50 < len(frames) < 75
    assert reasons
    assert "ends after 2." in reasons[-1] or codec != "libx264"


def test_a_video_shorter_than_its_sound_does_not_count_as_truncated(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        pictures, sound = (
            output.add_stream("libx264", rate=25),
            output.add_stream("aac", rate=16000),
        )
        pictures.width, pictures.height, pictures.pix_fmt = 96, 64, "yuv420p"
        for pixels in moving(25):
            output.mux(pictures.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(pictures.encode())
        encode_silence(output, sound, seconds=5)
    assert len(frames_of(tmp_path / "a.mkv")) == 25
    assert decode_video(cut(tmp_path / "a.mkv", 0.5))[1]


def encode_silence(output, stream, seconds):
    """Encode silence at 16 kHz."""
    for n in range(seconds * 16):
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1000), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts = 16000, 1000 * n
        output.mux(stream.encode(frame))
    output.mux(stream.encode())


def test_files_that_are_not_videos_are_damage_with_a_reason(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("<html>404 Not Found</html>")
    with av.open(str(tmp_path / "sound.mp4"), "w") as output:
        encode_silence(output, output.add_stream("aac", rate=16000), seconds=1)
    content = write(tmp_path / "codec.mp4", moving(3)).read_bytes()
    (tmp_path / "codec.mp4").write_bytes(content.replace(b"avc1", b"new1"))
    (tmp_path / "nothing").mkdir()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "gone")
    reasons = {path.name: decode_video(path) for path in tmp_path.iterdir()}
    assert reasons.pop("codec.mp4") == ([], ["no video stream that can be decoded"])
    assert reasons.pop("sound.mp4") == ([], ["no video stream that can be decoded"])
    assert reasons.pop("nothing") == ([], ["no numbered images"])
    assert reasons.pop("link.mp4") == ([], ["no such file or folder"])
    assert reasons.keys() == {"empty.mp4", "text.mp4"}
    for frames, (reason,) in reasons.values():
        assert not frames
        assert reason.startswith("Invalid data found when processing input")
    assert decode_video(tmp_path / ("x" * 300)) == ([], ["File name too long"])
    frames, (reason,) = decode_video(tmp_path / "a\0b.mp4")
    assert not frames
    assert "embedded null" in reason


@NEEDS_FORK
def test_files_without_read_permission_are_damage(tmp_path):
    for path in (
        write_video(tmp_path / "a.mp4"),
        write_folder(tmp_path / "b"),
        write_video(tmp_path / "c/d.mp4").parent,
    ):
        path.chmod(0)
    for name in ("a.mp4", "b", "c/d.mp4"):
        assert "Permission denied" in as_nobody(
            tmp_path, lambda name=name: decode_video(Path(name))[1]
        )
    for name in ("b", "c"):
        (tmp_path / name).chmod(0o755)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_frames_before_and_after_damaged_bytes_are_decoded(tmp_path, name):
    path = write(tmp_path / name, moving(100), "mpeg4" if name == "a.avi" else "libx264")
    damage(path, len(path.read_bytes()) // 2)
    frames, reasons = decode_video(path)
    assert reasons
    seconds = [f.seconds for f in frames]
    assert max(s for s in seconds if s < 2.2) > 1.5
    assert name == "a.mkv" or seconds[-1] == pytest.approx(3.96)
    assert seconds == sorted(seconds)


def test_missing_frames_after_damaged_bytes_in_mkv_are_reported(tmp_path):
    """FFmpeg continues at the next cluster without reporting an error."""
    path = write(tmp_path / "a.mkv", moving(100))
    content = path.read_bytes()
    cluster = bytes.fromhex("1f43b675")
    second = content.index(cluster, len(content) // 2)
    damage(path, second - 200)
    frames, reasons = decode_video(path)
    shown = {round(frame.seconds * 25) for frame in frames}
    missing = sorted(set(range(100)) - shown)
    assert len(missing) > 8
    # the decoder's threads may mark a frame before the gap as corrupt, or drop it
    reported = set()
    for reason in reasons:
        first, *last = (round(float(time) * 25) for time in re.findall(r"\d+\.\d+", reason))
        reported |= set(range(first, last[0])) if last else {first}
    assert reported == set(missing)
    assert sum("frames are missing from" in reason for reason in reasons) == 1


def test_pauses_in_an_uneven_stream_are_not_damage(tmp_path):
    pauses = [0, 1, 2, 9, 10, 11, 12, 30, 31, 32, 33, 34, 60, 61, 62, 63]
    assert len(frames_of(write(tmp_path / "a.mkv", moving(16), pts=pauses))) == 16
    uneven = [t + t // 2 for t in range(30)] + [80]
    assert len(frames_of(write(tmp_path / "b.mkv", moving(31), pts=uneven))) == 31


def test_frames_read_before_damage_are_yielded_before_it(tmp_path):
    whole = write(tmp_path / "a.mp4", moving(40), container={"movflags": "faststart"})
    stream = list(decode(VideoSource("a", cut(whole, 0.8, "cut.mp4")), ALL, AS_IS))
    first = next(index for index, item in enumerate(stream) if isinstance(item, Damage))
    assert first > 20
    assert "as stored" in stream[first].reason
    stamps = [item.stamp // stream[1].stamp for item in stream if isinstance(item, Frame)]
    assert stamps[:first] == list(range(first))
    assert first not in stamps


def test_damage_in_a_folder_is_reported_and_other_frames_are_decoded(tmp_path):
    image = write_folder(tmp_path / "s" / "image") / "image_00004.jpg"
    image.write_bytes(image.read_bytes()[:200])
    (write_folder(tmp_path / "s" / "text") / "image_00001.jpg").write_text("not an image")
    (write_folder(tmp_path / "s" / "empty") / "image_00010.jpg").write_bytes(b"")
    write_folder(tmp_path / "s" / "gap", [1, 2, 3, 5, 6])
    write_folder(tmp_path / "s" / "gaps", [1, 2, 3, 10, 11, 13])
    twice = write_folder(tmp_path / "s" / "twice", [1, 2, 3])
    (twice / "image_2.jpg").write_bytes((twice / "image_00002.jpg").read_bytes())
    frames, reasons = decode_video(tmp_path / "s" / "image")
    assert [round(f.seconds * 25) for f in frames] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert reasons[0].startswith("image_00004.jpg: ")
    assert decode_video(tmp_path / "s" / "gaps")[1] == [
        "frames 4 to 9 are missing before image_00010.jpg",
        "frame 12 is missing before image_00013.jpg",
    ]
    write_folder(tmp_path / "s" / "good")
    failures = pack_failures(tmp_path / "s", tmp_path / "out")
    assert {video: good for video, (_, good) in failures.items()} == {
        "image": 9,
        "text": 9,
        "empty": 9,
        "gap": 5,
        "gaps": 6,
        "twice": 4,
    }
    assert failures["gap"][0] == "frame 4 is missing before image_00005.jpg"
    assert failures["twice"][0] == "frame 2 comes twice"
    assert failures["text"][0].startswith("image_00001.jpg: ")


def test_good_frames_of_damaged_files_are_counted(tmp_path):
    write_video(tmp_path / "s" / "good.mp4")
    path = write(tmp_path / "s" / "whole.mp4", moving(100), container={"movflags": "faststart"})
    cut(path, 0.6, "cut.mp4")
    (tmp_path / "s" / "empty.webm").touch()
    failures = pack_failures(tmp_path / "s", tmp_path / "out")
    assert failures.keys() == {"cut", "empty"}
    assert 50 < failures["cut"][1] < 65
    assert failures["empty"][1] == 0


def test_a_frame_count_that_differs_from_the_list_is_damage(tmp_path):
    for path in (write_video(tmp_path / "a.mp4"), write_folder(tmp_path / "b")):
        assert decode_video(path, Sampling(6.25), listed=10)[1] == []
        assert decode_video(path, Sampling(6.25), listed=12)[1] == [
            "has 10 frames, the list says 12"
        ]


@pytest.mark.skipif(not (SHARED / "data/train_clips").exists(), reason="needs the shared clips")
def test_real_clips_have_no_damage():
    paths = sorted(
        (SHARED / "data/train_clips").glob("*.mp4"), key=lambda path: path.stat().st_size
    )[:6]
    for path in paths:
        assert frames_of(path, Sampling(2), Sizing(64))
