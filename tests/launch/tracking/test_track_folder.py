"""Tests tracking a folder of videos: `launch/track.py --video DIR --labels DIR --out DIR`."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from test_track import SQUARE, checkpoint, write_labelme, write_video

from corrflow.tracking import staging
from launch.common import job_array
from launch.track import main
from launch.tracking import track_folder
from slurm.errors import ClusterError

__all__ = ["checkpoint"]  # a fixture


@pytest.fixture
def folders(tmp_path):
    """Videos with labels of one, two and no frames, one of them in a subfolder."""
    (tmp_path / "videos" / "day two").mkdir(parents=True)
    (tmp_path / "labels" / "day two" / "walk").mkdir(parents=True)
    write_video(tmp_path / "videos" / "run.mkv", count=3)
    write_video(tmp_path / "videos" / "day two" / "walk.mkv", count=4)
    write_video(tmp_path / "videos" / "empty.mkv", count=3)
    write_labelme(tmp_path / "labels" / "run.json", [{"points": SQUARE}], "frame_000000.jpg")
    for number in (0, 2):
        path = tmp_path / "labels" / "day two" / "walk" / f"frame_{number:06d}.json"
        write_labelme(path, [{"points": SQUARE}])
    return tmp_path


@pytest.fixture
def track(folders, checkpoint):
    """Runs the command; returns its exit code."""

    def call(*flags, out="out"):
        given = ("--video", folders / "videos", "--labels", folders / "labels")
        given += ("--out", folders / out, "--checkpoint", checkpoint, "--device", "cpu")
        given += ("--size", "0")
        return main([str(part) for part in (*given, *flags)])

    return call


def rows_of(out):
    with (out / "summary.csv").open() as file:
        return {row["video"]: row for row in csv.DictReader(file)}


def test_an_edited_mask_tracks_its_video_again(track, folders, capfd):
    assert track() == 0
    path = folders / "out/run-masks/00001.png"
    with Image.open(path) as image:
        shape = np.zeros_like(image)
    shape[20:30, 30:50] = 1
    Image.fromarray(shape).save(path)
    capfd.readouterr()
    assert track() == 0
    captured = capfd.readouterr()
    assert "tracking" in captured.err
    assert json.loads((folders / "out/run.json").read_text())["provenance"]["edited"] == {
        "1": {"1": ""}
    }
    assert track() == 0
    assert "tracking" not in capfd.readouterr().err
    path.unlink()
    assert track() == 0
    assert json.loads((folders / "out/run.json").read_text())["provenance"]["edited"] == {}


def test_every_video_is_tracked_from_its_labels_once(track, folders, capfd):
    out = folders / "out"
    assert track("--write", "cvat") == 0
    assert "tracked 2 of 3 videos, 1 without labels" in capfd.readouterr().out
    rows = rows_of(out)
    assert {name: row["state"] for name, row in rows.items()} == {
        "run": "tracked",
        "day two/walk": "tracked",
        "empty": "without labels",
    }
    assert (rows["run"]["frames"], rows["day two/walk"]["frames"]) == ("3", "4")
    assert 0 < float(rows["run"]["confidence"]) <= 1
    first = np.asarray(Image.open(out / "run-masks" / "00000.png"))
    assert (first[10:30, 5:25] == 1).all()
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    assert {path.name for path in times} == {"run.mp4", "walk.mp4"}
    assert (out / "day two" / "walk-cvat.xml").exists()
    # the same command again tracks nothing
    assert track("--write", "cvat") == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    # another format is written for all videos
    assert track("--write", "cvat", "labelme") == 0
    assert (out / "day two" / "walk-labelme").is_dir()
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    # changed labels track their video alone
    other = {"label": "late", "group_id": 2, "points": [[40, 2], [60, 2], [60, 8], [40, 8]]}
    labels = folders / "labels" / "run.json"
    write_labelme(labels, [{"points": SQUARE}, other], "frame_000000.jpg")
    assert track("--write", "cvat") == 0
    changed = {path.name for path in times if path.stat().st_mtime_ns != times[path]}
    assert changed == {"run.mp4"}
    assert "late" in (out / "run-cvat.xml").read_text()


def test_a_video_with_a_problem_is_reported_and_tried_again(track, folders, capfd):
    labels = folders / "labels" / "run.json"
    write_labelme(labels, [{"points": SQUARE}], "frame_000009.jpg")
    assert track() == 1
    shown = capfd.readouterr()
    assert "1 with a problem" in shown.out
    assert "run: labels" in shown.err
    assert "frame 9: the video has 3 frames" in rows_of(folders / "out")["run"]["problem"]
    assert (folders / "out" / "day two" / "walk.mp4").exists()
    write_labelme(labels, [{"points": SQUARE}], "frame_000001.jpg")
    assert track() == 0
    assert rows_of(folders / "out")["run"]["state"] == "tracked"


def test_a_broken_link_does_not_stop_the_other_videos(track, folders):
    video = folders / "videos" / "run.mkv"
    video.unlink()
    video.symlink_to(folders / "gone.mkv")
    assert track() == 1
    rows = rows_of(folders / "out")
    assert "run.mkv: no such file or folder" in rows["run"]["problem"]
    assert rows["day two/walk"]["state"] == "tracked"


def test_a_replaced_video_does_not_count_as_tracked(track, folders):
    assert track() == 0
    write_video(folders / "videos" / "run.mkv", count=5)
    assert track() == 1
    assert "is from another video" in rows_of(folders / "out")["run"]["problem"]
    assert track("--overwrite") == 0
    assert rows_of(folders / "out")["run"]["frames"] == "5"


def test_label_suffixes_may_be_in_capital_letters(track, folders):
    labels = folders / "labels/run.json"
    labels.rename(labels.with_suffix(".JSON"))
    assert track() == 0
    assert rows_of(folders / "out")["run"]["state"] == "tracked"


def test_an_image_beside_videos_does_not_make_the_folder_a_video(track, folders):
    Image.new("RGB", (64, 48)).save(folders / "videos" / "IMG_0001.png")
    assert track() == 0
    assert rows_of(folders / "out")["run"]["state"] == "tracked"


def test_array_jobs_receive_the_flags_unchanged(track, folders, monkeypatch):
    def keep(tasks, last, *_):
        submitted.extend([*tasks, last])
        raise ClusterError("not today")

    submitted = []
    monkeypatch.setattr(track_folder, "goes_to_slurm", lambda jobs, local: True)
    monkeypatch.setattr(job_array, "submit_array", keep)
    monkeypatch.chdir(folders)
    (folders / "coco").mkdir()
    with pytest.raises(ClusterError):
        track("--write", "coco", "--jobs", 2)
    assert len(submitted) == 3
    assert all("coco" in task.arguments["argv"] for task in submitted)


def test_several_processes_produce_the_results_of_one(track, folders):
    assert track(out="alone") == 0
    assert track("--jobs", 2, "--local", out="shared") == 0
    for name in ("run-masks/00002.png", "day two/walk-masks/00003.png", "run.csv"):
        assert (folders / "alone" / name).read_bytes() == (folders / "shared" / name).read_bytes()
    states = [row["state"] for row in rows_of(folders / "shared").values()]
    assert states.count("tracked") == 2


def test_invalid_input_is_refused_with_one_line(track, folders, refused, checkpoint):
    assert track() == 0
    base = ("--video", folders / "videos", "--checkpoint", checkpoint, "--device", "cpu")
    given = ("--labels", folders / "labels")
    out = ("--out", folders / "out")
    words = refused("track", *base, *given, *out, "--size", 64)
    assert "out: belongs to other settings: size" in words
    labels = folders / "labels" / "run.json"
    assert "expected a folder of labels" in refused("track", *base, "--labels", labels, *out)
    mp4 = ("--out", folders / "x.mp4")
    assert "is a folder of videos: expected a folder" in refused("track", *base, *given, *mp4)
    (folders / "other").mkdir()
    words = refused("track", *base, "--labels", folders / "other", *out)
    assert "none of 3 videos: expected day two/walk.xml" in words
    shutil.copy(labels, folders / "labels" / "run.txt")
    assert "both of run: expected one of them" in refused("track", *base, *given, *out)
    assert "track: local: expected --jobs N" in refused("track", *base, *given, *out, "--local")
    assert "labels None: expected a folder of labels" in refused(
        "track", *base, *out, "--box", "1,2,9,9"
    )
    video = ("--video", folders / "videos/run.mkv", "--labels", labels.with_suffix(".json"))
    words = refused("track", *base[2:], *video, *mp4, "--jobs", 2)
    assert "run.mkv is one: expected a folder" in words
    words = refused("track", *base, *given, *out, "--points", "1,2")
    assert "--labels and --points: expected one of" in words


def test_deleted_results_are_written_again(track, folders):
    assert track("--write", "cvat") == 0
    results = sorted((folders / "out").glob("run*"))
    assert len(results) == 5
    for pattern in ("run.mp4", "run.csv", "run-masks", "run-cvat.xml", "run*"):
        for path in (folders / "out").glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert track("--write", "cvat") == 0
        assert sorted((folders / "out").glob("run*")) == results


def test_a_video_is_completed_after_a_kill_while_publishing(track, folders, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    assert track() == 0
    path = folders / "out/run-masks/00001.png"
    with Image.open(path) as image:
        Image.fromarray(np.zeros_like(image)).save(path)
    video_bytes = (folders / "out/run.mp4").read_bytes()
    move = staging.move_files

    def move_masks(folder, home, before):
        move(folder, home, {name: d for name, d in before.items() if name.endswith(".png")})
        killed()

    with monkeypatch.context() as patched:
        patched.setattr(staging, "move_files", move_masks)
        with pytest.raises(KeyboardInterrupt):
            track()
    assert (folders / "out/run.mp4").read_bytes() == video_bytes
    assert track() == 0
    assert (folders / "out/run.mp4").read_bytes() != video_bytes
    assert not list((folders / "out").glob(".run*"))


def test_a_record_of_other_labels_is_ignored(track, folders):
    assert track() == 0
    path = folders / "out" / "records" / "run.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "labels": "other"}))
    assert track("--review", 2) == 0
    assert json.loads(path.read_text())["labels"] == stored["labels"]
