"""Tests the command launch/track.py: results for masks, points and boxes, Ctrl-C, and the error
line for each kind of wrong input."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import ROOT, SHARED, TIMEOUT_SECONDS
from PIL import Image

from corrflow import CorrFlow, InputError, ModelConfig
from corrflow.annotations import WRITERS, read_shapes
from corrflow.encoders.resnet import ResNetConfig
from corrflow.training.checkpoint import save_checkpoint
from launch.track import interruptible, main
from launch.tracking.prompts import Prompts, VideoInfo, read_annotations, read_boxes, read_masks
from shards.video.video_reader import FrameNames

WIDTH, HEIGHT = 65, 47


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = CorrFlow(ModelConfig(ResNetConfig((4, 4, 8, 8), (1, 1, 1, 1), 8), radius=2))
    return save_checkpoint(
        tmp_path_factory.mktemp("run"), 1, model, torch.optim.Adam(model.parameters())
    )


def write_video(path, count=7, stamps=None, sound=False):
    """Write a video with a moving red square, at 10 frames a second or with these time stamps in
    tenths of a second. Its size is odd, or even if it has sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264" if path.suffix == ".mp4" else "ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = (
            WIDTH + sound,
            HEIGHT + sound,
            "yuv420p" if path.suffix == ".mp4" else "bgr0",
        )
        audio = container.add_stream("aac", rate=16000) if sound else None
        for t in range(count):
            pixels = np.full((HEIGHT + sound, WIDTH + sound, 3), 40, np.uint8)
            pixels[10:30, 5 + 4 * (t % 9) : 25 + 4 * (t % 9)] = (220, 30, 30)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = stamps[t] if stamps else t
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for n in range(16 if audio else 0):
            block = av.AudioFrame.from_ndarray(
                np.zeros((1, 1000), np.float32), format="fltp", layout="mono"
            )
            block.sample_rate, block.pts = 16000, 1000 * n
            container.mux(audio.encode(block))
        if audio:
            container.mux(audio.encode(None))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "my.mkv")


def write_mask(path, value=255, left=5, size=(WIDTH, HEIGHT)):
    labels = np.zeros(size[::-1], np.uint8)
    labels[10:30, left : left + 20] = value
    Image.fromarray(labels).save(path)
    return path


@pytest.fixture
def mask(tmp_path):
    return write_mask(tmp_path / "first.png")


@pytest.fixture
def track(checkpoint, tmp_path):
    """Runs the command in this process, which must succeed; returns the path of the video."""

    def call(video, *flags, out="tracked.mp4"):
        given = (
            "--video",
            video,
            "--checkpoint",
            checkpoint,
            "--out",
            tmp_path / out,
            "--device",
            "cpu",
            "--size",
            "0",
        )
        assert main([str(part) for part in (*given, *flags)]) == 0
        return tmp_path / out

    return call


