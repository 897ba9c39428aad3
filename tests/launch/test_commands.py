"""The commands as a user types them: pack, evaluate, track; real input, and wrong input."""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import SHARED
from PIL import Image

from corrflow import CorrFlow, ModelConfig
from corrflow.benchmarks.results import Result
from corrflow.encoder import EncoderConfig
from corrflow.training.checkpoint import save_checkpoint
from launch.demo import verdict


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = CorrFlow(ModelConfig(EncoderConfig((4, 4, 8, 8), (1, 1, 1, 1), 8), radius=2))
    return save_checkpoint(tmp_path_factory.mktemp("run"), 1, model, torch.optim.Adam(model.parameters()))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Seven frames of 65x47, an odd size, at 10 a second."""
    path = tmp_path_factory.mktemp("video") / "my.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 65, 47, "bgr0"
        for t in range(7):
            pixels = np.full((47, 65, 3), 40, np.uint8)
            pixels[10:30, 5 + 4 * t : 25 + 4 * t] = (220, 30, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def mask(tmp_path):
    labels = np.zeros((47, 65), np.uint8)
    labels[10:30, 5:25] = 255
    Image.fromarray(labels).save(tmp_path / "first.png")
    return tmp_path / "first.png"


def test_track_writes_a_playable_video_and_a_mask_for_each_frame(command, video, mask, checkpoint, tmp_path):
    done = command("track", "--video", video, "--mask", mask, "--checkpoint", checkpoint, "--out", tmp_path / "tracked.mp4")
    assert done.returncode == 0, done.stderr
    with av.open(str(tmp_path / "tracked.mp4")) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert (stream.codec_context.name, float(stream.average_rate), len(frames)) == ("h264", 10.0, 7)
    assert frames[0].shape == (48, 66, 3)
    inside, outside = frames[0][20, 15].astype(int), frames[0][40, 60].astype(int)
    assert np.abs(inside - (174, 15, 15)).max() < 30  # half the object's red, half the palette's
    assert np.abs(outside - 40).max() < 12
    masks = sorted((tmp_path / "tracked-masks").iterdir())
    assert [np.asarray(Image.open(path)).shape for path in masks] == [(47, 65)] * 7
    assert np.array_equal(np.asarray(Image.open(masks[0])), np.asarray(Image.open(mask)) // 255)


def test_track_takes_a_folder_of_frames(command, tree, checkpoint, tmp_path):
    frames, mask = tree / "JPEGImages/480p/val-000", tree / "Annotations/480p/val-000/00000.png"
    out = tmp_path / "deep" / "tracked.mp4"
    assert command("track", "--video", frames, "--mask", mask, "--checkpoint", checkpoint, "--out", out).returncode == 0
    assert len(list((tmp_path / "deep/tracked-masks").iterdir())) == 8
    assert out.exists()


def test_track_refuses_what_does_not_fit(refused, video, mask, checkpoint, tree, tmp_path):
    def line(**change):
        flags = {"video": video, "mask": mask, "checkpoint": checkpoint, "out": tmp_path / "o.mp4", **change}
        return refused("track", *(part for name, value in flags.items() for part in (f"--{name}", value)))

    other = tree / "Annotations/480p/val-000/00000.png"
    assert "is 64x48, the video 65x47: expected one size" in line(mask=other)
    assert "no such file" in line(video=tmp_path / "none.mp4")
    assert "no such file" in line(mask=tmp_path / "none.png")
    assert "no such file" in line(checkpoint=tmp_path / "none.pt")
    assert "not a readable image" in line(mask=video)
    assert "expected a name that ends in .mp4" in line(out=tmp_path / "o.txt")
    assert "size 0" in line(size=0)
    (tmp_path / "cut.pt").write_bytes(checkpoint.read_bytes()[:3000])
    assert "truncated" in line(checkpoint=tmp_path / "cut.pt")
    torch.save({"model": {"other": torch.zeros(1)}}, tmp_path / "other.pt")
    assert "another architecture" in line(checkpoint=tmp_path / "other.pt")
    (tmp_path / "text.mp4").write_text("no video")
    assert "text.mp4: " in line(video=tmp_path / "text.mp4")
    gap = tmp_path / "gap"
    gap.mkdir()
    for n in (0, 1, 3):
        Image.new("RGB", (65, 47)).save(gap / f"{n:05d}.jpg")
    assert "frame 2 is missing before 00003.jpg" in line(video=gap)
    Image.new("L", (65, 47)).save(tmp_path / "blank.png")
    assert "is empty" in line(mask=tmp_path / "blank.png")
    assert not (tmp_path / "o.mp4").exists()


def test_track_never_overwrites_the_video(refused, tree, mask, checkpoint, tmp_path):
    frames = shutil.copytree(tree / "JPEGImages/480p/val-000", tmp_path / "walk-masks")
    flags = ("--mask", mask, "--checkpoint", checkpoint)
    assert "would overwrite the video" in refused("track", "--video", frames, "--out", tmp_path / "walk.mp4", *flags)
    (tmp_path / "my.mp4").write_bytes(b"precious")
    assert "would overwrite the video" in refused("track", "--video", tmp_path / "my.mp4", "--out", tmp_path / "my.mp4", *flags)


def test_eval_prints_the_figures_and_names_its_page(command, tree, checkpoint, tmp_path):
    done = command("eval", "--benchmark", "davis2017", "--root", tree, "--checkpoint", checkpoint, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "J&F" in done.stdout
    assert {"masks", "overlays", "report.html", "metrics.json", "global_results-val.csv", "per-sequence_results-val.csv"} <= {
        path.name for path in tmp_path.iterdir()
    }


def test_eval_refuses_what_is_not_there(refused, tree, checkpoint, tmp_path):
    assert "expected a DAVIS tree" in refused("eval", "--benchmark", "davis2016", "--root", tmp_path, "--out", tmp_path / "o")
    flags = ("--root", tree, "--out", tmp_path / "o", "--checkpoint", tmp_path / "none.pt")
    assert "no such file" in refused("eval", "--benchmark", "davis2016", *flags)
    (tmp_path / "file").touch()
    assert "file" in refused("eval", "--benchmark", "davis2016", "--root", tree, "--out", tmp_path / "file", "--protocol", "identity")
    copy = shutil.copytree(tree, tmp_path / "copy")
    Image.new("P", (60, 48)).save(copy / "Annotations/480p/val-001/00003.png")
    flags = ("--root", copy, "--out", tmp_path / "o2", "--protocol", "identity")
    assert "val-001/00003.png is 60x48: expected 64x48" in refused("eval", "--benchmark", "davis2017", *flags)
    flags = ("--root", tree, "--out", tmp_path / "o")
    assert "davis2015" in refused("eval", "--benchmark", "davis2015", *flags)


def test_shard_says_what_it_packed(command, tree, tmp_path):
    done = command("shard", "--source", tree / "JPEGImages/480p", "--out", tmp_path / "out", "--fps", 25, "--procs", 2)
    assert done.returncode == 0, done.stderr
    assert "packed 4 of 4 videos: 4 segments, 32 frames" in done.stdout


def test_shard_refuses_what_is_not_there(refused, tmp_path):
    assert "no such file or folder" in refused("shard", "--source", tmp_path / "none", "--out", tmp_path / "o")
    (tmp_path / "empty").mkdir()
    assert "no videos there" in refused("shard", "--source", tmp_path / "empty", "--out", tmp_path / "o")
    assert "size '7'" in refused("shard", "--source", tmp_path, "--out", tmp_path / "o", "--size", 7)
    assert "--source" in refused("shard", "--sauce", tmp_path, "--out", tmp_path / "o")


@pytest.mark.parametrize("name", ["train", "shard", "eval", "track", "demo"])
def test_help_explains_the_flags(command, name):
    done = command(name, "--help")
    assert done.returncode == 0
    assert "--out" in done.stdout or "--run" in done.stdout


def test_the_demo_leaves_other_peoples_folders_alone(refused, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "is not empty and not an earlier demo's" in refused("demo", "--out", tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_the_demo_fails_unless_trained_beats_both():
    def result(name, figure):
        return Result(name, "davis2017", "paper", Path(), {"J&F-Mean": figure}, {}, 1)

    assert verdict([result("identity", 0.3), result("untrained", 0.1), result("trained", 0.45)]) == 0
    assert verdict([result("identity", 0.3), result("untrained", 0.1), result("trained", 0.39)]) == 1
    assert verdict([result("identity", 0.1), result("untrained", 0.4), result("trained", 0.45)]) == 1


@pytest.mark.skipif(not (SHARED / "data/train_clips").exists(), reason="the real clips are not here")
def test_real_clips_are_packed(command, tmp_path):
    clip = min((SHARED / "data/train_clips").glob("*.mp4"), key=lambda path: path.stat().st_size)
    done = command("shard", "--source", clip, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "packed 1 of 1 videos" in done.stdout
