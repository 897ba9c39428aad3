from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from corrflow.tracking.video_writer import VideoFormat, VideoWriter

UNEVEN = [0, 10, 200, 205, 210, 400, 1000]  # milliseconds
MILLISECONDS = Fraction(1, 1000)


def picture(red, width=96, height=64):
    return np.full((height, width, 3), (red, 120, 40), np.uint8)


def write_video(path, stamps=range(0, 1000, 40), sound=None, *, video_format=None, whole=True):
    """Write a video of plain frames, with the sound of another file if one is given."""
    video_format = video_format or VideoFormat(96, 64, MILLISECONDS)
    source = av.open(str(sound)) if sound else None
    audio = (
        (source.streams.audio[0], (packet for packet in source.demux(audio=0) if packet.size))
        if source
        else None
    )
    with VideoWriter(path, video_format, audio) as video:
        for index, stamp in enumerate(stamps):
            video.add(picture(10 * index % 250, video_format.width, video_format.height), stamp)
        video.finish(whole=whole)
    return path


def write_tone(path, codec, rate=48000, seconds=2, layout="stereo"):
    """Write a file with a tone of 440 Hz."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=rate)
        stream.layout = layout
        for n in range(seconds * rate // 960):
            wave = 0.3 * np.sin(2 * np.pi * 440 * (np.arange(960) + 960 * n) / rate)
            frame = av.AudioFrame.from_ndarray(
                np.stack([wave] * stream.channels).astype(np.float32), format="fltp", layout=layout
            )
            frame.sample_rate, frame.pts = rate, 960 * n
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def sound_of(path):
    """The codec, the samples of the first channel, and the time of the first in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = list(container.decode(stream))
        return (
            stream.codec_context.name,
            np.concatenate([frame.to_ndarray()[0] for frame in frames]),
            frames[0].time,
        )


def packets_of(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def test_a_video_has_a_format_that_every_browser_plays(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.frames) == (
            "h264",
            "yuv420p",
            25,
        )
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays before it is fully downloaded
    assert [found.name for found in tmp_path.iterdir()] == ["a.mp4"]


def test_each_frame_keeps_its_timestamp_and_the_last_its_duration(tmp_path):
    with av.open(str(write_video(tmp_path / "a.mp4", UNEVEN))) as container:
        assert [
            float(frame.pts * frame.time_base) * 1000 for frame in container.decode(video=0)
        ] == pytest.approx(UNEVEN)
        assert container.duration == pytest.approx(1_040_000, abs=1000)


def test_colours_are_kept_and_the_colour_space_is_declared(tmp_path):
    with av.open(str(write_video(tmp_path / "a.mp4", [0, 40]))) as container:
        frames = list(container.decode(video=0))
    assert (
        frames[0].colorspace,
        frames[0].color_primaries,
        frames[0].color_trc,
        frames[0].color_range,
    ) == (1, 1, 1, 1)
    assert np.abs(frames[1].to_ndarray(format="rgb24").astype(int) - (10, 120, 40)).max() < 6


def test_odd_sizes_become_even_and_pixels_are_square(tmp_path):
    path = write_video(tmp_path / "a.mp4", video_format=VideoFormat(65, 47, MILLISECONDS))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.sample_aspect_ratio) == (66, 48, Fraction(1))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.m4a", "aac"), ("a.mkv", "libopus"), ("mp3.mkv", "libmp3lame"), ("a.flac", "flac")],
)
def test_sound_that_browsers_play_is_copied_unchanged(tmp_path, name, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec}")
    source = write_tone(tmp_path / name, codec)
    path = write_video(tmp_path / "film.mp4", range(0, 2000, 40), source)
    assert packets_of(path) == packets_of(source)


@pytest.mark.parametrize(
    ("codec", "layout", "rate"),
    [
        ("pcm_s16le", "mono", 44100),
        ("ac3", "5.1", 48000),
        ("pcm_s16le", "stereo", 6000),
        ("libmp3lame", "mono", 8000),
    ],
)
def test_other_sound_is_converted_to_aac_and_sounds_the_same(tmp_path, codec, layout, rate):
    source = write_tone(tmp_path / "a.mkv", codec, layout=layout, rate=rate)
    name, samples, start = sound_of(write_video(tmp_path / "film.mp4", range(0, 2000, 40), source))
    assert name == "aac"
    assert abs(start) < 0.05
    with av.open(str(tmp_path / "film.mp4")) as container:
        written_rate = container.streams.audio[0].rate
    assert len(samples) / written_rate == pytest.approx(2, abs=0.1)
    spectrum = np.abs(np.fft.rfft(samples[written_rate // 2 : written_rate // 2 + written_rate]))
    assert np.argmax(spectrum) == pytest.approx(440, abs=2)


def test_sound_ends_with_the_frames_unless_the_video_is_whole(tmp_path):
    source = write_tone(tmp_path / "a.m4a", "aac")
    lengths = {}
    for whole in (True, False):
        with av.open(
            str(write_video(tmp_path / "film.mp4", range(0, 1000, 40), source, whole=whole))
        ) as container:
            lengths[whole] = container.duration / av.time_base
    assert lengths == {True: pytest.approx(2.0, abs=0.1), False: pytest.approx(1.0, abs=0.05)}


def test_a_video_name_may_contain_a_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with av.open(str(write_video(Path("12:30.mp4")).absolute())) as container:
        assert container.streams.video[0].frames == 25


def test_an_unfinished_video_leaves_the_earlier_file_as_it_was(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    before = path.read_bytes()
    with (
        pytest.raises(RuntimeError, match="in between"),
        VideoWriter(path, VideoFormat(96, 64)) as video,
    ):
        video.add(picture(1), 0)
        raise RuntimeError("in between")
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["a.mp4"]


def test_a_video_without_frames_leaves_no_file(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", VideoFormat(96, 64)):
        pass
    assert not list(tmp_path.iterdir())