def frames_of(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


def labels_of(out):
    folder = out.with_name(f"{out.stem}-masks")
    return [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]


def rows_of(out):
    with out.with_suffix(".csv").open() as file:
        return list(csv.DictReader(file))


def test_a_mask_is_tracked_and_all_results_are_written(track, video, mask, capfd):
    out = track(video, "--mask", mask)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert (
            stream.codec_context.name,
            stream.codec_context.pix_fmt,
            float(stream.average_rate),
        ) == ("h264", "yuv420p", 10.0)
    frames = frames_of(out)
    assert [frame.shape for frame in frames] == [(48, 66, 3)] * 7
    # the overlay is half the object's red and half the palette's
    assert np.abs(frames[0][20, 15] - (174, 15, 15)).max() < 30
    assert np.abs(frames[0][40, 60] - 40).max() < 12
    labels = labels_of(out)
    assert [labels_hw.shape for labels_hw in labels] == [(HEIGHT, WIDTH)] * 7
    assert np.array_equal(labels[0], np.asarray(Image.open(mask)) // 255)
    rows = rows_of(out)
    assert rows[0] == {
        "frame": "0",
        "seconds": "0.0",
        "object": "1",
        "area": "400",
        "x0": "5",
        "y0": "10",
        "x1": "25",
        "y1": "30",
        "confidence": "1.0",
    }
    assert all(0 < float(row["confidence"]) <= 1 for row in rows)
    assert [int(row["area"]) for row in rows] == [
        int((labels_hw == 1).sum()) for labels_hw in labels
    ]
    table = json.loads(out.with_suffix(".json").read_text())
    assert (table["video"], table["width"], table["height"], len(table["frames"])) == (
        "my.mkv",
        WIDTH,
        HEIGHT,
        7,
    )
    shown = capfd.readouterr()
    assert "frames/s" in shown.err
    assert table["frames"][0]["objects"] == [
        {"object": 1, "area": 400, "x0": 5, "y0": 10, "x1": 25, "y1": 30, "confidence": 1.0}
    ]
    least_confident = min(rows, key=lambda row: float(row["confidence"]))
    assert table["review"][0] == {
        "frame": int(least_confident["frame"]),
        "confidence": float(least_confident["confidence"]),
    }
    assert (
        f"look first at the frames of least confidence: {least_confident['frame']} (" in shown.out
    )


def test_names_given_by_flag_are_used_for_objects_and_points(track, video, tmp_path):
    first = np.zeros((HEIGHT, WIDTH), np.uint8)
    first[10:30, 5:25] = 1
    first[10:30, 40:60] = 3
    Image.fromarray(first).save(tmp_path / "first.png")
    given = ("--mask", tmp_path / "first.png", "--names", "wolf", "a cub", "--write", "cvat")
    out = track(video, *given)
    assert [(r["object"], r["name"]) for r in rows_of(out)[:2]] == [("1", "wolf"), ("3", "a cub")]
    shapes = read_shapes(WRITERS["cvat"].path_of(out), WIDTH, HEIGHT)
    assert {shape.object.name for shape in shapes} == {"wolf", "a cub"}
    again = track(video, *given, "--gone", "2=a cub")
    assert [3 in labels for labels in labels_of(again)] == [True, True, *[False] * 5]
    named = track(video, "--points", "15,20", "40,8", "--names", "nose", "ear", out="points.mp4")
    assert [row["name"] for row in rows_of(named)[:2]] == ["nose", "ear"]


def test_points_are_drawn_and_written_to_the_tables(track, video):
    out = track(video, "--points", "15,20", "3=40.5,8")
    rows = rows_of(out)
    assert len(rows) == 14
    assert {name: rows[0][name] for name in ("point", "x", "y", "visible")} == {
        "point": "1",
        "x": "15.0",
        "y": "20.0",
        "visible": "1",
    }
    assert (rows[1]["x"], rows[1]["visible"]) == ("", "0")
    assert (rows[7]["x"], rows[7]["y"]) == ("40.5", "8.0")
    assert json.loads(out.with_suffix(".json").read_text())["frames"][0]["points"][1]["x"] is None
    assert np.abs(frames_of(out)[3][8, 40] - (0, 128, 0)).max() < 60
    assert not out.with_name("tracked-masks").exists()


def test_each_box_becomes_an_object(track, video):
    out = track(video, "--box", "5,10,25,30", "40,5,60,15")
    rows = rows_of(out)
    assert [(row["object"], row["area"], row["x0"], row["y1"]) for row in rows[:2]] == [
        ("1", "400", "5", "30"),
        ("2", "200", "40", "15"),
    ]
    assert set(np.unique(labels_of(out)[0])) == {0, 1, 2}


def test_a_video_name_need_not_be_utf8(track, video, mask, tmp_path, capfd):
    name = os.fsdecode(b"caf\xe9")
    shutil.copy(video, tmp_path / f"{name}.mkv")
    out = track(tmp_path / f"{name}.mkv", "--mask", mask, "--write", "coco", out=f"{name}.mp4")
    assert "caf\\xe9.mp4" in capfd.readouterr().out
    assert json.loads(out.with_suffix(".json").read_text())["video"] == "caf\\xe9.mkv"
    assert len(labels_of(out)) == 7


def test_a_folder_of_masks_is_tracked_forward_and_backward(track, video, tmp_path):
    (tmp_path / "given").mkdir()
    write_mask(tmp_path / "given/00002.png", value=1)
    write_mask(tmp_path / "given/frame_4.png", value=2, left=40)
    flags = ("--mask", tmp_path / "given", "--protocol", "identity")
    labels = labels_of(track(video, *flags))
    assert not labels[1].any()
    assert (labels[2][15, 10], labels[4][15, 50]) == (1, 2)
    backwards = labels_of(track(video, *flags, "--backward"))
    assert (backwards[0][15, 10], backwards[0][15, 50]) == (1, 2)
    assert np.array_equal(backwards[2] == 1, labels[2] == 1)
    assert all(
        np.array_equal(one, other) for one, other in zip(labels[4:], backwards[4:], strict=True)
    )


def test_an_empty_mask_in_a_folder_is_ignored(track, refusal, video, tmp_path):
    (tmp_path / "given").mkdir()
    for number in (0, 5):
        Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / f"given/{number:05d}.png")
    assert f"{tmp_path / 'given'}: all are empty" in refusal("--mask", tmp_path / "given")
    write_mask(tmp_path / "given/00002.png", value=1)
    out = track(video, "--mask", tmp_path / "given", "--protocol", "identity")
    assert [bool(found.any()) for found in labels_of(out)] == [False] * 2 + [True] * 5


def test_time_stamps_and_sound_are_kept_when_tracking_starts_late(track, tmp_path):
    uneven = [0, 1, 3, 4, 9]
    video = write_video(tmp_path / "uneven.mp4", 5, uneven, sound=True)
    out = track(video, "--box", "5,10,25,30", "--start", 3, "--protocol", "identity")
    with av.open(str(out)) as container, av.open(str(video)) as source:
        times = [frame.time for frame in container.decode(video=0)]
        assert times == pytest.approx([n / 10 for n in uneven], abs=1e-3)
        written_sound, source_sound = (
            [bytes(p) for p in opened.demux(audio=0) if p.size]
            for opened in map(av.open, map(str, (out, video)))
        )
        assert written_sound == source_sound
        assert source.streams.audio[0].codec_context.name == "aac"
    assert [bool(found.any()) for found in labels_of(out)] == [False] * 3 + [True] * 2


def test_a_video_of_one_frame_is_tracked(track, tmp_path):
    out = track(write_video(tmp_path / "one.mkv", 1), "--points", "3,4", "--backward")
    assert (len(frames_of(out)), len(rows_of(out))) == (1, 1)


def test_the_model_is_adapted_only_if_there_is_something_to_track(
    track, video, mask, tmp_path, capfd
):
    plain = track(video, "--mask", mask, out="plain.mp4").with_suffix(".json")
    assert "adapting" not in capfd.readouterr().err
    out = track(video, "--mask", mask, "--adapt", 3)
    assert "adapting: 100%" in capfd.readouterr().err
    frames, others = (
        json.loads(path.read_text())["frames"] for path in (out.with_suffix(".json"), plain)
    )
    assert frames != others
    track(video, "--mask", mask, "--adapt", 3)
    assert "adapting" not in capfd.readouterr().err
    track(video, "--mask", mask, "--adapt", 2)
    assert "adapting: 100%" in capfd.readouterr().err
    short = write_video(tmp_path / "short.mkv", count=2)
    track(short, "--mask", mask, "--adapt", 2, out="short.mp4")
    assert "adapting" not in capfd.readouterr().err


def test_a_folder_of_frames_is_tracked_like_a_video(track, tree):
    frames, mask = tree / "JPEGImages/480p/val-000", tree / "Annotations/480p/val-000/00000.png"
    out = track(frames, "--mask", mask, "--protocol", "memory", out="deep/tracked.mp4")
    assert len(labels_of(out)) == 8


def write_frames(folder, numbers, name="{:05d}.png"):
    """Write frames of the usual video into a folder, under these numbers."""
    folder.mkdir()
    for index, number in enumerate(numbers):
        pixels = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        pixels[10:30, 5 + 4 * index : 25 + 4 * index] = (220, 30, 30)
        Image.fromarray(pixels).save(folder / name.format(number))
    return folder


def names_of(out):
    return sorted(path.stem for path in out.with_name(f"{out.stem}-masks").iterdir())


@pytest.mark.parametrize("first", [1, 100])
def test_a_mask_in_a_folder_belongs_to_the_frame_with_its_number(track, tmp_path, first):
    frames = write_frames(tmp_path / "frames", range(first, first + 5))
    (tmp_path / "given").mkdir()
    write_mask(tmp_path / f"given/{first:05d}.png", value=1)
    write_mask(tmp_path / f"given/mask_{first + 4}.png", value=2, left=40)
    out = track(frames, "--mask", tmp_path / "given", "--protocol", "identity")
    labels = labels_of(out)
    assert [bool((found == 1).any()) for found in labels] == [True] * 5
    assert [bool((found == 2).any()) for found in labels] == [False] * 4 + [True]
    numbers = [str(number) for number in range(first, first + 5) for _ in range(2)]
    assert [row["frame"] for row in rows_of(out)] == numbers
    assert names_of(out) == [f"{number:05d}" for number in range(first, first + 5)]


def test_masks_are_named_like_the_frames_of_a_folder(track, tmp_path):
    frames = write_frames(tmp_path / "frames", (7, 8, 9), "image ({}).png")
    out = track(frames, "--box", "9=5,10,25,30", "--protocol", "identity")
    assert names_of(out) == ["image (7)", "image (8)", "image (9)"]
    assert [bool(found.any()) for found in labels_of(out)] == [False, False, True]


def test_a_mask_named_like_a_frame_belongs_to_that_frame(track, tmp_path):
    frames = write_frames(tmp_path / "frames", range(1, 5))
    for name, first in (("00003", 2), ("first", 0)):
        mask = write_mask(tmp_path / f"{name}.png")
        labels = labels_of(track(frames, "--mask", mask, "--protocol", "identity"))
        assert [bool(found.any()) for found in labels] == [index >= first for index in range(4)]
    labels = labels_of(
        track(frames, "--mask", mask.with_name("00003.png"), "--start", 2, "--protocol", "identity")
    )
    assert [bool(found.any()) for found in labels] == [False, True, True, True]


SQUARE = [[5, 10], [25, 10], [25, 30], [5, 30]]


def write_labelme(path, shapes, image=None):
    shapes = [{"label": "square", "group_id": 1, "shape_type": "polygon", **s} for s in shapes]
    about = {"imagePath": image or f"{path.stem}.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH}
    path.write_text(json.dumps({"version": "5.5.0", "shapes": shapes, **about}))
    return path


def test_tool_labels_are_written_back_in_every_format(track, video, tmp_path):
    other = {"label": "strip", "group_id": 2, "points": [[40, 2], [60, 2], [60, 8], [40, 8]]}
    labels = write_labelme(tmp_path / "frame_000001.json", [{"points": SQUARE}, other])
    out = track(video, "--labels", labels, "--write", *WRITERS, "--tolerance", 0)
    masks = labels_of(out)
    assert not masks[0].any()
    assert (masks[1][10:30, 5:25] == 1).all()
    names = {(row["object"], row["name"]) for row in rows_of(out)}
    assert names == {("1", "square"), ("2", "strip")}
    table = json.loads(out.with_suffix(".json").read_text())
    assert table["frames"][1]["objects"][1]["name"] == "strip"
    for name, writer in WRITERS.items():
        shapes = read_shapes(writer.path_of(out), WIDTH, HEIGHT)
        assert {shape.object.name for shape in shapes} == {"square", "strip"}
        for index, expected in enumerate(masks):
            found = np.zeros((HEIGHT, WIDTH), bool)
            for shape in shapes:
                if shape.frame in (index, f"frame_{index:06d}"):
                    found ^= shape.mask(HEIGHT, WIDTH)
            np.testing.assert_array_equal(found, expected > 0, err_msg=f"{name}, frame {index}")


@pytest.mark.parametrize("name", WRITERS)
def test_written_labels_can_track_the_same_video_again(track, video, mask, tmp_path, name):
    flags = ("--protocol", "identity", "--write", name, "--tolerance", 0)
    out = track(video, "--mask", mask, *flags)
    again = track(video, "--labels", WRITERS[name].path_of(out), *flags, out="again.mp4")
    np.testing.assert_array_equal(labels_of(again), labels_of(out))


def video_info(name="clip_3.mp4", files=()):
    return VideoInfo(WIDTH, HEIGHT, len(files) or 20, FrameNames(files, name))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("clip_3", 0),  # the name of the video itself, as in a folder of labels
        ("clip_3_00012", 12),
        ("frame_000012", 12),
        ("frame_000012_jpg.rf.5f2d9e1c", 12),
        ("00012_mask", 12),
        ("vlcsnap-2024-01-01-12h30m15s005", 0),
        ("Screenshot from 2024-01-01 10-11-04", 0),
    ],
)
def test_masks_and_labels_belong_to_the_frame_that_their_name_gives(tmp_path, name, place):
    mask = write_mask(tmp_path / f"{name}.png")
    for start, expected in ((None, place), (7, 7)):
        given = Prompts(mask=(str(mask),), start=start)
        assert list(read_masks(given, video_info())) == [expected]
        assert list(read_annotations(mask, start, video_info()).masks or ()) == [expected]


