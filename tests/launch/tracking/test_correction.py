"""The same command with other marks: which frames are tracked again, and which files keep their
bytes."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, TIMEOUT_SECONDS
from PIL import Image
from test_track import (
    HEIGHT,
    WIDTH,
    checkpoint,
    labels_of,
    mask,
    rows_of,
    track,
    video,
    write_labelme,
    write_mask,
    write_video,
)

from corrflow.annotations import WRITERS, AnnotatedVideo, NamedObject, TrackedShape, open_writer

__all__ = ["checkpoint", "mask", "track", "video"]  # fixtures


def state_of(out):
    """Bytes and time of each mask."""
    folder = out.with_name(f"{out.stem}-masks")
    return [(path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]


def unchanged(before, after):
    """The frames whose files nobody has touched."""
    pairs = zip(before, after, strict=True)
    return [place for place, (one, other) in enumerate(pairs) if one == other]


def test_only_the_frames_that_a_correction_is_about_are_tracked(track, video, tmp_path, capfd):
    first, last = write_mask(tmp_path / "a.png"), write_mask(tmp_path / "b.png", left=29)
    given = ("--mask", f"0={first}", f"5={last}")
    out = track(video, *given)
    before = state_of(out)
    fix = write_mask(tmp_path / "fix.png", left=12)
    capfd.readouterr()
    track(video, *given, f"3={fix}")
    assert "tracked 7 frames, of which 3 stay as they were" in capfd.readouterr().out
    assert unchanged(before, state_of(out)) == [0, 5, 6]
    assert np.array_equal(labels_of(out)[3] > 0, np.array(Image.open(fix)) > 0)
    rows = rows_of(out)
    assert len(rows) == 7
    assert [row["frame"] for row in rows if row["confidence"] == "1.0"] == ["0", "3", "5"]


def test_the_same_marks_write_other_formats_and_track_nothing(track, video, mask, capfd):
    out = track(video, "--mask", mask)
    before, film, told = state_of(out), out.read_bytes(), out.with_suffix(".json").read_bytes()
    capfd.readouterr()
    track(video, "--mask", mask, "--write", "labelme")
    assert "tracked 7 frames, of which 7 stay as they were" in capfd.readouterr().out
    assert unchanged(before, state_of(out)) == list(range(7))
    assert (out.read_bytes(), out.with_suffix(".json").read_bytes()) == (film, told)
    assert WRITERS["labelme"].path_of(out).is_dir()


@pytest.mark.parametrize("flags", [("--size", "40"), ("--protocol", "paper"), ("--overwrite",)])
def test_other_settings_track_all_frames(track, video, mask, capfd, flags):
    out = track(video, "--mask", mask)
    before = state_of(out)
    capfd.readouterr()
    track(video, "--mask", mask, *flags)
    assert "tracked 7 frames: " in capfd.readouterr().out
    assert unchanged(before, state_of(out)) == []


def test_another_video_or_a_lost_mask_tracks_all_frames(track, mask, tmp_path, capfd):
    video = write_video(tmp_path / "one.mkv")
    out = track(video, "--mask", mask)
    write_video(video, 8)
    track(video, "--mask", mask)
    assert "tracked 8 frames: " in capfd.readouterr().out
    (tmp_path / "tracked-masks/00004.png").unlink()
    track(video, "--mask", mask)
    assert "tracked 8 frames: " in capfd.readouterr().out
    assert len(labels_of(out)) == 8


def test_a_corrected_object_leaves_the_other_where_it_was(track, video, tmp_path):
    both = np.zeros((HEIGHT, WIDTH), np.uint8)
    both[10:30, 5:25], both[35:44, 40:60] = 1, 2
    Image.fromarray(both).save(tmp_path / "both.png")
    flags = ("--protocol", "identity", "--mask", f"0={tmp_path / 'both.png'}")
    out = track(video, *flags)
    fix = write_mask(tmp_path / "fix.png", value=1, left=17)
    track(video, *flags, f"3={fix}")
    labels = labels_of(out)
    assert np.array_equal(labels[3] == 1, np.array(Image.open(fix)) == 1)
    assert all(np.array_equal(shown == 2, both == 2) for shown in labels)
    assert np.array_equal(labels[6], labels[3])


@pytest.mark.parametrize("name", WRITERS)
def test_of_what_a_tool_gives_back_only_the_corrected_frame_is_a_correction(
    track, video, mask, tmp_path, capfd, name
):
    """All frames come back as polygons, which are not the masks to the pixel."""
    out = track(video, "--mask", mask)
    before, masks = state_of(out), [labels > 0 for labels in labels_of(out)]
    masks[4] = np.array(Image.open(write_mask(tmp_path / "fix.png", left=11))) > 0
    about = AnnotatedVideo(video.name, WIDTH, HEIGHT, [NamedObject("1")])
    writer = open_writer(name, tmp_path / "corrected.mp4", about, 1.0)
    for place, mask_hw in enumerate(masks):
        shapes = [TrackedShape(1, mask_hw)] if mask_hw.any() else []
        writer.add(place, np.zeros((HEIGHT, WIDTH, 3), np.uint8), shapes)
    writer.finish()
    capfd.readouterr()
    corrected = WRITERS[name].path_of(tmp_path / "corrected.mp4")
    track(video, "--labels", corrected)
    assert "tracked 7 frames, of which 1 stay as they were" in capfd.readouterr().out
    assert unchanged(before, state_of(out)) == [0]
    differing = (labels_of(out)[4] > 0) != masks[4]
    assert differing.sum() <= 20  # of 400


def test_a_corrected_point_leaves_the_others(track, video, tmp_path):
    def label(frame, *points):
        shapes = [
            {"label": name, "points": [[x, y]], "shape_type": "point", "group_id": None}
            for name, x, y in points
        ]
        write_labelme(tmp_path / f"labels/frame_{frame:06d}.json", shapes)

    (tmp_path / "labels").mkdir()
    flags = ("--protocol", "identity", "--labels", tmp_path / "labels")
    label(0, ("nose", 8.5, 12.5), ("tail", 30.5, 20.5))
    out = track(video, *flags)
    before = rows_of(out)
    label(4, ("nose", 20.5, 16.5))
    track(video, *flags)
    after = rows_of(out)
    assert after[1::2] == before[1::2]
    assert {(row["x"], row["y"]) for row in after[8::2]} == {("20.0", "16.0")}
    assert after[0] == before[0]


def test_an_interrupted_correction_leaves_all_as_it_was(checkpoint, tmp_path):
    video = write_video(tmp_path / "long.mkv", 400)
    write_mask(tmp_path / "a.png")
    write_mask(tmp_path / "fix.png", left=9)
    line = [sys.executable, str(ROOT / "launch/track.py"), "--video", str(video)]
    line += ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "tracked.mp4")]
    line += ["--device", "cpu", "--mask", f"0={tmp_path / 'a.png'}"]
    subprocess.run(line, check=True, capture_output=True)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in files}
    process = subprocess.Popen(
        [*line, f"200={tmp_path / 'fix.png'}"], stderr=subprocess.PIPE, text=True
    )
    told = ""
    until = time.monotonic() + TIMEOUT_SECONDS
    while "backward" not in told and process.poll() is None and time.monotonic() < until:
        told += os.read(process.stderr.fileno(), 4096).decode()
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=TIMEOUT_SECONDS)[1]
    assert process.returncode == 130, told + rest
    assert "interrupted before anything was written" in rest
    assert {path: path.read_bytes() for path in before} == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_was_interrupted_is_tracked_anew(track, video, mask, capfd):
    out = track(video, "--mask", mask)
    table = out.with_suffix(".json")
    told = json.loads(table.read_text())
    told["made_from"]["whole"] = False
    table.write_text(json.dumps(told))
    capfd.readouterr()
    track(video, "--mask", mask)
    assert "tracked 7 frames: " in capfd.readouterr().out
