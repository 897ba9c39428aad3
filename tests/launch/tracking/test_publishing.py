"""Tests the publishing of results: which files they may replace, and what happens if files change
or the process is killed meanwhile."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from holding import holder
from test_correction import marks_of, shape_at, state_of, unchanged
from test_track import checkpoint, labels_of, mask, track, video, write_mask, write_video

from corrflow import InputError
from corrflow.annotations import WRITERS
from corrflow.tracking import staging
from corrflow.tracking.disk_buffer import DiskBuffer
from corrflow.tracking.recording import MaskRecording

__all__ = ["checkpoint", "mask", "track", "video"]  # fixtures
SHARED_MEMORY = Path("/dev/shm")  # usually on another file system than the tests


def files_below(path):
    """The bytes of the file, or of all files in the folder, by path."""
    return {file: file.read_bytes() for file in (path, *path.rglob("*")) if file.is_file()}


def killed(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("is_edited", [False, True])
@pytest.mark.parametrize("given", ["cvat.xml", "labelme", "yolo", "yolo/labels"])
def test_labels_that_are_read_in_place_are_not_touched(
    track, video, mask, tmp_path, given, is_edited
):
    name = given.removesuffix(".xml").removesuffix("/labels")
    out = track(video, "--mask", mask, "--write", name, "coco")
    own = WRITERS[name].path_of(out)
    labels = tmp_path / f"tracked-{given}"
    if is_edited:
        file = max(path for path in files_below(labels) if path.suffix in (".xml", ".json", ".txt"))
        file.write_text(file.read_text() + "\n")
    before = files_below(own)
    for flags in (("--labels", labels), ("--mask", mask)):
        track(video, *flags)
        assert files_below(own) == before
    assert WRITERS["coco"].path_of(out).exists()
    with pytest.raises(InputError, match=rf"would overwrite {own}, which no tracking has written"):
        track(video, "--mask", mask, "--write", name)


@pytest.mark.parametrize("name", ["tracked-masks/00001.png", "tracked-masks/00004.png", "coco"])
def test_files_that_change_during_tracking_are_not_overwritten(
    track, video, mask, tmp_path, monkeypatch, name
):
    """The cases are a mask that stays, one that is tracked again, and an annotation file."""
    out = track(video, "--mask", mask, "--write", "coco")
    path = WRITERS["coco"].path_of(out) if name == "coco" else tmp_path / name
    flags = ("--mask", f"0={mask}", f"2={mask}")
    track(video, *flags)
    before, add = files_below(tmp_path), MaskRecording.add
    fix = write_mask(tmp_path / "fix.png", left=12)

    def change(self, *frame):
        if self.count == 3:
            path.write_text("{}") if name == "coco" else write_mask(path, value=1, left=13)
        add(self, *frame)

    with monkeypatch.context() as patched:
        patched.setattr(MaskRecording, "add", change)
        with pytest.raises(InputError, match=rf"{path}: was changed while the video was tracked"):
            track(video, *flags, f"5={fix}")
    after = files_below(tmp_path)
    assert {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)} == {path, fix}
    if name == "coco":
        return
    track(video, *flags, f"5={fix}")
    assert marks_of(out) == sorted({0, 2, 5, int(path.stem)})
    assert np.array_equal(labels_of(out)[int(path.stem)] == 1, shape_at(13))


def test_a_second_command_is_refused_until_the_first_ends_or_is_killed(
    track, video, mask, tmp_path
):
    out = track(video, "--mask", mask)
    before = state_of(out)
    with holder(out, "result_lock") as process:
        with pytest.raises(InputError, match=rf"out {out}: process {process.pid} on .* tracking"):
            track(video, "--mask", mask, "--overwrite")
        assert unchanged(before, state_of(out)) == list(range(7))
        track(video, "--mask", mask, out="other.mp4")
        process.kill()
        process.wait()
        track(video, "--mask", mask)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("gone", [("tracked.json",), ("tracked.json", staging.LIST)])
def test_a_run_killed_before_its_table_is_moved_publishes_nothing(
    track, video, mask, tmp_path, monkeypatch, gone
):
    """This holds even if the next run is killed while it deletes the files that were left."""
    out = track(video, "--mask", mask)
    before, replace = files_below(tmp_path), Path.replace
    fix = write_mask(tmp_path / "fix.png", left=12)

    def stop_at_table(path, target):
        return killed() if target == out.with_suffix(".json") else replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", stop_at_table)
        with pytest.raises(KeyboardInterrupt):
            track(video, "--mask", f"0={mask}", f"3={fix}")
    fix.unlink()
    waiting = tmp_path / ".tracked.new"
    for name in gone:
        (waiting / name).unlink()
    assert (waiting / "tracked-masks/00003.png").exists()
    track(video, "--mask", mask)
    assert files_below(tmp_path) == before


def test_a_run_killed_after_its_table_is_moved_leaves_no_outdated_files(
    track, mask, tmp_path, monkeypatch
):
    video = write_video(tmp_path / "one.mkv", 9)
    out = track(video, "--mask", mask, "--write", "yolo")
    painted = write_mask(tmp_path / "tracked-masks/00008.png", left=29)
    write_video(video, 7)
    with monkeypatch.context() as patched:
        patched.setattr(staging, "move_files", killed)
        with pytest.raises(KeyboardInterrupt):
            track(video, "--mask", mask, "--overwrite")
    shutil.copytree(tmp_path, tmp_path / "copy")  # files of the copy have other times
    for folder in (tmp_path, tmp_path / "copy"):
        track(video, "--mask", mask, out=folder / "tracked.mp4")
        masks = sorted(path.name for path in (folder / "tracked-masks").iterdir())
        assert masks == [*(f"{index:05d}.png" for index in range(7)), painted.name]
        assert marks_of(folder / out.name) == [0]
        assert not list(folder.glob(".*"))


def test_folders_of_outdated_files_are_removed_if_they_become_empty(track, video, mask, tmp_path):
    track(video, "--mask", mask, "--write", "yolo", "labelme")
    notes = tmp_path / "tracked-labelme/notes.txt"
    notes.write_text("mine")
    track(video, "--points", "8,12", "--overwrite")
    assert not (tmp_path / "tracked-yolo").exists()
    assert not (tmp_path / "tracked-masks").exists()
    assert list(notes.parent.iterdir()) == [notes]


@pytest.mark.parametrize(
    ("name", "is_folder"),
    [("-masks", False), ("-labelme", False), (".csv", True), (".mp4", True), ("-cvat.xml", True)],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_blocked_result_path_is_reported_before_tracking(
    track, video, mask, tmp_path, monkeypatch, name, is_folder, is_first
):
    if not is_first:
        track(video, "--mask", mask, "--write", "cvat", "labelme")
    path = tmp_path / f"tracked{name}"
    if path.exists():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.mkdir() if is_folder else path.write_text("notes")
    before = files_below(tmp_path)
    monkeypatch.setattr(MaskRecording, "add", None)
    words = "is a folder: expected a file, or none" if is_folder else "is not a folder: expected"
    with pytest.raises(InputError, match=f"{path}: {words}"):
        track(video, "--mask", mask, "--overwrite", "--write", "cvat", "labelme")
    assert files_below(tmp_path) == before


def test_a_result_path_blocked_during_tracking_publishes_nothing(
    track, video, mask, tmp_path, monkeypatch
):
    track(video, "--mask", mask)
    add = MaskRecording.add

    def change(self, *frame):
        if self.count == 3:
            (tmp_path / "tracked.csv").unlink()
            (tmp_path / "tracked.csv").mkdir()
        add(self, *frame)

    monkeypatch.setattr(MaskRecording, "add", change)
    table = (tmp_path / "tracked.json").read_bytes()
    with pytest.raises(InputError, match=r"tracked.csv: is a folder: expected a file, or none"):
        track(video, "--mask", mask, "--size", "40")
    assert (tmp_path / "tracked.json").read_bytes() == table
    assert not list(tmp_path.glob(".*"))


def test_an_unwritable_result_folder_is_refused(track, video, mask, monkeypatch, tmp_path):
    track(video, "--mask", mask)
    monkeypatch.setattr(os, "access", lambda path, _: path.name != "tracked-masks")
    with pytest.raises(InputError, match="tracked-masks: can't be written to: expected a folder"):
        track(video, "--mask", mask)


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="there is no other file system")
def test_a_link_to_another_file_system_is_refused(track, video, mask, tmp_path):
    track(video, "--mask", mask)
    elsewhere = SHARED_MEMORY / f"corrflow-{os.getpid()}"
    shutil.copytree(tmp_path / "tracked-masks", elsewhere)
    try:
        if elsewhere.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("that is the same file system")
        shutil.rmtree(tmp_path / "tracked-masks")
        (tmp_path / "tracked-masks").symlink_to(elsewhere)
        before = files_below(tmp_path)
        with pytest.raises(InputError, match="tracked-masks: is on another file system than"):
            track(video, "--mask", mask, "--size", "40")
        assert files_below(tmp_path) == before
    finally:
        shutil.rmtree(elsewhere)


def test_a_full_disk_is_an_error_and_leaves_all_files_unchanged(
    track, video, mask, tmp_path, monkeypatch
):
    out = track(video, "--mask", mask)
    before, leave = files_below(tmp_path), DiskBuffer.__exit__

    def full(self, *how):
        leave(self, *how)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(DiskBuffer, "__exit__", full)
    with pytest.raises(InputError, match=rf"out {out}: No space left on device: expected room"):
        track(video, "--mask", f"6={mask}", "--backward")
    assert files_below(tmp_path) == before