@pytest.mark.parametrize("name", ["5", "frame_00005", "00005_mask", "00005"])
def test_a_number_in_a_mask_name_is_the_number_of_a_folder_frame(tmp_path, name):
    frames = video_info("walk", tuple((number, f"{number:05d}") for number in range(3, 9)))
    mask = write_mask(tmp_path / f"{name}.png")
    assert list(read_masks(Prompts(mask=(str(mask),)), frames)) == [2]
    assert list(read_annotations(mask, None, frames).masks or ()) == [2]


def test_a_mask_name_with_an_unknown_frame_number_is_refused(tmp_path):
    frames = video_info("walk", ((3, "00003"), (4, "00004")))
    mask = write_mask(tmp_path / "00005_mask.png")
    by_name = r"by its name \(--start N for another frame\): frame 5: the video has 2 frames"
    with pytest.raises(InputError, match=by_name):
        read_masks(Prompts(mask=(str(mask),)), frames)
    with pytest.raises(InputError, match="frame 5: the video has 2 frames: expected 3 to 4"):
        read_annotations(mask, None, frames)


def test_frame_numbers_before_the_first_or_after_the_last_are_refused(tmp_path):
    labels = tmp_path / "a.xml"
    for frame in (-1, 100):
        box = f'<box frame="{frame}" xtl="1" ytl="1" xbr="9" ybr="9"/>'
        labels.write_text(f'<annotations><track id="0" label="a">{box}</track></annotations>')
        with pytest.raises(InputError, match=f"frame {frame}: the video has .* expected 0 to"):
            read_annotations(labels, None, video_info())


