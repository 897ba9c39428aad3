"""Tests corrections, which repeat the command with other marks: which frames are tracked again, and
which files keep their bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

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

from corrflow import InputError
from corrflow.annotations import WRITERS, AnnotatedVideo, NamedObject, TrackedShape, open_writer
from corrflow.tracking import staging
from corrflow.tracking.recording import MaskRecording
from corrflow.tracking.tables import TrackTable
from launch import track as command

__all__ = ["checkpoint", "mask", "track", "video"]  # fixtures


def state_of(out):
    """The bytes and the modification time of each mask."""
    folder = out.with_name(f"{out.stem}-masks")
    return [(path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]


def unchanged(before, after):
    """The indices of the frames whose mask files were not touched."""
    pairs = zip(before, after, strict=True)
    return [index for index, (one, other) in enumerate(pairs) if one == other]


def test_a_correction_retracks_frames_only_up_to_the_nearest_marks(track, video, tmp_path, capfd):
    first, last = write_mask(tmp_path / "a.png"), write_mask(tmp_path / "b.png", left=29)
    given = ("--mask", f"0={first}", f"5={last}")
    out = track(video, *given)
    before = state_of(out)
    fix = write_mask(tmp_path / "fix.png", left=12)
    capfd.readouterr()
    track(video, *given, f"3={fix}")
    assert "tracked 7 frames, 3 of them unchanged" in capfd.readouterr().out
    assert unchanged(before, state_of(out)) == [0, 5, 6]
    assert np.array_equal(labels_of(out)[3] > 0, np.array(Image.open(fix)) > 0)
    rows = rows_of(out)
    assert len(rows) == 7
    assert [row["frame"] for row in rows if row["confidence"] == "1.0"] == ["0", "3", "5"]


def test_unchanged_marks_write_new_formats_without_tracking(track, video, mask, capfd):
    out = track(video, "--mask", mask)
    before, video_bytes, rows = state_of(out), out.read_bytes(), rows_of(out)
    capfd.readouterr()
    track(video, "--mask", mask, "--write", "labelme")
    assert "tracked 7 frames, 7 of them unchanged" in capfd.readouterr().out
    assert unchanged(before, state_of(out)) == list(range(7))
    assert (out.read_bytes(), rows_of(out)) == (video_bytes, rows)
    assert WRITERS["labelme"].path_of(out).is_dir()


@pytest.mark.parametrize("flags", [("--size", "40"), ("--protocol", "paper"), ("--overwrite",)])
def test_changed_settings_retrack_all_frames(track, video, mask, capfd, flags):
    out = track(video, "--mask", mask)
    before = state_of(out)
    capfd.readouterr()
    track(video, "--mask", mask, *flags)
    assert "tracked 7 frames: " in capfd.readouterr().out
    assert unchanged(before, state_of(out)) == []


def test_a_missing_mask_file_retracks_all_frames(track, video, mask, tmp_path, capfd):
    out = track(video, "--mask", mask)
    (tmp_path / "tracked-masks/00004.png").unlink()
    capfd.readouterr()
    track(video, "--mask", mask)
    assert "tracked 7 frames: " in capfd.readouterr().out
    assert len(labels_of(out)) == 7


def test_results_of_another_video_or_kind_are_kept_without_overwrite(track, mask, tmp_path):
    video = write_video(tmp_path / "one.mkv")
    out = track(video, "--mask", mask)
    with pytest.raises(InputError, match="has objects, not points: expected another name, or"):
        track(video, "--points", "8,12")
    write_video(video, 8)
    with pytest.raises(InputError, match=r"is from another video, one.mkv: expected another name"):
        track(video, "--mask", mask)
    track(video, "--mask", mask, "--overwrite")
    assert len(labels_of(out)) == 8
    track(video, "--points", "8,12", "--overwrite")


def test_files_that_tracking_did_not_write_are_kept_without_overwrite(track, video, mask, tmp_path):
    own = tmp_path / "tracked.csv"
    own.write_text("mine")
    with pytest.raises(InputError, match=r"would overwrite .*tracked.csv, which no tracking has"):
        track(video, "--mask", mask)
    assert own.read_text() == "mine"
    track(video, "--mask", mask, "--overwrite")


def test_annotations_are_updated_unless_they_were_edited_or_deleted(track, video, mask, tmp_path):
    out = track(video, "--mask", mask, "--write", "coco", "labelme")
    written = WRITERS["coco"].path_of(out)
    before = written.read_bytes()
    fix = write_mask(tmp_path / "fix.png", left=12)
    flags = ("--mask", f"0={mask}", f"3={fix}")
    track(video, *flags)
    after = written.read_bytes()
    assert after != before
    track(video, *flags, "--write", "coco")
    assert written.read_bytes() == after
    written.write_bytes(before)
    with pytest.raises(InputError, match=r"would overwrite .*tracked-coco.json, which was edited"):
        track(video, "--mask", mask)
    assert written.read_bytes() == before
    written.unlink()
    track(video, "--mask", mask)
    assert not written.exists()
    assert WRITERS["labelme"].path_of(out).is_dir()


def test_correcting_one_object_leaves_the_other_unchanged(track, video, tmp_path):
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


def export_labels(folder, masks, name="coco", object_name="1"):
    """Export labels of all frames as a tool does: as polygons, which do not fit the masks to the
    pixel."""
    about = AnnotatedVideo("my.mkv", WIDTH, HEIGHT, [NamedObject(object_name)])
    writer = open_writer(name, folder / "corrected.mp4", about, 1.0)
    for index, mask_hw in enumerate(masks):
        shapes = [TrackedShape(1, mask_hw)] if mask_hw.any() else []
        writer.add(index, np.zeros((HEIGHT, WIDTH, 3), np.uint8), shapes)
    writer.finish()
    return WRITERS[name].path_of(folder / "corrected.mp4")


def shape_at(left):
    shape = np.zeros((HEIGHT, WIDTH), bool)
    shape[10:30, left : left + 20] = True
    return shape


def marks_of(out):
    """The indices of the marked frames in the provenance that the table stores."""
    given = json.loads(out.with_suffix(".json").read_text())["provenance"]["given"]
    return sorted(int(index) for index, marks in given.items() if marks)


@pytest.mark.parametrize("name", WRITERS)
def test_only_the_corrected_frame_of_an_export_becomes_a_mark(
    track, video, mask, tmp_path, capfd, name
):
    out = track(video, "--mask", mask)
    before, masks = state_of(out), [labels > 0 for labels in labels_of(out)]
    masks[4] = shape_at(11)
    capfd.readouterr()
    corrected = export_labels(tmp_path, masks, name)
    track(video, "--labels", corrected)
    assert "tracked 7 frames, 1 of them unchanged" in capfd.readouterr().out
    assert unchanged(before, state_of(out)) == [0]
    differing = (labels_of(out)[4] > 0) != masks[4]
    assert differing.sum() <= 20  # of 400
    assert marks_of(out) == [0, 4]
    after, table_bytes = state_of(out), out.with_suffix(".json").read_bytes()
    track(video, "--labels", corrected)
    assert unchanged(after, state_of(out)) == list(range(7))
    assert out.with_suffix(".json").read_bytes() == table_bytes


@pytest.mark.parametrize("flags", [("--size", "40"), ("--backward",), ("--overwrite",)])
def test_unchanged_frames_of_an_export_are_no_marks_in_other_settings(
    track, video, mask, tmp_path, flags
):
    out = track(video, "--mask", mask)
    masks = [labels > 0 for labels in labels_of(out)]
    masks[4] = shape_at(11)
    track(video, "--labels", export_labels(tmp_path, masks), *flags)
    assert marks_of(out) == [0, 4]


def test_the_first_frame_can_be_corrected(track, video, mask, tmp_path):
    out = track(video, "--mask", mask)
    masks = [labels > 0 for labels in labels_of(out)]
    masks[0] = shape_at(9)
    track(video, "--labels", export_labels(tmp_path, masks))
    assert marks_of(out) == [0]
    assert (labels_of(out)[0][12:28, 11:27] == 1).all()


def test_objects_are_identified_by_name_when_their_numbers_change(track, video, tmp_path):
    cat = {"label": "cat", "points": [[5, 10], [25, 10], [25, 30], [5, 30]]}
    dog = {"label": "dog", "points": [[40, 34], [60, 34], [60, 44], [40, 44]]}
    (tmp_path / "labels").mkdir()
    write_labelme(tmp_path / "labels/frame_000000.json", [cat, dog])
    flags = ("--protocol", "identity", "--labels", tmp_path / "labels")
    before = labels_of(out := track(video, *flags))
    write_labelme(tmp_path / "labels/frame_000000.json", [dog, cat])
    track(video, *flags)
    swapped = np.array([0, 2, 1], np.uint8)
    assert all(
        np.array_equal(now, swapped[labels])
        for now, labels in zip(labels_of(out), before, strict=True)
    )
    assert {(row["object"], row["name"]) for row in rows_of(out)} == {("1", "dog"), ("2", "cat")}


def test_unnamed_objects_are_identified_by_the_numbers_exported_as_names(
    track, video, tmp_path, capfd
):
    # object 2 is the first that the labels have
    first = write_mask(tmp_path / "a.png", 2, left=5)
    later = write_mask(tmp_path / "b.png", 1, left=40)
    flags = ("--protocol", "identity", "--write", "coco")
    out = track(video, "--mask", f"0={first}", f"3={later}", *flags)
    shutil.copy(out.with_name("tracked-coco.json"), tmp_path / "back.json")
    capfd.readouterr()
    track(video, "--labels", tmp_path / "back.json", *flags)
    assert "tracked 7 frames, 7 of them unchanged" in capfd.readouterr().out
    assert marks_of(out) == [0, 3]


def test_an_object_whose_marks_are_removed_disappears_completely(track, video, tmp_path):
    """The other objects end up as they were without it, even where it covered them."""
    cat = {"label": "cat", "points": [[5, 10], [25, 10], [25, 30], [5, 30]]}
    dog = {"label": "dog", "points": [[15, 10], [35, 10], [35, 44], [15, 44]]}
    (tmp_path / "labels").mkdir()
    flags = ("--protocol", "identity", "--labels", tmp_path / "labels")
    write_labelme(tmp_path / "labels/frame_000000.json", [dog])
    alone = labels_of(out := track(video, *flags))
    write_labelme(tmp_path / "labels/frame_000003.json", [cat])
    track(video, *flags)
    assert (labels_of(out)[5][12:28, 7:23] == 2).all()
    (tmp_path / "labels/frame_000003.json").unlink()
    track(video, *flags)
    for now, labels in zip(labels_of(out), alone, strict=True):
        assert np.array_equal(now, labels)


def test_removing_a_mark_restores_the_objects_that_it_covered(track, video, tmp_path, capfd):
    both = np.zeros((HEIGHT, WIDTH), np.uint8)
    both[10:30, 5:25], both[10:44, 30:60] = 1, 2
    Image.fromarray(both).save(tmp_path / "both.png")
    over = write_mask(tmp_path / "over.png", left=29)
    first, last = f"0={tmp_path / 'both.png'}", f"6={tmp_path / 'both.png'}"
    out = track(video, "--mask", first, last)
    before = labels_of(out)
    track(video, "--mask", first, f"3={over}", last)
    assert (labels_of(out)[3] == 2).sum() < (before[3] == 2).sum()
    small = write_mask(tmp_path / "small.png", left=5)
    for marks in ((first, f"3={small}", last), (first, last)):
        capfd.readouterr()
        track(video, "--mask", *marks)
        assert "2 of them unchanged" in capfd.readouterr().out
        fresh = track(video, "--mask", *marks, "--overwrite", out="fresh.mp4")
        assert all(map(np.array_equal, labels_of(out), labels_of(fresh)))


def test_exporting_the_earlier_shape_undoes_a_correction(track, video, mask, tmp_path):
    out = track(video, "--mask", mask)
    before = labels_of(out)
    masks = [labels > 0 for labels in before]
    track(video, "--labels", export_labels(tmp_path, masks))
    corrected = [*masks[:4], shape_at(11), *masks[5:]]
    track(video, "--labels", export_labels(tmp_path, corrected))
    assert marks_of(out) == [0, 4]
    again = [labels > 0 for labels in labels_of(out)]
    for _ in range(2):  # the correction's outline is no longer exactly the one that was given
        track(video, "--labels", export_labels(tmp_path, again))
        assert marks_of(out) == [0, 4]
    track(video, "--labels", export_labels(tmp_path, [*again[:4], masks[4], *again[5:]]))
    assert marks_of(out) == [0]
    assert all(map(np.array_equal, labels_of(out), before))


def test_a_mask_can_correct_named_labels(track, video, mask, tmp_path, capfd):
    square = {"label": "cat", "points": [[5, 10], [25, 10], [25, 30], [5, 30]]}
    labels = write_labelme(tmp_path / "frame_000000.json", [square])
    out = track(video, "--labels", labels)
    fix = write_mask(tmp_path / "fix.png", left=12)
    capfd.readouterr()
    track(video, "--mask", f"0={mask}", f"4={fix}")
    assert "1 of them unchanged" in capfd.readouterr().out
    assert marks_of(out) == [0, 4]


def test_a_mask_that_differs_by_one_pixel_is_a_mark(track, video, mask, tmp_path):
    out = track(video, "--protocol", "identity", "--mask", mask)
    fix = write_mask(tmp_path / "fix.png", left=6)
    track(video, "--protocol", "identity", "--mask", f"0={mask}", f"4={fix}")
    assert np.array_equal(labels_of(out)[5] == 1, shape_at(6))


def test_an_edited_mask_is_a_correction_until_it_is_deleted(track, video, mask, tmp_path, capfd):
    out = track(video, "--mask", mask)
    before = labels_of(out)
    edited = write_mask(tmp_path / "tracked-masks/00004.png", value=1, left=13)
    capfd.readouterr()
    for kept in (1, 7):
        track(video, "--mask", mask)
        assert f"{kept} of them unchanged" in capfd.readouterr().out
        assert np.array_equal(labels_of(out)[4] == 1, shape_at(13))
        assert marks_of(out) == [0, 4]
    track(video, "--mask", mask, "--size", "40")
    assert marks_of(out) == [0, 4]
    track(video, "--mask", mask)
    edited.unlink()
    track(video, "--mask", mask)
    assert marks_of(out) == [0]
    for now, labels in zip(labels_of(out), before, strict=True):
        assert np.array_equal(now, labels)


def test_the_mask_of_a_marked_frame_can_be_edited(track, video, mask, tmp_path):
    second = write_mask(tmp_path / "second.png", left=29)
    flags = ("--protocol", "identity", "--mask", f"0={mask}", f"4={second}")
    out = track(video, *flags)
    write_mask(tmp_path / "tracked-masks/00004.png", value=1, left=13)
    for _ in range(2):
        track(video, *flags)
        assert np.array_equal(labels_of(out)[5] == 1, shape_at(13))
    fix = write_mask(tmp_path / "fix.png", left=3)
    track(video, "--protocol", "identity", "--mask", f"0={mask}", f"4={fix}")
    assert np.array_equal(labels_of(out)[5] == 1, shape_at(3))
    track(video, "--protocol", "identity", "--mask", f"0={mask}")
    assert marks_of(out) == [0]


def test_labels_exported_earlier_do_not_undo_an_edited_mask(track, video, mask, tmp_path):
    out = track(video, "--mask", mask)
    exported = export_labels(tmp_path, [labels > 0 for labels in labels_of(out)])
    track(video, "--labels", exported)
    assert marks_of(out) == [0]
    write_mask(tmp_path / "tracked-masks/00004.png", value=1, left=13)
    for _ in range(2):
        track(video, "--labels", exported)
        assert marks_of(out) == [0, 4]
        assert np.array_equal(labels_of(out)[4] == 1, shape_at(13))


@pytest.mark.parametrize("is_known", [False, True])
def test_an_export_from_before_an_edit_adds_no_mark(track, video, mask, tmp_path, capfd, is_known):
    out = track(video, "--mask", mask)
    before = labels_of(out)
    exported = export_labels(tmp_path, [labels > 0 for labels in before])
    if is_known:
        track(video, "--labels", exported)
    painted = write_mask(tmp_path / "tracked-masks/00004.png", value=1, left=13)
    capfd.readouterr()
    track(video, "--labels", exported)
    assert "takes precedence" not in capfd.readouterr().err
    assert marks_of(out) == [0, 4]
    painted.unlink()
    track(video, "--labels", exported)
    assert marks_of(out) == [0]
    assert all(map(np.array_equal, labels_of(out), before))


def test_deleting_an_edited_mask_restores_the_mark_that_it_replaced(track, video, mask, tmp_path):
    second = write_mask(tmp_path / "second.png", left=29)
    flags = ("--mask", f"0={mask}", f"4={second}")
    before = labels_of(out := track(video, *flags))
    painted = write_mask(tmp_path / "tracked-masks/00004.png", value=1, left=13)
    for _ in range(2):
        track(video, *flags)
        assert np.array_equal(labels_of(out)[4] == 1, shape_at(13))
    painted.unlink()
    track(video, *flags)
    assert all(map(np.array_equal, labels_of(out), before))


def test_discarding_the_edit_of_a_removed_object_prints_a_warning(track, video, tmp_path, capfd):
    cat = {"label": "cat", "points": [[5, 10], [25, 10], [25, 30], [5, 30]]}
    dog = {"label": "dog", "points": [[40, 34], [60, 34], [60, 44], [40, 44]]}
    (tmp_path / "labels").mkdir()
    flags = ("--protocol", "identity", "--labels", tmp_path / "labels")
    warned = {}
    for step, objects in enumerate(([cat, dog], [cat, dog], [dog], [cat, dog])):
        write_labelme(tmp_path / "labels/frame_000000.json", objects)
        capfd.readouterr()
        track(video, *flags)
        warned[step] = "is discarded for objects" in capfd.readouterr().err
        if step == 0:
            write_mask(tmp_path / "tracked-masks/00004.png", value=1, left=13)
    assert [step for step in warned if warned[step]] == [2]


def test_renaming_an_object_in_the_tool_does_not_retrack_it(track, video, mask, tmp_path):
    track(video, "--mask", mask)
    out = tmp_path / "tracked.mp4"
    masks = [labels > 0 for labels in labels_of(out)]
    track(video, "--labels", export_labels(tmp_path, masks, object_name="cat"))
    before = state_of(out)
    track(video, "--labels", export_labels(tmp_path, masks, object_name="hare"))
    assert marks_of(out) == [0]
    assert unchanged(before, state_of(out)) == list(range(7))
    assert {row["name"] for row in rows_of(out)} == {"hare"}


def test_saving_a_mask_again_without_edits_adds_no_mark(track, video, mask, tmp_path, capfd):
    out = track(video, "--mask", mask)
    path = tmp_path / "tracked-masks/00004.png"
    before = path.read_bytes()
    with Image.open(path) as image:
        image.save(path, compress_level=0)
    assert path.read_bytes() != before
    capfd.readouterr()
    track(video, "--mask", mask)
    assert "7 of them unchanged" in capfd.readouterr().out
    assert marks_of(out) == [0]


def test_an_object_erased_from_a_mask_is_gone_until_its_next_mark(track, video, mask, tmp_path):
    out = track(video, "--mask", mask)
    before = labels_of(out)
    write_mask(tmp_path / "tracked-masks/00003.png", value=0)
    last = write_mask(tmp_path / "last.png", left=29)
    for flags in ((), (), (f"6={last}",)):
        track(video, "--mask", f"0={mask}", *flags)
        labels = labels_of(out)
        assert [bool(shown.any()) for shown in labels[:6]] == [True] * 3 + [False] * 3
        assert labels[6].any() == bool(flags)
        # the absence is not tracked backwards to the frames before it
        assert all(np.array_equal(labels[index], before[index]) for index in range(3))
    gone = {row["confidence"] for row in rows_of(out) if row["frame"] in ("3", "4", "5")}
    assert gone == {"1.0"}


def test_an_object_cannot_be_erased_in_its_only_marked_frame(track, video, mask, tmp_path):
    out = track(video, "--mask", mask)
    painted = write_mask(tmp_path / "tracked-masks/00000.png", value=0)
    with pytest.raises(InputError, match="object 1: was erased from the mask of the frame in"):
        track(video, "--mask", mask)
    other = write_mask(tmp_path / "other.png", left=29)
    for _ in range(2):
        track(video, "--mask", f"0={mask}", f"5={other}")
        assert [bool(shown.any()) for shown in labels_of(out)] == [False] * 5 + [True] * 2
    with pytest.raises(InputError, match="that mask deleted"):
        track(video, "--mask", mask)
    painted.unlink()
    track(video, "--mask", mask)
    assert all(shown.any() for shown in labels_of(out))


def test_an_erased_mark_stays_erased_when_the_first_mark_is_removed(track, video, mask, tmp_path):
    marks = [f"{index}={write_mask(tmp_path / f'{index}.png', left=5 + index)}" for index in (3, 6)]
    out = track(video, "--mask", f"0={mask}", *marks)
    write_mask(tmp_path / "tracked-masks/00003.png", value=0)
    track(video, "--mask", f"0={mask}", *marks)
    for _ in range(2):
        track(video, "--mask", *marks)
        assert [bool(shown.any()) for shown in labels_of(out)] == [False] * 6 + [True]


def test_an_object_erased_in_its_first_frame_appears_at_its_next_mark(track, video, mask, tmp_path):
    out = track(video, "--mask", mask)
    masks = [labels > 0 for labels in labels_of(out)]
    masks[5] = shape_at(11)
    exported = export_labels(tmp_path, masks)
    track(video, "--labels", exported)
    write_mask(tmp_path / "tracked-masks/00000.png", value=0)
    for _ in range(2):
        track(video, "--labels", exported)
        assert [bool(shown.any()) for shown in labels_of(out)] == [False] * 5 + [True] * 2


def test_an_edit_takes_precedence_over_marks_of_the_same_command(
    track, video, mask, tmp_path, capfd
):
    out = track(video, "--mask", mask)
    write_mask(tmp_path / "tracked-masks/00004.png", value=1, left=13)
    fix = write_mask(tmp_path / "fix.png", left=3)
    for flags in ((f"4={fix}",), ("--gone", "4=1")):
        capfd.readouterr()
        track(video, "--mask", f"0={mask}", *flags)
        message = capfd.readouterr().err
        assert ("frames 4: painting in" in message) == (flags[0] != "--gone")
        for _ in range(2):
            track(video, "--mask", f"0={mask}", *flags)
            is_gone = flags[0] == "--gone"  # --gone is newer than the painted mask, and replaces it
            assert np.array_equal(labels_of(out)[4] == 1, shape_at(13) & (not is_gone))
    again = track(video, "--mask", mask, out="again.mp4")
    write_mask(tmp_path / "again-masks/00004.png", value=1, left=13)
    for _ in range(3):
        track(video, "--mask", mask, "--gone", "4=1", out="again.mp4")
        assert np.array_equal(labels_of(again)[4] == 1, shape_at(13))


def test_a_mask_given_exactly_as_it_was_tracked_is_still_a_mark(track, video, mask, tmp_path):
    """The same command may remove the mark from which that mask was tracked."""
    last = write_mask(tmp_path / "last.png", left=29)
    out = track(video, "--mask", f"0={mask}", f"6={last}")
    shutil.copy(tmp_path / "tracked-masks/00003.png", tmp_path / "copy.png")
    moved = ("--mask", f"3={tmp_path / 'copy.png'}", f"6={last}")
    track(video, *moved)
    assert marks_of(out) == [3, 6]
    fresh = track(video, *moved, out="fresh.mp4")
    assert all(map(np.array_equal, labels_of(out), labels_of(fresh)))


def test_the_next_frame_of_labels_is_a_mark_if_the_first_is_removed(track, video, mask, tmp_path):
    out = track(video, "--mask", mask)
    masks = [labels > 0 for labels in labels_of(out)]
    nothing = np.zeros_like(masks[0])
    masks[5] = shape_at(11)
    track(video, "--labels", export_labels(tmp_path, [nothing, nothing, *masks[2:]]))
    assert marks_of(out) == [2, 5]
    assert [bool(shown.any()) for shown in labels_of(out)] == [False] * 2 + [True] * 5


def test_a_later_mark_of_another_object_covers_an_earlier_edit(track, video, tmp_path):
    both = np.zeros((HEIGHT, WIDTH), np.uint8)
    both[10:30, 5:25], both[35:44, 40:60] = 1, 2
    Image.fromarray(both).save(tmp_path / "both.png")
    flags = ("--protocol", "identity", "--mask", f"0={tmp_path / 'both.png'}")
    out = track(video, *flags)
    painted = both.copy()
    painted[painted == 1] = 0
    painted[10:30, 13:33] = 1
    Image.fromarray(painted).save(tmp_path / "tracked-masks/00004.png")
    track(video, *flags)
    over = write_mask(tmp_path / "over.png", value=2, left=20)
    for _ in range(2):
        track(video, *flags, f"4={over}")
        assert np.array_equal(labels_of(out)[4] == 2, shape_at(20))
        assert np.array_equal(labels_of(out)[4] == 1, shape_at(13) & ~shape_at(20))


def test_labels_that_are_read_in_place_are_not_overwritten(track, video, mask, tmp_path):
    out = track(video, "--mask", mask, "--write", "coco", "cvat")
    labels = WRITERS["coco"].path_of(out)
    content = json.loads(labels.read_text())
    content["annotations"] = content["annotations"][:4]
    labels.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"which was edited since: expected it read by --labels"):
        track(video, "--mask", mask)
    before = labels.read_bytes()
    track(video, "--labels", labels, "--gone", "2=1")
    assert labels.read_bytes() == before
    assert WRITERS["cvat"].path_of(out).exists()
    assert [bool(shown.any()) for shown in labels_of(out)] == [True] * 2 + [False] * 5
    own = tmp_path / "tracked-labelme"
    own.mkdir()
    with pytest.raises(InputError, match=r"would overwrite .*tracked-labelme, which no tracking"):
        track(video, "--labels", labels, "--write", "labelme")


def test_gone_takes_the_number_or_the_name_of_an_object(track, video, tmp_path):
    cat = {"label": "cat", "points": [[5, 10], [25, 10], [25, 30], [5, 30]]}
    dog = {"label": "dog", "points": [[40, 34], [60, 34], [60, 44], [40, 44]]}
    (tmp_path / "labels").mkdir()
    write_labelme(tmp_path / "labels/frame_000000.json", [cat, dog])
    write_labelme(tmp_path / "labels/frame_000005.json", [cat])
    flags = ("--protocol", "identity", "--labels", tmp_path / "labels")
    out = track(video, *flags)
    before = labels_of(out)
    for one in ("2=1", "2=cat"):
        track(video, *flags, "--gone", one)
        for index, (now, labels) in enumerate(zip(labels_of(out), before, strict=True)):
            is_gone = 2 <= index < 5
            assert np.array_equal(now, np.where(labels == 1, 0, labels) if is_gone else labels)
    track(video, *flags)
    assert all(np.array_equal(*pair) for pair in zip(labels_of(out), before, strict=True))
    with pytest.raises(InputError, match=r"gone 2=hare: frame 2, .* of one: 1 \(cat\), 2 \(dog"):
        track(video, *flags, "--gone", "2=hare")
    with pytest.raises(InputError, match="gone 5=1: the object is marked in that frame"):
        track(video, *flags, "--gone", "5=cat")


def test_other_files_in_a_folder_of_frames_do_not_change_the_video(track, tmp_path, capfd):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(5):
        pixels = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        pixels[10:30, 5 + 4 * number : 25 + 4 * number] = (220, 30, 30)
        Image.fromarray(pixels).save(folder / f"frame_{number:05d}.png")
    square = {"points": [[5, 10], [25, 10], [25, 30], [5, 30]]}
    write_labelme(folder / "frame_00000.json", [square])
    track(folder, "--labels", folder / "frame_00000.json")
    (folder / ".DS_Store").touch()
    moved = {"points": [[21, 10], [41, 10], [41, 30], [21, 30]]}
    write_labelme(folder / "frame_00002.json", [moved])
    (tmp_path / "labels").mkdir()
    for number in (0, 2):
        name = f"frame_{number:05d}.json"
        (tmp_path / "labels" / name).write_bytes((folder / name).read_bytes())
    capfd.readouterr()
    track(folder, "--labels", tmp_path / "labels")
    assert "1 of them unchanged" in capfd.readouterr().out


def test_labels_of_all_frames_without_an_earlier_result_are_reported(track, video, tmp_path, capfd):
    labels = export_labels(tmp_path, [shape_at(5 + 4 * t) for t in range(7)])
    track(video, "--labels", labels)
    message = capfd.readouterr().err
    assert "mark 7 of 7 frames of" in message
    assert (
        "all of them are kept as marks: there is no earlier result to compare them with" in message
    )


@pytest.mark.parametrize("mask_size", [(30, 20), None, "unknown"])
def test_an_invalid_edited_mask_is_refused(track, video, mask, tmp_path, mask_size):
    track(video, "--mask", mask)
    path = tmp_path / "tracked-masks/00003.png"
    if mask_size is None:
        path.write_bytes(path.read_bytes()[:40])
        problem = "00003.png"
    elif mask_size == "unknown":
        write_mask(path, value=3)
        problem = "was edited, has object 3: expected some of"
    else:
        write_mask(path, value=1, size=mask_size)
        problem = f"was edited, is 30x20: expected {WIDTH}x{HEIGHT}"
    with pytest.raises(InputError, match=problem):
        track(video, "--mask", mask)
    track(video, "--mask", mask, "--overwrite")


@pytest.mark.parametrize("mode", ["1", "L"])
def test_a_black_and_white_edit_is_refused_if_there_are_several_objects(
    track, video, mask, tmp_path, mode
):
    white = Image.fromarray(255 * shape_at(29).astype(np.uint8)).convert(mode)
    one = track(video, "--mask", mask, out="one.mp4")
    white.save(tmp_path / "one-masks/00003.png")
    track(video, "--mask", mask, out="one.mp4")
    assert np.array_equal(labels_of(one)[3] == 1, shape_at(29))
    both = np.zeros((HEIGHT, WIDTH), np.uint8)
    both[10:30, 5:25], both[35:44, 40:60] = 1, 2
    Image.fromarray(both).save(tmp_path / "both.png")
    track(video, "--mask", tmp_path / "both.png")
    white.save(tmp_path / "tracked-masks/00003.png")
    with pytest.raises(InputError, match=r"00003.png: was edited, is white on black, which does"):
        track(video, "--mask", tmp_path / "both.png")


@pytest.mark.parametrize("what", ["frames", "rows", "given", "masks", "height", "half"])
def test_a_damaged_table_is_refused_without_overwrite(track, video, mask, what):
    out = track(video, "--mask", mask)
    table = out.with_suffix(".json")
    content = json.loads(table.read_text())
    if what == "frames":
        del content["frames"][5:]
    elif what == "rows":
        del content["frames"][2]["objects"][0]["confidence"]
    elif what == "height":
        content["height"] = "high"
    elif what != "half":
        del content["provenance"][what]
    text = json.dumps(content)
    table.write_text(text[: len(text) // 2] if what == "half" else text)
    with pytest.raises(InputError, match=r"tracked.json: does not fit together .* --overwrite"):
        track(video, "--mask", mask)
    track(video, "--mask", mask, "--overwrite")
    track(video, "--mask", mask)


def test_a_run_killed_while_writing_leaves_all_files_unchanged(
    track, video, mask, tmp_path, monkeypatch
):
    track(video, "--mask", mask)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    add = MaskRecording.add

    def killed(self, *frame):
        if self.count == 4:
            raise KeyboardInterrupt
        add(self, *frame)

    monkeypatch.setattr(MaskRecording, "add", killed)
    for flags in ((), ("--overwrite",)):
        fix = write_mask(tmp_path / "fix.png", left=12)
        with pytest.raises(KeyboardInterrupt):
            track(video, "--mask", f"0={mask}", f"3={fix}", *flags)
        fix.unlink()
        found = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert {path: path.read_bytes() for path in found} == before


@pytest.mark.parametrize("place", ["before the table", "behind the table"])
def test_a_run_killed_while_publishing_loses_no_edits(
    track, video, mask, tmp_path, monkeypatch, place
):
    def killed(*_):
        raise KeyboardInterrupt

    out = track(video, "--mask", mask, "--write", "coco", "labelme")
    write_mask(tmp_path / "tracked-masks/00004.png", value=1, left=13)
    with monkeypatch.context() as patched:
        if place == "before the table":
            patched.setattr(TrackTable, "finish", killed)
        else:
            patched.setattr(staging, "move_files", killed)
        with pytest.raises(KeyboardInterrupt):
            track(video, "--mask", mask)
    track(video, "--mask", mask)
    assert marks_of(out) == [0, 4]
    before = state_of(out)
    track(video, "--mask", mask)
    assert unchanged(before, state_of(out)) == list(range(7))
    assert not list(tmp_path.glob(".*"))
    track(video, "--mask", mask, out="other.mp4")
    write_mask(tmp_path / "other-masks/00004.png", value=1, left=13)
    track(video, "--mask", mask, out="other.mp4")
    for one, other in zip(labels_of(out), labels_of(tmp_path / "other.mp4"), strict=True):
        assert np.array_equal(one, other)


def test_an_edit_after_a_kill_is_not_overwritten_by_the_killed_run(
    track, video, mask, tmp_path, monkeypatch
):
    def killed(*_):
        raise KeyboardInterrupt

    out = track(video, "--mask", mask)
    fix = write_mask(tmp_path / "fix.png", left=12)
    with monkeypatch.context() as patched:
        patched.setattr(staging, "move_files", killed)
        with pytest.raises(KeyboardInterrupt):
            track(video, "--mask", f"0={mask}", f"3={fix}")
    write_mask(tmp_path / "tracked-masks/00005.png", value=1, left=13)
    track(video, "--mask", f"0={mask}", f"3={fix}")
    assert marks_of(out) == [0, 3, 5]
    assert np.array_equal(labels_of(out)[5] == 1, shape_at(13))


def test_an_interrupted_shorter_run_keeps_the_earlier_files(
    track, video, mask, tmp_path, monkeypatch, capfd
):
    track(video, "--mask", mask)
    write_mask(tmp_path / "tracked-masks/00004.png", value=1, left=13)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    answers = iter([False, False, True])
    monkeypatch.setattr(command, "interruptible", lambda: nullcontext(lambda: next(answers)))
    flags = ("--video", video, "--out", tmp_path / "tracked.mp4", "--device", "cpu")
    assert command.main([*map(str, flags), "--mask", str(mask), "--size", "40"]) == 130
    assert "all files are as they were" in capfd.readouterr().err
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path: path.read_bytes() for path in found} == before


def test_correcting_one_point_leaves_the_others_unchanged(track, video, tmp_path):
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


def test_the_next_frame_of_points_is_a_mark_if_the_first_is_removed(track, video, tmp_path):
    out = track(video, "--points", "8,12", "--write", "coco")
    exported = WRITERS["coco"].path_of(out)
    content = json.loads(exported.read_text())
    labels = tmp_path / "labels.json"
    content["annotations"][5]["keypoints"][:2] = [40, 20]
    for first in (0, 1):
        labels.write_text(json.dumps({**content, "annotations": content["annotations"][first:]}))
        for _ in range(2):
            track(video, "--labels", labels)
            assert marks_of(out) == [first, 5]


def test_exporting_the_earlier_position_undoes_a_corrected_point(track, video, tmp_path):
    out = track(video, "--points", "8,12", "--write", "coco")
    exported = WRITERS["coco"].path_of(out)
    before, content = rows_of(out), json.loads(exported.read_text())
    xy = content["annotations"][4]["keypoints"][:2]
    labels = tmp_path / "labels.json"
    for position, marked in ((xy, [0]), ([40, 20], [0, 4]), (xy, [0])):
        content["annotations"][4]["keypoints"][:2] = position
        labels.write_text(json.dumps(content))
        track(video, "--labels", labels)
        assert marks_of(out) == marked
    after = [(row["x"], row["y"]) for row in rows_of(out)]
    assert after == [(row["x"], row["y"]) for row in before]


def test_an_interrupted_correction_leaves_all_files_unchanged(checkpoint, tmp_path):
    video = write_video(tmp_path / "long.mkv", 400)
    write_mask(tmp_path / "a.png")
    write_mask(tmp_path / "fix.png", left=9)
    line = [sys.executable, str(ROOT / "launch/track.py"), "--video", str(video)]
    line += ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "tracked.mp4")]
    line += ["--device", "cpu", "--size", "0", "--mask", f"0={tmp_path / 'a.png'}"]
    subprocess.run(line, check=True, capture_output=True)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in files}
    process = subprocess.Popen(
        [*line, f"200={tmp_path / 'fix.png'}"], stderr=subprocess.PIPE, text=True
    )
    output = ""
    until = time.monotonic() + TIMEOUT_SECONDS
    while "backward" not in output and process.poll() is None and time.monotonic() < until:
        output += os.read(process.stderr.fileno(), 4096).decode()
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=TIMEOUT_SECONDS)[1]
    assert process.returncode == 130, output + rest
    assert "interrupted; all files are as they were" in rest
    assert {path: path.read_bytes() for path in before} == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_interrupted_result_is_retracked_completely(track, video, mask, capfd):
    out = track(video, "--mask", mask)
    table = out.with_suffix(".json")
    content = json.loads(table.read_text())
    content["provenance"]["whole"] = False
    table.write_text(json.dumps(content))
    capfd.readouterr()
    track(video, "--mask", mask)
    assert "tracked 7 frames: " in capfd.readouterr().out
