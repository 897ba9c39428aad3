"""Tests packing and evaluation as commands, with valid and invalid input. `test_track.py` tests
tracking."""

import importlib
import shutil
from pathlib import Path

import pytest
import torch
from conftest import SHARED
from PIL import Image

from corrflow import CorrFlow, ModelConfig
from corrflow.benchmarks.results import Result
from corrflow.encoders.resnet import ResNetConfig
from corrflow.training.checkpoint import save_checkpoint
from launch.demo import verdict


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = CorrFlow(ModelConfig(ResNetConfig((4, 4, 8, 8), (1, 1, 1, 1), 8), radius=2))
    return save_checkpoint(
        tmp_path_factory.mktemp("run"), 1, model, torch.optim.Adam(model.parameters())
    )


def test_eval_prints_the_scores_and_writes_its_files(command, tree, checkpoint, tmp_path):
    done = command(
        "eval",
        "--benchmark",
        "davis2017",
        "--root",
        tree,
        "--checkpoint",
        checkpoint,
        "--out",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "J&F" in done.stdout
    assert {
        "masks",
        "overlays",
        "report.html",
        "metrics.json",
        "global_results-val.csv",
        "per-sequence_results-val.csv",
    } <= {path.name for path in tmp_path.iterdir()}


def test_eval_refuses_missing_and_invalid_input(refused, tree, checkpoint, tmp_path):
    assert "expected a DAVIS tree" in refused(
        "eval",
        "--benchmark",
        "davis2016",
        "--root",
        tmp_path,
        "--out",
        tmp_path / "o",
        "--checkpoint",
        "none",
    )
    flags = ("--root", tree, "--out", tmp_path / "o", "--checkpoint", tmp_path / "none.pt")
    assert "no such file" in refused("eval", "--benchmark", "davis2016", *flags)
    (tmp_path / "file").touch()
    assert "file" in refused(
        "eval",
        "--benchmark",
        "davis2016",
        "--root",
        tree,
        "--out",
        tmp_path / "file",
        "--protocol",
        "identity",
    )
    copy = shutil.copytree(tree, tmp_path / "copy")
    Image.new("P", (60, 48)).save(copy / "Annotations/480p/val-001/00003.png")
    flags = ("--root", copy, "--out", tmp_path / "o2", "--protocol", "identity")
    assert "val-001/00003.png is 60x48: expected 64x48" in refused(
        "eval", "--benchmark", "davis2017", *flags
    )
    flags = ("--root", tree, "--out", tmp_path / "o")
    assert "davis2015" in refused("eval", "--benchmark", "davis2015", *flags)


def test_shard_reports_what_it_packed(command, tree, tmp_path):
    done = command(
        "shard",
        "--source",
        tree / "JPEGImages/480p",
        "--out",
        tmp_path / "out",
        "--fps",
        25,
        "--procs",
        2,
    )
    assert done.returncode == 0, done.stderr
    assert "packed 4 of 4 videos: 4 segments, 32 frames" in done.stdout


def test_shard_refuses_missing_and_invalid_input(refused, tmp_path):
    assert "no such file or folder" in refused(
        "shard", "--source", tmp_path / "none", "--out", tmp_path / "o"
    )
    (tmp_path / "empty").mkdir()
    assert "no videos there" in refused(
        "shard", "--source", tmp_path / "empty", "--out", tmp_path / "o"
    )
    assert "size '7'" in refused(
        "shard", "--source", tmp_path, "--out", tmp_path / "o", "--size", 7
    )
    assert "--source" in refused("shard", "--sauce", tmp_path, "--out", tmp_path / "o")


@pytest.mark.parametrize("name", ["train", "shard", "eval", "track", "demo"])
def test_help_explains_the_flags(capsys, name):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"launch.{name}").main(["--help"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert "--out" in output or "--run" in output


@pytest.mark.parametrize(
    ("out", "reason"), [("/proc/nowhere", "No such file"), (f"/tmp/{'x' * 300}", "name too long")]
)
@pytest.mark.parametrize("name", ["export", "shard palette", "eval"])
def test_an_impossible_output_path_is_reported_in_one_line(
    refused, tree, packed, name, out, reason
):
    flags = {
        "export": ("export", "--checkpoint", "fast"),
        "shard palette": ("shard", "palette", "--data", packed, "--clips", 1, "--classes", 2),
        "eval": ("eval", "--benchmark", "davis2017", "--root", tree, "--protocol", "identity"),
    }
    message = refused(*flags[name], "--out", f"{out}/new")
    assert out in message
    assert reason in message


def test_the_demo_refuses_a_folder_with_other_files(refused, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "is not empty and not an earlier demo's" in refused("demo", "--out", tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_the_demo_fails_unless_the_trained_model_beats_both_baselines():
    def result(name, score):
        return Result(name, "davis2017", "paper", Path(), {"J&F-Mean": score}, {}, 1)

    assert (
        verdict([result("identity", 0.3), result("untrained", 0.1), result("trained", 0.45)]) == 0
    )
    assert (
        verdict([result("identity", 0.3), result("untrained", 0.1), result("trained", 0.39)]) == 1
    )
    assert (
        verdict([result("identity", 0.1), result("untrained", 0.4), result("trained", 0.45)]) == 1
    )


@pytest.mark.skipif(
    not (SHARED / "data/train_clips").exists(), reason="the real clips are not here"
)
def test_real_clips_are_packed(command, tmp_path):
    clip = min((SHARED / "data/train_clips").glob("*.mp4"), key=lambda path: path.stat().st_size)
    done = command("shard", "--source", clip, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "packed 1 of 1 videos" in done.stdout