def test_two_images_of_one_frame_are_refused(tmp_path):
    for name in ("3", "frame_3"):
        write_mask(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match="images '3' and 'frame_3': both of frame 3: expected one"):
        read_annotations(tmp_path, None, video_info())
    with pytest.raises(InputError, match="frame 3 has a mask already"):
        read_masks(Prompts(mask=(str(tmp_path),)), video_info())


def test_frames_of_several_videos_in_one_folder_are_refused(tmp_path):
    for name in ("walk_0", "run_5"):
        write_mask(tmp_path / f"{name}.png")
    words = "'run_5': does not begin with the video's name, as 'walk_0' does: expected those of one"
    with pytest.raises(InputError, match=words):
        read_annotations(tmp_path, None, video_info("walk.mp4"))
    with pytest.raises(InputError, match=words):
        read_masks(Prompts(mask=(str(tmp_path),)), video_info("walk.mp4"))
    assert list(read_annotations(tmp_path, None, video_info("my.mp4")).masks or ()) == [0, 5]


def test_a_mask_named_after_a_later_frame_prints_a_note(track, video, tmp_path, capfd):
    mask = write_mask(tmp_path / "00003.png")
    found = labels_of(track(video, "--mask", mask))
    assert [bool(labels_hw.any()) for labels_hw in found] == [False] * 3 + [True] * 4
    assert (
        "00003.png: marks frame 3, by its name (--start N for another frame)"
        in capfd.readouterr().err
    )
    track(video, "--mask", f"0={mask}", out="first.mp4")
    assert "by its name" not in capfd.readouterr().err


