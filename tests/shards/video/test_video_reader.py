import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from test_decode import (
    BLUE,
    GREEN,
    RED,
    TURNS,
    YELLOW,
    corners,
    cut,
    encode_silence,
    frames_of,
    moving,
    quadrants,
    set_display_matrix,
    write,
)
from test_pack import write_folder, write_video

from shards.errors import DataError
from shards.video.sampling import Sizing
from shards.video.video_reader import BrokenVideoError, open_video_reader, picture_at

UNEVEN = [0, 1, 5, 6, 20, 21, 60]  # in units of 1/25 s


def stamps_of(path):
    """The times at which the frames are shown, in seconds."""
    with open_video_reader(path) as reader:
        return [float(picture.stamp * reader.tick) for picture in reader.frames]


def write_with_sound(path, codec="aac", rate=16000, seconds=2):
    with av.open(str(path), "w") as output:
        pictures, sound = output.add_stream("libx264", rate=25), output.add_stream(codec, rate=rate)
        pictures.width, pictures.height, pictures.pix_fmt, sound.layout = 96, 64, "yuv420p", "mono"
        for pixels in moving(10):
            output.mux(pictures.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(pictures.encode())
        encode_silence(output, sound, seconds)
    return path


def test_the_reader_has_size_and_frame_rate_and_yields_every_frame(tmp_path):
    paths = (
        write_video(tmp_path / "a.mp4", fps=10),
        write(tmp_path / "a.mkv", moving(10), rate=10),
        write_folder(tmp_path / "b"),
    )
    for path, expected in zip(
        paths, ((64, 48, 10, 10), (96, 64, 10, 10), (60, 40, 25, 10)), strict=True
    ):
        with open_video_reader(path) as reader:
            assert (reader.width, reader.height, reader.fps, reader.count) == expected
            assert [picture.pixels.shape for picture in reader.frames] == [
                (reader.height, reader.width, 3)
            ] * 10
            assert reader.sound is None


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_frames_keep_their_uneven_time_stamps(tmp_path, name):
    path = write(tmp_path / name, moving(7), pts=UNEVEN)
    assert stamps_of(path) == pytest.approx([n / 25 for n in UNEVEN], abs=1e-3)


def test_a_late_start_is_kept_but_not_the_clock_of_a_broadcast(tmp_path):
    late = write(tmp_path / "late.mkv", moving(3), pts=[50, 51, 52])
    assert stamps_of(late) == pytest.approx([2.0, 2.04, 2.08], abs=1e-3)
    cast = write(tmp_path / "cast.ts", moving(3), pts=[90_000, 90_001, 90_002])
    assert stamps_of(cast) == pytest.approx([0, 0.04, 0.08])


def test_a_fragmented_mp4_has_the_frames_of_all_fragments(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as output:
        stream = output.add_stream("libx264", rate=10, options={"g": "3"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for pixels in moving(10):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode())
    with open_video_reader(path) as reader:
        assert reader.count == 10 == len(list(reader.frames))


@pytest.mark.parametrize("hidden", [0, 5, 13])
def test_frames_that_an_edit_list_hides_are_not_counted(tmp_path, hidden):
    path = write(tmp_path / "a.mp4", moving(40))
    content = bytearray(path.read_bytes())
    # the duration that is shown in 1/1000 s, and its start in 1/12800 s
    position = content.index(b"elst") + 12
    seconds, start = struct.unpack_from(">Ii", content, position)
    struct.pack_into(">Ii", content, position, seconds - 40 * hidden, start + 512 * hidden)
    path.write_bytes(content)
    with open_video_reader(path) as reader:
        assert len(list(reader.frames)) == reader.count == 40 - hidden


def test_a_video_may_have_only_one_frame(tmp_path):
    path = write(tmp_path / "one.mp4", moving(1))
    with open_video_reader(path) as reader:
        assert (reader.count, [picture.stamp for picture in reader.frames]) == (1, [0])


@pytest.mark.parametrize("turn", [0, 90])
def test_frames_with_non_square_pixels_are_resized_as_players_do(tmp_path, turn):
    path = write(tmp_path / "a.mp4", [quadrants(96, 64)] * 3, aspect=Fraction(4, 3))
    if turn:
        set_display_matrix(path, TURNS[turn])
    size = (64, 128) if turn else (128, 64)
    expected = (BLUE, RED, YELLOW, GREEN) if turn else (RED, GREEN, BLUE, YELLOW)
    with open_video_reader(path) as reader:
        assert (reader.width, reader.height) == size
        pixels = next(reader.frames).pixels
    np.testing.assert_allclose(corners(Image.fromarray(pixels)), expected, atol=6)
    assert np.array_equal(picture_at(path, 0), pixels)
    assert picture_at(path, 2).shape == pixels.shape
    small = frames_of(path, sizing=Sizing(32))[0].image
    assert small.size == (size[0] // 2, size[1] // 2)


def test_a_video_name_may_contain_a_colon(tmp_path, monkeypatch):
    write(tmp_path / "12:30.mp4", moving(3))
    monkeypatch.chdir(tmp_path)
    with open_video_reader(Path("12:30.mp4")) as reader:
        assert len(list(reader.frames)) == 3


def test_a_frame_of_another_size_in_a_folder_is_named_by_its_number(tmp_path):
    folder = write_folder(tmp_path / "b")
    numbers = sorted(path.name for path in folder.iterdir())
    Image.new("RGB", (30, 20)).save(folder / numbers[4])
    expected = f"frame {int(Path(numbers[4]).stem.rpartition('_')[2])} is 30x20"
    with (
        open_video_reader(folder) as reader,
        pytest.raises(BrokenVideoError, match=expected),
    ):
        list(reader.frames)


def test_frames_of_a_folder_keep_their_numbers_and_names(tmp_path):
    for number in (3, 4, 5):
        Image.new("RGB", (16, 16)).save(tmp_path / f"frame ({number}).png")
    with open_video_reader(tmp_path) as reader:
        names = reader.names
    assert [names.number(index) for index in range(3)] == [3, 4, 5]
    assert names.name(1) == "frame (4)"
    assert [names.index(number) for number in (2, 3, 5, 6)] == [None, 0, 2, None]
    assert (names.index_of("frame (5)"), names.index_of("00005")) == (2, None)
    assert names.video == tmp_path.name


def test_frames_of_a_file_are_numbered_from_0(tmp_path):
    with open_video_reader(write(tmp_path / "a.mp4", moving(3))) as reader:
        names = reader.names
    assert (names.number(2), names.name(2), names.index(2)) == (2, "00002", 2)
    assert (names.index_of("00002"), names.video) == (None, "a.mp4")


def test_sound_packets_are_yielded_as_stored(tmp_path):
    path = write_with_sound(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        stored = [(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.size]
    with open_video_reader(path) as reader:
        assert reader.sound.stream.codec_context.name == "aac"
        assert [(packet.pts, bytes(packet)) for packet in reader.sound.packets] == stored


def test_the_sound_of_joined_recordings_has_continuous_time_stamps(tmp_path):
    path = write_with_sound(tmp_path / "a.ts")
    path.write_bytes(2 * path.read_bytes())
    with open_video_reader(path) as reader:
        heard = [float(packet.pts * packet.time_base) for packet in reader.sound.packets]
    assert np.all(np.diff(heard) > 0)
    assert heard[-1] - heard[0] == pytest.approx(4, abs=0.2)


def test_sound_that_cannot_be_decoded_is_left_out(tmp_path):
    path = write_with_sound(tmp_path / "a.mp4")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"mp4a", b"new1").replace(b"esds", b"free"))
    with open_video_reader(path) as reader:
        assert reader.sound is None
        assert len(list(reader.frames)) == 10


def test_truncated_sound_ends_early_and_frames_are_still_decoded(tmp_path):
    path = write_with_sound(tmp_path / "a.mkv", seconds=1)
    shorter = cut(path, 0.8)
    with av.open(str(path)) as container:
        stored = sum(bool(packet.size) for packet in container.demux(audio=0))
    with open_video_reader(shorter) as reader:
        assert 0 < len(list(reader.sound.packets)) < stored
        assert next(reader.frames).pixels.shape == (64, 96, 3)


def test_a_truncated_video_raises_an_error_where_it_ends(tmp_path):
    path = cut(write(tmp_path / "a.mp4", moving(100), container={"movflags": "faststart"}), 0.6)
    seen = []
    with (
        open_video_reader(path) as reader,
        pytest.raises(BrokenVideoError, match=r"Invalid data|ends after"),
    ):
        seen.extend(reader.frames)
    assert reader.count == 100
    (tmp_path / "text.mp4").write_text("no video")
    with (
        pytest.raises(BrokenVideoError, match="Invalid data"),
        open_video_reader(tmp_path / "text.mp4"),
    ):
        pass
    with (
        pytest.raises(DataError, match="no such file or folder"),
        open_video_reader(tmp_path / "none.mp4"),
    ):
        pass


def test_frames_before_unreadable_packets_are_yielded(tmp_path):
    path = write(tmp_path / "a.ivf", moving(10), "libvpx")
    content = bytearray(path.read_bytes())
    position = 32  # after the file's header
    for _ in range(6):
        position += 12 + int.from_bytes(content[position : position + 4], "little")
    content[position : position + 4] = b"\xff" * 4  # the size field of the seventh frame
    path.write_bytes(content)
    seen = []
    with open_video_reader(path) as reader, pytest.raises(BrokenVideoError):
        seen.extend(reader.frames)
    assert len(seen) == reader.count == 6
    assert np.array_equal(picture_at(path, 5), seen[5].pixels)
    with pytest.raises(BrokenVideoError):
        picture_at(path, 6)


def test_frames_of_another_size_are_refused(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "0.png")
    Image.new("RGB", (22, 10)).save(tmp_path / "1.png")
    with (
        open_video_reader(tmp_path) as reader,
        pytest.raises(BrokenVideoError, match="frame 1 is 22x10, those before 20x10"),
    ):
        list(reader.frames)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {}),
        ("a.mkv", "libx264", {}),
        ("a.webm", "libvpx-vp9", {}),
        # frames that are shown before a key frame and stored after it
        ("a.mp4", "libx264", {"x264-params": "open-gop=1"}),
        ("a.avi", "mpeg4", {"bf": "2"}),
        ("a.mpg", "mpeg2video", {"bf": "2"}),
        ("a.ts", "libx264", {}),
        ("a.h264", "libx264", {}),
    ],
)
def test_any_frame_can_be_read_on_its_own(tmp_path, name, codec, options):
    path = write(tmp_path / name, moving(40), codec, options=options)
    with open_video_reader(path) as reader:
        frames = [picture.pixels for picture in reader.frames]
    for number, pixels in enumerate(frames):
        assert np.array_equal(picture_at(path, number), pixels)
    assert np.array_equal(picture_at(path, 99), frames[-1])
