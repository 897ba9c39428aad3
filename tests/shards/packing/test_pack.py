import csv
import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from shards.errors import DataError
from shards.files import sha256_of
from shards.manifest import Counts, read_manifest
from shards.packing import pack as packing
from shards.packing.config import PackConfig
from shards.packing.pack import pack
from shards.process_pool import run_in_processes
from shards.samples import read_samples
from shards.verify import verify
from shards.video.sources import find_videos

SMALL = PackConfig(fps=25, size="32", segment=4)


def write_video(path, count=10, fps=25, size=(64, 48)):
    """Encode a video whose frame t has the grey level 10 t."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for t in range(count):
            pixels = np.full((size[1], size[0], 3), 10 * t % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_folder(folder, numbers=range(1, 11)):
    """Write a folder of frames that are named as in Kinetics."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in numbers:
        Image.new("RGB", (60, 40), (20 * n % 256, 0, 0)).save(folder / f"image_{n:05d}.jpg")
    return folder


@pytest.fixture
def source(tmp_path):
    """Two video files, one with an awkward name, and two folders of frames."""
    root = tmp_path / "source"
    write_video(root / "jump" / "one.mp4")
    write_video(root / "jump" / "zwei Äpfel v1.2.mp4")
    write_folder(root / "run" / "three")
    write_folder(root / "run" / "four", range(5, 12))
    return root


def tar_hashes(folder):
    return {path.name: sha256_of(path) for path in folder.glob("*.tar")}


def test_files_and_folders_become_samples_with_all_their_frames(source, tmp_path):
    manifest = pack(source, tmp_path / "out", SMALL, processes=1)
    assert manifest.counts == Counts(videos=4, failures=0, too_short=0, short_frames=6)
    names = set()
    for shard in manifest.shards:
        path = tmp_path / "out" / shard.name
        assert (path.stat().st_size, sha256_of(path)) == (shard.bytes, shard.sha256)
        with tarfile.open(path) as tar:
            names |= set(tar.getnames())
    assert {
        "jump/one/000000.000.jpg",
        "jump/one/000001.003.jpg",
        "jump/zwei Äpfel v1.2/000000.json",
    } <= names
    assert {"run/three/000000.json", "run/four/000001.002.jpg"} <= names
    # 10, 10, 10 and 7 frames in segments of four; segments of only two frames are left out
    assert sum(shard.frames for shard in manifest.shards) == 8 + 8 + 8 + 7
    assert read_manifest(tmp_path / "out") == manifest


def test_the_json_of_a_sample_describes_its_source(source, tmp_path):
    pack(source, tmp_path / "out", replace(SMALL, spread=1), processes=1)
    sample = next(
        s
        for s in read_samples(tmp_path / "out" / "shard-000000.tar")
        if s["__key__"] == "jump/one/000001"
    )
    note = json.loads(sample["json"])
    assert len(note.pop("jpegs")) == 4
    assert note == {
        "key": "jump/one/000001", "source": "jump/one", "frames": 4,
        "seconds": [0.16, 0.2, 0.24, 0.28], "width": 43, "height": 32,
    }  # fmt: skip


def test_the_bytes_depend_only_on_input_and_settings(source, tmp_path):
    pack(source, tmp_path / "one", SMALL, processes=1)
    pack(source, tmp_path / "two", SMALL, processes=2)
    assert tar_hashes(tmp_path / "one") == tar_hashes(tmp_path / "two") != {}
    assert (tmp_path / "one/manifest.json").read_bytes() == (
        tmp_path / "two/manifest.json"
    ).read_bytes()


def test_interrupted_packing_resumes_where_it_stopped(source, tmp_path, monkeypatch):
    pack(source, tmp_path / "whole", SMALL, processes=1)
    done, original = [], packing.pack_unit

    def fail_at_the_third_unit(job):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job[0].number)
        return original(job)

    monkeypatch.setattr(packing, "pack_unit", fail_at_the_third_unit)
    with pytest.raises(KeyboardInterrupt):
        pack(source, tmp_path / "cut", SMALL, processes=1)
    assert not list((tmp_path / "cut").glob("*.tar"))
    packed_again = []
    monkeypatch.setattr(
        packing, "pack_unit", lambda job: (packed_again.append(job[0].number), original(job))[1]
    )
    pack(source, tmp_path / "cut", SMALL, processes=1)
    assert sorted(done + packed_again) == [0, 1, 2, 3]
    assert tar_hashes(tmp_path / "cut") == tar_hashes(tmp_path / "whole")