def test_cvat_image_labels_belong_to_the_frames_that_they_name(tmp_path):
    box = '<box label="a" xtl="1" ytl="1" xbr="9" ybr="9"/>'
    path = tmp_path / "a.xml"
    for name, start, index in (("frame_000012.png", None, 12), ("a.png", None, 0), ("a.png", 7, 7)):
        path.write_text(f'<annotations><image id="4" name="{name}">{box}</image></annotations>')
        assert list(read_annotations(path, start, video_info()).masks or ()) == [index]


def test_labels_of_one_image_belong_to_the_first_frame_or_to_start(track, video, tmp_path):
    labels = write_labelme(tmp_path / "screenshot.json", [{"points": SQUARE}])
    found = labels_of(track(video, "--labels", labels, "--protocol", "identity"))
    assert found[0].any()
    flags = ("--start", 3, "--protocol", "identity")
    found = labels_of(track(video, "--labels", labels, *flags))
    assert [bool(one.any()) for one in found] == [False] * 3 + [True] * 4


def test_labelled_frames_of_a_folder_are_found_by_their_names(track, tmp_path):
    frames = write_frames(tmp_path / "frames", (7, 8, 9))
    (tmp_path / "given").mkdir()
    write_labelme(tmp_path / "given/00008.json", [{"points": SQUARE}])
    right = {"label": "right", "group_id": 2, "points": [[40, 2], [60, 2], [60, 8], [40, 8]]}
    write_labelme(tmp_path / "given/00009.json", [right])
    flags = ("--labels", tmp_path / "given", "--protocol", "identity", "--write", "labelme")
    out = track(frames, *flags)
    assert [set(np.unique(found)) for found in labels_of(out)] == [{0}, {0, 1}, {0, 1, 2}]
    written = json.loads((tmp_path / "tracked-labelme/00009.json").read_text())
    assert written["imagePath"] == "../frames/00009.png"


def test_labelled_points_are_tracked_as_points(track, video, tmp_path):
    points = [{"label": n, "group_id": None, "shape_type": "point"} for n in ("nose", "hand")]
    points[0]["points"], points[1]["points"] = [[15.5, 20.5]], [[40.5, 8.5]]
    labels = write_labelme(tmp_path / "frame_0.json", points)
    out = track(video, "--labels", labels, "--write", "cvat", "coco")
    first, second = rows_of(out)[:2]
    assert (first["name"], first["x"], first["y"]) == ("nose", "15.0", "20.0")
    assert (second["name"], second["x"], second["y"]) == ("hand", "40.0", "8.0")
    shapes = read_shapes(tmp_path / "tracked-cvat.xml", WIDTH, HEIGHT)
    assert shapes[0].point == (15.5, 20.5)
    assert {shape.object.name for shape in shapes} == {"nose", "hand"}


def test_a_missing_library_for_a_format_is_reported_before_tracking(
    refusal, mask, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "shapely", None)
    before = sorted(tmp_path.iterdir())
    words = refusal("--mask", mask, "--write", "labelme", out=tmp_path / "tracked.mp4")
    assert "annotation formats need shapely: pip install contourpy shapely" in words
    assert sorted(tmp_path.iterdir()) == before


