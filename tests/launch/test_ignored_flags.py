"""Tests that flags which others would make useless are refused, and that defaults never are."""

import pytest

from launch import train
from launch.common.command import parse
from launch.configs.evaluate import EvalJob, TrackJob
from launch.configs.recipes import RECIPES
from launch.configs.train import PackJob

REQUIRED = {
    "eval": ("--root", "davis", "--out", "out"),
    "track": (),
    "train": ("--data", "shards", "--run", "run"),
    "shard": ("--source", "videos", "--out", "out"),
}
MASKS = ("--benchmark", "davis2017")
POINTS = ("--benchmark", "jhmdb")
IDENTITY = (*MASKS, "--protocol", "identity")


@pytest.fixture(autouse=True)
def no_profile(monkeypatch):
    monkeypatch.setenv("CORRFLOW_CLUSTER", "")


@pytest.mark.parametrize(
    ("command", "flags", "words"),
    [
        ("eval", (*IDENTITY, "--checkpoint", "base"), "checkpoint base: protocol identity ignores"),
        ("eval", (*IDENTITY, "--encoder", "resnet18"), "encoder resnet18: protocol identity"),
        ("eval", (*IDENTITY, "--adapt", 3), "eval: adapt 3: protocol identity ignores it"),
        ("eval", (*IDENTITY, "--input-scale", 2), "input-scale 2.0: protocol identity"),
        ("eval", (*IDENTITY, "--seed", 1), "seed 1: protocol identity"),
        ("eval", (*IDENTITY, "--radius", 8), "radius 8: protocol identity"),
        ("eval", (*IDENTITY, "--guided-filter", 0), "guided-filter 0: protocol identity"),
        ("eval", (*MASKS, "--seed", 1), "seed 1: checkpoint base ignores it"),
        ("eval", (*MASKS, "--block", 2), "block 2: expected a top-k above 0 with it"),
        (
            "eval",
            (*MASKS, "--protocol", "memory", "--top-k", 0, "--block", 4),
            "block 4: expected a top-k above 0 with it",
        ),
        ("eval", (*POINTS, "--appearance", 1), "appearance 1.0: benchmark jhmdb, of points, ig"),
        ("eval", (*POINTS, "--guided-filter", 8), "guided-filter 8: benchmark jhmdb"),
        ("eval", (*MASKS, "--cluster.cpus", 9), "eval: cluster: expected --jobs N with it"),
        ("eval", (*MASKS, "--cluster", "ours"), "cluster ours: expected --nodes N or --jobs N"),
        ("track", ("--protocol", "identity", "--adapt", 3), "adapt 3: protocol identity ignores"),
        ("track", ("--port", 7000), "track: port: expected --browser with it"),
        ("track", ("--browser", "--start", 3), "track: start 3: browser ignores it"),
        ("track", ("--browser", "--names", "a", "b"), "track: names ('a', 'b'): browser ignores"),
        ("track", ("--browser", "--backward"), "track: backward True: browser ignores it"),
        ("track", ("--browser", "--jobs", 2), "track: jobs 2: browser ignores it"),
        ("track", ("--cluster.cpus", 9), "track: cluster: expected --jobs N with it"),
        ("train", ("--cluster.cpus", 9), "train: cluster: expected --nodes N with it"),
        ("train", ("--cluster", "ours"), "cluster ours: expected --nodes N or --jobs N with it"),
        (
            "train",
            ("--recipe", "released", "--target.second-share", 0.2),
            "train: target.second_share 0.2: expected --target.second-palette FILE with it",
        ),
        (
            "train",
            ("--loss.teacher", "fast", "--loss.hop-weight", 2),
            "train: loss.hop_weight 2.0: expected no loss.teacher, which ignores it",
        ),
        (
            "train",
            ("--trainer.on-spike", "stop", "--trainer.spike-factor", 0),
            "trainer: on_spike stop: expected a spike_factor above 0 with it",
        ),
        ("shard", ("--every", 4, "--fps", 10), "pack: every 4, fps 10.0: expected one of them"),
        ("shard", ("--cluster.cpus", 9), "shard: cluster: expected --jobs N with it"),
    ],
)
def test_a_flag_that_would_be_ignored_is_refused(refused, command, flags, words):
    assert words in refused(command, *REQUIRED[command], *flags)


@pytest.mark.parametrize(
    ("config", "command", "flags"),
    [
        (EvalJob, "eval", IDENTITY),
        (EvalJob, "eval", (*IDENTITY, "--size", "64", "--device", "cpu")),
        (EvalJob, "eval", (*MASKS, "--checkpoint", "none", "--seed", "1")),
        (EvalJob, "eval", (*MASKS, "--protocol", "memory", "--top-k", "0")),
        (EvalJob, "eval", (*POINTS, "--protocol", "memory", "--guided-filter", "0")),
        (EvalJob, "eval", (*MASKS, "--jobs", "2", "--cluster.cpus", "9")),
        (TrackJob, "track", ("--protocol", "identity", "--checkpoint", "fast")),
        (TrackJob, "track", ("--browser", "--port", "7000", "--size", "240", "--adapt", "3")),
        (PackJob, "shard", ("--every", "4")),
        (PackJob, "shard", ("--fps", "10")),
    ],
)
def test_compatible_flags_are_accepted(config, command, flags):
    assert parse(config, [*REQUIRED[command], *flags], command)


@pytest.mark.parametrize("profile", ["", "example"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_settings_of_recipes_and_profiles_are_accepted(monkeypatch, recipe, profile):
    monkeypatch.setenv("CORRFLOW_CLUSTER", profile)
    assert train.read_flags([*REQUIRED["train"], "--recipe", recipe]).nodes == 0