def test_resuming_with_other_settings_is_refused(source, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "make_shards", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pack(source, tmp_path / "out", SMALL, processes=1)
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"half packed with quality 90 \(asked: 50\)"):
        pack(source, tmp_path / "out", replace(SMALL, quality=50), processes=1)


def test_units_of_videos_that_changed_are_packed_again(source, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "make_shards", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pack(source, tmp_path / "out", SMALL, processes=1)
    monkeypatch.undo()
    write_video(source / "jump/one.mp4", count=30)
    packed_again, original = [], packing.pack_unit
    monkeypatch.setattr(
        packing, "pack_unit", lambda job: (packed_again.append(job[0].number), original(job))[1]
    )
    pack(source, tmp_path / "out", SMALL, processes=1)
    pack(source, tmp_path / "anew", SMALL, processes=1)
    assert packed_again[0] == 0
    assert len(packed_again) == 1 + 4
    assert tar_hashes(tmp_path / "out") == tar_hashes(tmp_path / "anew")


def test_a_small_data_set_is_still_divided_into_several_shards(source, tmp_path):
    assert len(pack(source, tmp_path / "a", replace(SMALL, spread=5), processes=1).shards) == 5
    one = tmp_path / "single"
    write_video(one / "long.mp4", count=40)
    manifest = pack(one, tmp_path / "b", SMALL, processes=1)
    assert [shard.samples for shard in manifest.shards] == [1] * 10


def test_a_large_data_set_is_divided_by_the_size_of_shards(source, tmp_path):
    config = replace(SMALL, shard_mb=0.02, spread=1)
    assert len(pack(source, tmp_path / "out", config, processes=1).shards) > 2


def test_broken_videos_are_named_and_the_others_are_packed(source, tmp_path):
    (source / "text.mp4").write_text("this is no video")
    (source / "empty.mp4").touch()
    whole = (source / "jump/one.mp4").read_bytes()
    (source / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    write_folder(source / "gap", [1, 2, 3, 5, 6, 7])
    manifest = pack(source, tmp_path / "out", SMALL, processes=2)
    with (tmp_path / "out/failures.csv").open() as file:
        failed = {
            row["video"]: (row["reason"], int(row["good_frames"])) for row in csv.DictReader(file)
        }
    assert failed.keys() == {"text", "empty", "truncated", "gap"}
    assert failed["gap"] == ("frame 4 is missing before image_00005.jpg", 6)
    assert all(reason for reason, _ in failed.values())
    assert sum(shard.frames for shard in manifest.shards) == 31
    assert manifest.counts.failures == 4


def test_the_name_of_a_broken_frame_is_escaped_if_it_is_not_utf8(source, tmp_path):
    frames = source / "odd"
    frames.mkdir()
    for number in (1, 2):
        Path(frames, os.fsdecode(b"\xff%d.jpg" % number)).write_bytes(b"no picture")
    pack(source, tmp_path / "out", SMALL, processes=1)
    failures = (tmp_path / "out/failures.csv").read_text(encoding="utf-8")
    assert "odd,\\udcff1.jpg: cannot identify image file,0" in failures


def test_samples_of_a_video_that_turns_out_broken_are_removed(source, tmp_path):
    """By then its samples fill several tar files. The samples before and after it must be the same
    as without it."""
    config = replace(SMALL, shard_mb=0.01)
    pack(source, tmp_path / "without", config, processes=1)
    whole = write_video(source / "k.mp4", count=80).read_bytes()
    (source / "k.mp4").write_bytes(whole[: len(whole) * 9 // 10])
    assert [video.key for video in find_videos(source)].index("k") == 2
    pack(source, tmp_path / "with", config, processes=1)
    assert pack(source, tmp_path / "with", config, processes=1).counts.failures == 1
    assert tar_hashes(tmp_path / "with") == tar_hashes(tmp_path / "without")


def test_too_many_broken_videos_stop_packing_and_are_tried_again(source, tmp_path):
    good = (source / "jump/one.mp4").read_bytes()
    (source / "jump/one.mp4").write_text("not downloaded")
    with pytest.raises(
        DataError, match=r"1 of 4 videos are broken, more than the 0 .*jump/one: Invalid data"
    ):
        pack(source, tmp_path / "out", SMALL, processes=1, max_failures=20)
    assert "jump/one" in (tmp_path / "out/failures.csv").read_text()
    (source / "jump/one.mp4").write_bytes(good)
    assert pack(source, tmp_path / "out", SMALL, processes=1, max_failures=20).counts.failures == 0


def test_by_default_a_tenth_of_the_videos_may_be_broken():
    assert [packing.allowed(None, videos) for videos in (5, 240_000)] == [10, 24_000]
    assert [packing.allowed(percent, 200) for percent in (0.0, 5.0)] == [0, 10]


def test_a_process_that_dies_is_reported_and_not_waited_for():
    with pytest.raises(DataError, match="one of 2 processes died"):
        list(run_in_processes(os._exit, [1, 1], processes=2))


def test_links_that_form_a_cycle_are_followed_once(source):
    (source / "jump" / "back").symlink_to(source)
    assert len(find_videos(source)) == 4


def test_videos_that_are_too_short_are_counted_and_named(source, tmp_path):
    write_folder(source / "short", [1, 2])
    assert pack(source, tmp_path / "out", SMALL, processes=1).counts.too_short == 1
    assert (tmp_path / "out" / "too-short.csv").read_text().split() == ["video,frames", "short,2"]


def write_sizes(folder, *sizes):
    """Write numbered frames of the given sizes."""
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (10 * number, 0, 0)).save(folder / f"{number:05d}.jpg")
    return folder


def test_a_sample_ends_where_the_size_of_the_frames_changes(tmp_path):
    wide, high = (48, 32), (32, 48)
    write_sizes(tmp_path / "source" / "turned", *[wide] * 5, *[high] * 2, *[wide] * 4, *[high] * 3)
    manifest = pack(
        tmp_path / "source", tmp_path / "out", replace(SMALL, segment=4, shortest=3), processes=1
    )
    samples = [
        sample for path in sorted((tmp_path / "out").glob("*.tar")) for sample in read_samples(path)
    ]
    notes = [json.loads(sample["json"]) for sample in samples]
    assert [(note["width"], note["height"], note["frames"]) for note in notes] == [
        (*wide, 4),
        (*wide, 4),
        (*high, 3),
    ]
    assert [sample["__key__"] for sample in samples] == [
        f"turned/{number:06d}" for number in range(3)
    ]
    assert [note["seconds"][0] for note in notes] == [0, 7 / 25, 11 / 25]
    assert manifest.counts == Counts(videos=1, failures=0, too_short=0, short_frames=1 + 2)
    assert not [line for _, damages in verify(tmp_path / "out", 1) for line in damages]


def test_the_manifest_counts_the_segments_of_each_short_side(tmp_path):
    source = tmp_path / "source"
    write_sizes(source / "large", *[(60, 40)] * 9)
    write_sizes(source / "small", *[(60, 24)] * 4, *[(20, 60)] * 8)
    manifest = pack(source, tmp_path / "out", SMALL, processes=1)
    # two segments of four frames have the requested 32; the ninth frame is left out
    assert manifest.short_sides == {20: 2, 24: 1, 32: 2}
    assert read_manifest(tmp_path / "out") == manifest


def test_frames_of_a_broken_video_are_not_counted(source, tmp_path):
    whole = write_video(source / "k.mp4", count=80, size=(64, 24)).read_bytes()
    (source / "k.mp4").write_bytes(whole[: len(whole) * 9 // 10])
    manifest = pack(source, tmp_path / "out", SMALL, processes=1)
    assert manifest.counts.failures == 1
    assert manifest.short_sides == {32: manifest.samples}


def test_squashed_frames_have_one_size_whatever_their_original_size(tmp_path):
    write_sizes(tmp_path / "source" / "turned", (60, 40), (60, 40), (40, 60))
    manifest = pack(
        tmp_path / "source", tmp_path / "out", replace(SMALL, size="32x32"), processes=1
    )
    assert (manifest.samples, manifest.shards[0].frames) == (1, 3)


def test_the_plan_counts_files_that_are_not_videos(source, tmp_path):
    (source / "notes.txt").write_text("a line")
    plan = packing.prepare(packing.read_source(source, SMALL), tmp_path / "out")
    assert plan.skipped == packing.read_plan(tmp_path / "out").skipped
    assert plan.skipped[".txt"] == 1


def test_a_source_without_usable_videos_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        pack(tmp_path / "nowhere", tmp_path / "out", SMALL, processes=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no videos there"):
        pack(tmp_path / "empty", tmp_path / "out", SMALL, processes=1)
    write_folder(tmp_path / "gaps" / "gap", [1, 2, 4])
    with pytest.raises(
        DataError, match=r"none of 1 videos gave a sample: 1 broken.*frame 3 is missing"
    ):
        pack(tmp_path / "gaps", tmp_path / "out", SMALL, processes=1)


def test_a_packed_folder_is_not_overwritten(source, tmp_path):
    manifest = pack(source, tmp_path / "out", SMALL, processes=1)
    assert packing.prepare(packing.read_source(source, SMALL), tmp_path / "out") is None
    assert pack(source, tmp_path / "out", SMALL, processes=1) == manifest
    with pytest.raises(DataError, match=r"holds shards of quality 90 \(asked: 50\)"):
        pack(source, tmp_path / "out", replace(SMALL, quality=50), processes=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.tar").touch()
    with pytest.raises(DataError, match="holds tar files of something else"):
        pack(source, tmp_path / "other", SMALL, processes=1)


def test_adding_or_removing_a_frame_makes_another_source(source, tmp_path):
    pack(source, tmp_path / "out", SMALL, processes=1)
    last = source / "run/three/image_00010.jpg"
    content = last.read_bytes()
    last.unlink()
    with pytest.raises(DataError, match=r"holds shards of source_digest \w+ \(asked: \w+\)"):
        pack(source, tmp_path / "out", SMALL, processes=1)
    last.write_bytes(content)
    assert packing.prepare(packing.read_source(source, SMALL), tmp_path / "out") is None
    write_folder(source / "run/three", [11])
    with pytest.raises(DataError, match="holds shards of source_digest"):
        pack(source, tmp_path / "out", SMALL, processes=1)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"parts": 3}', "\udcff"])
def test_a_unit_with_a_damaged_report_is_packed_again(source, tmp_path, monkeypatch, content):
    monkeypatch.setattr(packing, "make_shards", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pack(source, tmp_path / "out", SMALL, processes=1)
    monkeypatch.undo()
    report = tmp_path / "out" / packing.PARTS / "00001.json"
    report.write_text(content, errors="surrogateescape")
    packed_again, original = [], packing.pack_unit
    monkeypatch.setattr(
        packing, "pack_unit", lambda job: (packed_again.append(job[0].number), original(job))[1]
    )
    pack(source, tmp_path / "out", SMALL, processes=1)
    assert packed_again == [1]
    pack(source, tmp_path / "anew", SMALL, processes=1)
    assert tar_hashes(tmp_path / "out") == tar_hashes(tmp_path / "anew")


@pytest.mark.parametrize("content", ["", "[]", '{"settings": {}}', "\udcff"])
def test_a_damaged_plan_is_reported_with_its_path(source, tmp_path, content):
    packing.prepare(packing.read_source(source, SMALL), tmp_path / "out")
    plan = tmp_path / "out" / packing.PARTS / packing.PLAN
    plan.write_text(content, errors="surrogateescape")
    words = rf"{plan}: damaged \(.+\): remove {plan.parent} to pack again"
    with pytest.raises(DataError, match=words):
        pack(source, tmp_path / "out", SMALL, processes=1)
    with pytest.raises(DataError, match=words):
        packing.read_plan(tmp_path / "out")
    shutil.rmtree(plan.parent)
    assert pack(source, tmp_path / "out", SMALL, processes=1).counts.videos == 4


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (os.remove, r"is gone: remove"),
        (lambda path: os.truncate(path, 99), r"99 bytes, \d+ were packed: remove"),
    ],
)
@pytest.mark.parametrize("spread", [1, 4])  # parts are divided again, or only renamed
def test_a_lost_or_truncated_part_is_reported(source, tmp_path, monkeypatch, damage, words, spread):
    config = replace(SMALL, spread=spread)
    monkeypatch.setattr(packing, "make_shards", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pack(source, tmp_path / "out", config, processes=1)
    monkeypatch.undo()
    damage(sorted((tmp_path / "out" / packing.PARTS).glob("*.tar"))[1])
    words += f" {tmp_path / 'out'} to pack again"
    with pytest.raises(DataError, match=r"00001-000000\.tar: " + words):
        pack(source, tmp_path / "out", config, processes=1)
    shutil.rmtree(tmp_path / "out")  # the first shard may exist already
    assert pack(source, tmp_path / "out", config, processes=1).counts.videos == 4


def test_files_that_differ_only_in_suffix_get_different_keys(source):
    shutil.copy(source / "jump/one.mp4", source / "jump/one.mov")
    keys = [video.key for video in find_videos(source)]
    assert len(set(keys)) == len(keys) == 5


@pytest.mark.parametrize("size", ["", "x", "256x", "a", "0", "256x256x3"])
def test_an_invalid_size_is_refused(size):
    with pytest.raises(DataError, match="size"):
        PackConfig(size=size)