def test_invalid_labels_are_refused(refusal, video, tmp_path):
    def labelled(shapes, name="frame_000000.json", **more):
        return "--labels", write_labelme(tmp_path / name, shapes, **more)

    square = {"points": SQUARE}
    assert "frame 9: the video has 7 frames" in refusal(*labelled([square], "frame_9.json"))
    outside = {"points": [[100, 100], [120, 100], [120, 120]]}
    assert "square (group 1): has no pixel inside the video of 65x47" in refusal(
        *labelled([outside])
    )
    point = {"points": [[3, 4]], "shape_type": "point"}
    assert "points and areas: expected one of them" in refusal(*labelled([square, point]))
    far = {"points": [[66, 4]], "shape_type": "point"}
    assert "square at 66,4: is outside the video of 65x47" in refusal(*labelled([far]))
    assert "square (group 1): two points: expected one of" in refusal(*labelled([point, point]))
    assert "write yolo: the format has no points" in refusal(*labelled([point]), "--write", "yolo")
    assert "tolerance -1" in refusal(*labelled([square]), "--tolerance", -1)
    assert "track: review -1: expected 0 or more" in refusal(*labelled([square]), "--review", -1)
    assert "--labels and --points: expected one of" in refusal(
        *labelled([square]), "--points", "1,2"
    )
    (tmp_path / "given").mkdir()
    for name in ("first", "second"):
        write_labelme(tmp_path / "given" / f"{name}.json", [square])
    words = refusal("--labels", tmp_path / "given")
    assert "image 'first': no frame has this name: expected a name that ends in the" in words
    (tmp_path / "tracked-labelme").mkdir()
    edited = write_labelme(tmp_path / "tracked-labelme/frame_000000.json", [square])
    out = tmp_path / "tracked.mp4"
    for given in (edited, edited.parent):
        words = refusal("--labels", given, "--write", "labelme", out=out)
        assert "would overwrite labels" in words
        assert "expected another name, or --write without this format" in words


def test_frame_numbers_that_a_folder_does_not_have_are_refused(refusal, tmp_path):
    frames = write_frames(tmp_path / "frames", range(1, 5))
    assert "frame 0: the video has 4 frames: expected 1 to 4" in refusal(
        "--points", "0=5,5", video=frames
    )
    assert "frame 5: the video has 4 frames: expected 1 to 4" in refusal(
        "--box", "5=5,10,25,30", video=frames
    )
    assert "gone 3=hare: frame 3, object 'hare': expected FRAME=OBJECT" in refusal(
        "--box", "5,10,25,30", "--gone", "3=hare", video=frames
    )


