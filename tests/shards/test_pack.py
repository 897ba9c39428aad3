import csv
import json
import os
import shutil
import tarfile
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from shards import pack as packing
from shards.crew import run_crew
from shards.errors import InputError
from shards.files import sha256_of
from shards.manifest import read_manifest
from shards.pack import PackConfig, pack
from shards.samples import read_samples
from shards.sources import Ticker, Video, decode, find_videos

SMALL = PackConfig(fps=25, size="32", segment=4)


def write_video(path, count=10, fps=25, size=(64, 48)):
    """A real file whose frame t is grey level 10 t."""
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
    """A frame folder in Kinetics' manner."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in numbers:
        Image.new("RGB", (60, 40), (20 * n % 256, 0, 0)).save(folder / f"image_{n:05d}.jpg")
    return folder


@pytest.fixture
def source(tmp_path):
    """Two files, one with an awkward name, and two frame folders."""
    root = tmp_path / "source"
    write_video(root / "jump" / "one.mp4")
    write_video(root / "jump" / "zwei Äpfel v1.2.mp4")
    write_folder(root / "run" / "three")
    write_folder(root / "run" / "four", range(5, 12))
    return root


def tars(folder):
    return {path.name: sha256_of(path) for path in folder.glob("*.tar")}


def test_files_and_folders_become_samples_with_all_their_frames(source, tmp_path):
    summary = pack(source, tmp_path / "out", SMALL, processes=1)
    assert summary.failures == ()
    names = set()
    for shard in summary.manifest.shards:
        path = tmp_path / "out" / shard.name
        assert (path.stat().st_size, sha256_of(path)) == (shard.bytes, shard.sha256)
        with tarfile.open(path) as tar:
            names |= set(tar.getnames())
    assert {"jump/one/000000.000.jpg", "jump/one/000001.003.jpg", "jump/zwei Äpfel v1.2/000000.json"} <= names
    assert {"run/three/000000.json", "run/four/000001.002.jpg"} <= names
    # 10, 10, 10 and 7 frames in segments of four, of which those of two frames are left out
    assert sum(shard.frames for shard in summary.manifest.shards) == 8 + 8 + 8 + 7
    assert read_manifest(tmp_path / "out") == summary.manifest


def test_a_sample_says_where_it_is_from(source, tmp_path):
    pack(source, tmp_path / "out", replace(SMALL, spread=1), processes=1)
    sample = next(s for s in read_samples(tmp_path / "out" / "shard-000000.tar") if s["__key__"] == "jump/one/000001")
    assert json.loads(sample["json"]) == {
        "source": "jump/one", "frames": 4, "seconds": [0.16, 0.2, 0.24, 0.28], "width": 43, "height": 32,
    }  # fmt: skip


def test_the_bytes_depend_on_nothing_but_input_and_settings(source, tmp_path):
    pack(source, tmp_path / "one", SMALL, processes=1)
    pack(source, tmp_path / "two", SMALL, processes=2)
    assert tars(tmp_path / "one") == tars(tmp_path / "two") != {}
    assert (tmp_path / "one/manifest.json").read_bytes() == (tmp_path / "two/manifest.json").read_bytes()


def test_packing_cut_short_goes_on_where_it_was(source, tmp_path, monkeypatch):
    pack(source, tmp_path / "whole", SMALL, processes=1)
    done, original = [], packing.pack_unit

    def dies_in_the_third(job):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job[1])
        return original(job)

    monkeypatch.setattr(packing, "pack_unit", dies_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        pack(source, tmp_path / "cut", SMALL, processes=1)
    assert not list((tmp_path / "cut").glob("*.tar"))
    again = []
    monkeypatch.setattr(packing, "pack_unit", lambda job: (again.append(job[1]), original(job))[1])
    pack(source, tmp_path / "cut", SMALL, processes=1)
    assert sorted(done + again) == [0, 1, 2, 3]
    assert tars(tmp_path / "cut") == tars(tmp_path / "whole")


def test_half_packed_with_other_settings_is_refused(source, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "assemble", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pack(source, tmp_path / "out", SMALL, processes=1)
    monkeypatch.undo()
    with pytest.raises(InputError, match="quality: 90 there, 50 now"):
        pack(source, tmp_path / "out", replace(SMALL, quality=50), processes=1)
    (source / "jump/one.mp4").rename(source / "jump/other.mp4")
    with pytest.raises(InputError, match="source_digest"):
        pack(source, tmp_path / "out", SMALL, processes=1)


def test_a_small_set_still_makes_shards_to_divide(source, tmp_path):
    assert len(pack(source, tmp_path / "a", replace(SMALL, spread=5), processes=1).manifest.shards) == 5
    one = tmp_path / "single"
    write_video(one / "long.mp4", count=40)
    summary = pack(one, tmp_path / "b", SMALL, processes=1)
    assert [shard.samples for shard in summary.manifest.shards] == [1] * 10


def test_large_sets_are_cut_by_bytes(source, tmp_path):
    config = replace(SMALL, shard_mb=0.02, spread=1)
    summary = pack(source, tmp_path / "out", config, processes=1)
    assert len(summary.manifest.shards) > 2


def test_a_broken_video_is_named_and_the_rest_is_packed(source, tmp_path):
    (source / "text.mp4").write_text("this is no video")
    (source / "empty.mp4").touch()
    whole = (source / "jump/one.mp4").read_bytes()
    (source / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    write_folder(source / "gap", [1, 2, 3, 5, 6, 7])
    summary = pack(source, tmp_path / "out", SMALL, processes=2)
    with (tmp_path / "out/failures.csv").open() as file:
        failed = {row["video"]: row["reason"] for row in csv.DictReader(file)}
    assert failed.keys() == {"text", "empty", "truncated", "gap"}
    assert failed["gap"] == "frame 4 is missing after image_00003.jpg"
    assert all(failed.values())
    assert sum(shard.frames for shard in summary.manifest.shards) == 31


def test_a_process_that_dies_is_told_and_not_waited_for():
    with pytest.raises(InputError, match="one of 2 processes died"):
        list(run_crew(os._exit, [1, 1], processes=2))


def test_links_that_go_in_circles_are_followed_once(source):
    (source / "jump" / "back").symlink_to(source)
    assert len(find_videos(source)) == 4


def test_what_is_too_short_is_counted(source, tmp_path):
    write_folder(source / "short", [1, 2])
    assert pack(source, tmp_path / "out", SMALL, processes=1).too_short == 1


def test_nothing_to_pack_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        pack(tmp_path / "nowhere", tmp_path / "out", SMALL, processes=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no videos there"):
        pack(tmp_path / "empty", tmp_path / "out", SMALL, processes=1)
    write_folder(tmp_path / "gaps" / "gap", [1, 2, 4])
    with pytest.raises(InputError, match=r"none of 1 videos gave a sample: 1 broken.*frame 3 is missing"):
        pack(tmp_path / "gaps", tmp_path / "out", SMALL, processes=1)


def test_a_packed_folder_is_not_packed_over(source, tmp_path):
    pack(source, tmp_path / "out", SMALL, processes=1)
    with pytest.raises(InputError, match=r"holds a manifest\.json already"):
        pack(source, tmp_path / "out", SMALL, processes=1)


def test_frames_are_chosen_by_their_time(source):
    def kept(fps, rate):
        ticker = Ticker(fps)
        return [n for n in range(20) if ticker.takes(n / rate)]

    assert kept(6.25, 25) == [0, 4, 8, 12, 16]
    assert kept(10, 25) == [0, 3, 5, 8, 10, 13, 15, 18]
    assert kept(50, 25) == list(range(20))
    grey = [np.asarray(f.image).mean() for f in decode(Video("one", source / "jump/one.mp4"), fps=6.25, short_side=48)]
    np.testing.assert_allclose(grey, [0, 40, 80], atol=3)


def test_frames_are_shrunk_never_enlarged_or_squashed_as_asked(source):
    video = find_videos(source)[0]
    assert next(decode(video, 25, 24)).image.size == (32, 24)
    assert next(decode(video, 25, 500)).image.size == (64, 48)
    assert next(decode(video, 25, 0, (20, 30))).image.size == (20, 30)


def test_metadata_that_is_not_utf8_is_no_reason_to_fail(source):
    video = source / "jump" / "one.mp4"
    content = video.read_bytes()
    assert b"Lavf" in content
    (source / "latin.mp4").write_bytes(content.replace(b"Lavf", b"L\xce\xff\xfe"))
    assert len(list(decode(Video("latin", source / "latin.mp4"), 25, 32))) == 10


def test_two_files_of_one_name_keep_two_keys(source):
    shutil.copy(source / "jump/one.mp4", source / "jump/one.mov")
    keys = [video.key for video in find_videos(source)]
    assert len(set(keys)) == len(keys) == 5


@pytest.mark.parametrize("size", ["", "x", "256x", "a", "0", "256x256x3"])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(InputError, match="size"):
        PackConfig(size=size)