def write_damaged(path, count=60):
    """Write a video whose index comes first, cut off after two thirds of its bytes."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        noise = np.random.default_rng(0)
        for _ in range(count):
            pixels = noise.integers(0, 255, (64, 96, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


def test_frames_before_the_damage_in_a_video_are_kept(checkpoint, tmp_path, capfd):
    video, out = write_damaged(tmp_path / "cut.mp4"), tmp_path / "tracked.mp4"
    flags = (
        "--video",
        video,
        "--checkpoint",
        checkpoint,
        "--out",
        out,
        "--device",
        "cpu",
        "--size",
        "0",
        "--protocol",
        "paper",
    )
    assert main([str(flag) for flag in (*flags, "--box", "5,10,25,30")]) == 1
    count = len(frames_of(out))
    assert 20 < count < 60
    assert len(labels_of(out)) == len(rows_of(out)) == count
    message = capfd.readouterr().err.strip().splitlines()[-1]
    assert message.startswith(f"track.py: video {video} can't be read further: ")
    assert f"; the first {count} frames are kept: {out}, " in message


def test_damage_before_the_first_mark_is_an_error(refusal, tmp_path):
    message = refusal("--points", "59=5,5", video=write_damaged(tmp_path / "cut.mp4"))
    assert "cut.mp4: " in message


def test_non_square_pixels_are_marked_and_written_as_players_show_them(track, tmp_path):
    with av.open(str(tmp_path / "wide.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        for _ in range(3):
            pixels = np.full((64, 48, 3), 40, np.uint8)
            pixels[16:48, 12:24] = (220, 30, 30)  # a player shows columns 24 to 48
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    Image.fromarray(np.pad(np.full((32, 24), 255, np.uint8), ((16, 16), (24, 48)))).save(
        tmp_path / "mask.png"
    )
    out = track(tmp_path / "wide.mp4", "--mask", tmp_path / "mask.png", "--protocol", "identity")
    assert [frame.shape for frame in frames_of(out)] == [(64, 96, 3)] * 3
    assert (rows_of(out)[0]["x0"], rows_of(out)[0]["x1"]) == ("24", "48")
    assert np.abs(frames_of(out)[0][32, 36] - (174, 15, 15)).max() < 30


def test_files_of_a_longer_result_are_removed_and_user_files_are_kept(track, mask, tmp_path):
    video = write_video(tmp_path / "one.mkv", 9)
    flags = ("--mask", mask, "--write", "labelme", "yolo")
    out = track(video, *flags)
    own = tmp_path / "tracked-labelme/notes.json"
    own.write_text("mine")
    painted = write_mask(tmp_path / "tracked-masks/00008.png", left=29)
    write_video(video, 7)
    track(video, *flags, "--overwrite")
    assert names_of(out) == [*(f"{index:05d}" for index in range(7)), painted.stem]
    frames = {f"frame_{index:06d}" for index in range(7)}
    assert {path.stem for path in own.parent.glob("*.json")} == {*frames, own.stem}
    assert {path.stem for path in (tmp_path / "tracked-yolo/labels").iterdir()} == frames
    assert own.read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_ctrl_c_keeps_the_frames_that_are_done(checkpoint, tmp_path):
    video, out = write_video(tmp_path / "long.mkv", 2000), tmp_path / "tracked.mp4"
    flags = (
        "--video",
        video,
        "--box",
        "5,10,25,30",
        "--checkpoint",
        checkpoint,
        "--out",
        out,
        "--device",
        "cpu",
        "--size",
        "0",
    )
    line = [sys.executable, str(ROOT / "launch/track.py"), *map(str, flags)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + TIMEOUT_SECONDS
    while (
        not (tmp_path / ".tracked.tmp/tracked-masks/00003.png").exists()
        and process.poll() is None
        and time.monotonic() < until
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 130, stderr
    count = len(frames_of(out))
    assert 4 <= count < 2000
    assert f"interrupted; the first {count} frames are kept: {out}" in stderr
    assert (
        len(labels_of(out))
        == len(rows_of(out))
        == len(json.loads(out.with_suffix(".json").read_text())["frames"])
        == count
    )
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_second_ctrl_c_ends_the_command_at_once():
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as is_interrupted:
        os.kill(os.getpid(), signal.SIGINT)
        assert is_interrupted()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def refusal(refused, video, checkpoint, tmp_path):
    """Runs the command with flags that it must refuse; returns its error line."""

    def call(*flags, **change):
        given = {"video": video, "checkpoint": checkpoint, "out": tmp_path / "o.mp4", **change}
        message = refused(
            "track",
            *(part for name, value in given.items() for part in (f"--{name}", value)),
            *flags,
        )
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(("o.", ".o"))]
        return message

    return call


def test_missing_and_invalid_videos_and_checkpoints_are_refused(
    refusal, mask, checkpoint, tmp_path
):
    flags = ("--mask", mask)
    assert "no such file" in refusal(*flags, video=tmp_path / "none.mp4")
    for name, what in (("none", "no such file"), ("empty", "no videos and")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        given = tmp_path / name
        assert f"video {given}: {what}" in refusal(*flags, video=given, out=tmp_path / "folder")
    assert "no such file" in refusal(*flags, checkpoint=tmp_path / "none.pt")
    (tmp_path / "cut.pt").write_bytes(checkpoint.read_bytes()[:3000])
    assert "truncated" in refusal(*flags, checkpoint=tmp_path / "cut.pt")
    torch.save({"model": {"other": torch.zeros(1)}}, tmp_path / "other.pt")
    assert "another architecture" in refusal(*flags, checkpoint=tmp_path / "other.pt")
    (tmp_path / "text.mp4").write_text("no video")
    assert "text.mp4: " in refusal(*flags, video=tmp_path / "text.mp4")
    gap = tmp_path / "gap"
    gap.mkdir()
    for n in (0, 1, 3):
        Image.new("RGB", (WIDTH, HEIGHT)).save(gap / f"{n:05d}.jpg")
    assert "frame 2 is missing before 00003.jpg" in refusal(*flags, video=gap)


def test_invalid_masks_are_refused(refusal, video, mask, tree, tmp_path):
    assert "is 64x48, the video 65x47: expected the same size" in refusal(
        "--mask", tree / "Annotations/480p/val-000/00000.png"
    )
    assert "no such file" in refusal("--mask", tmp_path / "none.png")
    assert "not a readable image" in refusal("--mask", video)
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "blank.png")
    assert "is empty" in refusal("--mask", tmp_path / "blank.png")
    Image.fromarray(np.full((HEIGHT, WIDTH), 300, np.uint16)).save(tmp_path / "many.png")
    assert "holds the label 300: expected 0 to 255" in refusal("--mask", tmp_path / "many.png")
    assert "frame 7: the video has 7 frames: expected 0 to 6" in refusal("--mask", f"7={mask}")
    assert "frame 2 has a mask already" in refusal("--mask", f"2={mask}", f"2={mask}")
    (tmp_path / "given").mkdir()
    assert "no PNG there" in refusal("--mask", tmp_path / "given")
    for name in ("first", "second"):
        shutil.copy(mask, tmp_path / f"given/{name}.png")
    assert "ends in the frame's number" in refusal("--mask", tmp_path / "given")
    assert "ends in the frame's number" in refusal("--mask", mask, mask)


def test_invalid_points_and_boxes_are_refused(refusal):
    assert (
        "point 65,20: is outside the video of 65x47: expected x from 0 to 64, y from 0 to 46"
        in refusal("--points", "65,20")
    )
    assert "point 10: expected x,y in pixels" in refusal("--points", "10")
    assert "point 10,x: expected x,y" in refusal("--points", "3=10,x")
    assert "frame 9: the video has 7 frames" in refusal("--points", "9=10,10")
    assert "frame 9: the video has 7 frames" in refusal("--points", "10,10", "--start", 9)
    assert "box 5,10,25: expected x0,y0,x1,y1" in refusal("--box", "5,10,25")
    assert "box 25,10,5,30: expected 0 <= x0 < x1 <= 65" in refusal("--box", "25,10,5,30")
    assert "box 0,0,66,10" in refusal("--box", "0,0,66,10")


def test_invalid_and_incompatible_flags_are_refused(refusal, mask, tmp_path):
    assert "nothing marked: expected one of --labels, --mask, --points, --box" in refusal()
    assert "--mask and --points: expected one of" in refusal("--mask", mask, "--points", "1,2")
    assert "start -1" in refusal("--points", "1,2", "--start", -1)
    names = "names a b: 2 names: expected one for each of what is marked: 1"
    assert names in refusal("--mask", mask, "--names", "a", "b")
    assert "names: one is empty" in refusal("--mask", mask, "--names", " ")
    assert "--names and --labels" in refusal("--labels", mask, "--names", "a")
    assert "size 31" in refusal("--mask", mask, size=31)
    assert "expected a name that ends in .mp4" in refusal("--mask", mask, out=tmp_path / "x.txt")
    assert "protocol 'mine': expected one of paper, " in refusal(
        "--mask", mask, "--protocol", "mine"
    )
    assert "browser: expected no video, out or marks" in refusal("--browser")
    assert "port 0" in refusal("--mask", mask, "--port", 0)


def test_a_missing_video_or_model_is_reported(refused, checkpoint, tmp_path, monkeypatch):
    assert "no video: expected --video VIDEO, or --browser" in refused(
        "track", "--checkpoint", checkpoint, "--points", "1,2"
    )
    # simulates a copy of the project without models
    monkeypatch.setattr("corrflow.pretrained.MODELS", tmp_path)
    assert "base: no such file: expected a checkpoint, since this copy has no models" in refused(
        "track", "--browser"
    )


def test_input_files_are_never_overwritten(refusal, tree, mask, tmp_path):
    frames = shutil.copytree(tree / "JPEGImages/480p/val-000", tmp_path / "walk-masks")
    assert "would overwrite the video" in refusal(
        "--mask", mask, video=frames, out=tmp_path / "walk.mp4"
    )
    (tmp_path / "my.mp4").write_bytes(b"precious")
    assert "would overwrite the video" in refusal(
        "--mask", mask, video=tmp_path / "my.mp4", out=tmp_path / "my.mp4"
    )
    (tmp_path / "tracked-masks").mkdir()
    edited = write_mask(tmp_path / "tracked-masks/00003.png")
    assert "would overwrite mask" in refusal("--mask", f"3={edited}", out=tmp_path / "tracked.mp4")
    square = {"points": [[5, 10], [25, 10], [25, 30], [5, 30]]}
    labels = write_labelme(tmp_path / "clip.json", [square])
    for given in (("--labels", labels), ("--labels", tmp_path), ("--mask", mask)):
        words = refusal(*given, out=tmp_path / "clip.mp4")
        assert "clip.mp4: would overwrite" in words
        assert "clip.json" in words or given[1] == tmp_path


def test_smaller_boxes_cover_larger_ones_and_later_boxes_cover_equal_ones():
    video_info = VideoInfo(8, 8, 6)
    masks = read_boxes(Prompts(box=("0,0,4,4", "2,2,6,6", "5=1,1,2,2")), video_info)
    assert (masks[0][1, 1], masks[0][3, 3], masks[5][1, 1]) == (1, 2, 3)
    masks = read_boxes(Prompts(box=("0,0,4,4", "5=1,1,2,2", "4,4,8,8")), video_info)
    assert (masks[0][1, 1], masks[5][1, 1], masks[0][5, 5]) == (1, 2, 3)
    masks = read_boxes(Prompts(box=("2,2,4,4", "0,0,8,8")), video_info)
    assert (masks[0][1, 1], masks[0][3, 3]) == (2, 1)
    with pytest.raises(InputError, match="box: frame 5: 2: is hidden by 1: expected objects that"):
        read_boxes(Prompts(box=("2,2,4,4", "2,2,4,4"), start=5), video_info)
    with pytest.raises(InputError, match="an empty value"):
        read_boxes(Prompts(box=("",)), video_info)


@pytest.mark.skipif(
    not (SHARED / "data/train_clips").exists(), reason="the real clips are not here"
)
def test_a_real_clip_is_tracked(track):
    clip = min((SHARED / "data/train_clips").glob("*.mp4"), key=lambda path: path.stat().st_size)
    out = track(clip, "--points", "20,20", "--size", 64)
    assert len(frames_of(out)) == len(frames_of(Path(clip)))
