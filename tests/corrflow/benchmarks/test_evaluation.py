"""The three steps of an evaluation (plan, run, merge), however the work is divided into jobs.
`tests/launch/test_eval_jobs.py` tests them as commands."""

import json
import math
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TIMEOUT_SECONDS
from miniatures import davis_test, jhmdb, tapvid, vip, youtube_vos
from PIL import Image

from corrflow import CorrFlow, InputError, ModelConfig
from corrflow.benchmarks import evaluation
from corrflow.benchmarks.davis import Davis
from corrflow.benchmarks.evaluation import evaluate, finish, groups, run_group, run_sequences, track
from corrflow.benchmarks.plan import (
    Evaluation,
    SequenceRecord,
    assign_jobs,
    prepare,
    read_plan,
    recording_failure,
)
from corrflow.benchmarks.results import read_result
from corrflow.encoders.resnet import ResNetConfig
from corrflow.model import weights_digest
from corrflow.propagation import PROTOCOLS, Protocol

PAPER = PROTOCOLS["paper"]
TEXTS = ("global_results-val.csv", "per-sequence_results-val.csv", "metrics.json")


def small_model(seed=0):
    torch.manual_seed(seed)
    return CorrFlow(
        ModelConfig(ResNetConfig((4, 4, 8, 8), (1, 1, 1, 1), 8), radius=2), "tiled"
    ).eval()


def evaluation_of(root, model):
    """The settings that `evaluate` writes into the plan."""
    return Evaluation(
        "davis2017", str(root), "m", PAPER, weights_digest(model), device="cpu", attention="tiled"
    )


def content(out):
    """The content of all output files except those that hold times."""
    files = {
        path: path.read_bytes()
        for name in ("masks", "overlays")
        for path in (out / name).rglob("*")
        if path.is_file()
    }
    return {str(path.relative_to(out)): data for path, data in files.items()} | {
        name: (out / name).read_bytes() for name in TEXTS
    }


@pytest.fixture(scope="module")
def whole(tree, tmp_path_factory):
    """The output folder of an evaluation by one job."""
    out = tmp_path_factory.mktemp("whole")
    evaluate("davis2017", tree, small_model(), PAPER, out, "m")
    return out


def test_jobs_in_any_order_write_the_same_bytes_as_one_job(tree, whole, tmp_path):
    prepare(evaluation_of(tree, small_model()), tmp_path)
    for number in (2, 0, 1):
        plan = read_plan(tmp_path)
        run_sequences(plan, plan.share(number, 3), small_model())
    finish(read_plan(tmp_path))
    assert len(content(whole)) == 2 * 32 + 3
    assert content(tmp_path) == content(whole)


def test_results_do_not_depend_on_the_number_of_threads(tree, whole, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3 if before != 3 else 2)
    try:
        evaluate("davis2017", tree, small_model(), PAPER, tmp_path, "m")
    finally:
        torch.set_num_threads(before)
    assert content(tmp_path) == content(whole)
    threads = [
        {line["threads"] for line in json.loads((out / "speed.json").read_text()).values()}
        for out in (whole, tmp_path)
    ]
    assert threads[0] != threads[1]


def test_sequences_tracked_together_give_the_same_bytes_as_one_by_one(tree, whole, tmp_path):
    plan = prepare(evaluation_of(tree, small_model()), tmp_path)
    (together,) = groups(plan.benchmark, list(plan.sequences), lanes=8)
    assert len(together) == 4
    counts = []
    run_group(plan, together, small_model(), counts.append)
    assert counts == 8 * [4]
    finish(plan)
    assert content(tmp_path) == content(whole)


def test_points_tracked_together_agree_with_points_tracked_one_by_one(tmp_path):
    root = tmp_path / "jhmdb"
    jhmdb(root)
    video = "April_09_wave_u_nm_np1_ba_goo_0"
    for folder in (root / "Rename_Images/wave", root / "joint_positions/wave"):
        shutil.copytree(folder / video, folder / "again")
    (root / "Rename_Images/wave/again/00005.png").unlink()
    split = root / "splits/wave_test_split1.txt"
    split.write_text(split.read_text() + "again.avi 2 \n")
    alone = evaluate("jhmdb", root, small_model(), PAPER, tmp_path / "alone", "m")
    weights = weights_digest(small_model())
    plan = prepare(
        Evaluation("jhmdb", str(root), "m", PAPER, weights, device="cpu", attention="tiled"),
        tmp_path / "together",
    )
    (together,) = groups(plan.benchmark, list(plan.sequences), lanes=8)
    assert [sequence.length for sequence in together] == [4, 4]
    run_group(plan, together, small_model(), lambda _: None)
    assert finish(plan).overall == pytest.approx(alone.overall)
    for sequence in together:
        tracks = [
            json.loads((tmp_path / way / "points" / f"{sequence.name}.json").read_text())
            for way in ("alone", "together")
        ]
        for one, other in zip(*tracks, strict=True):
            assert one["visible"] == other["visible"]
            np.testing.assert_allclose(
                *(np.array(frame["xy"], dtype=float) for frame in (one, other)), atol=0.002
            )


def test_groups_hold_frames_of_one_size_within_lane_and_memory_limits(tree, tmp_path, monkeypatch):
    root = shutil.copytree(tree, tmp_path / "tree")
    for path in (root / "JPEGImages/480p/val-002").iterdir():
        Image.open(path).resize((60, 48)).save(path)
    for path in (root / "Annotations/480p/val-002").iterdir():
        Image.open(path).resize((60, 48)).save(path)
    davis = Davis(2017)
    sequences = davis.read(root)

    def names(lanes):
        return sorted(
            tuple(sequence.name for sequence in group) for group in groups(davis, sequences, lanes)
        )

    assert names(1) == [("val-000",), ("val-001",), ("val-002",), ("val-003",)]
    assert names(8) == [("val-000", "val-001", "val-003"), ("val-002",)]
    assert names(2) == [("val-000", "val-001"), ("val-002",), ("val-003",)]
    monkeypatch.setattr(evaluation, "LANES_BYTES", 2 * evaluation.PIXEL_BYTES * 64 * 48)
    assert names(8) == [("val-000", "val-001"), ("val-002",), ("val-003",)]


def test_the_memory_protocol_does_not_depend_on_the_number_of_threads(tree, tmp_path):
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            evaluate(
                "davis2017", tree, small_model(), PROTOCOLS["memory"], tmp_path / str(threads), "m"
            )
    finally:
        torch.set_num_threads(before)
    assert content(tmp_path / "1") == content(tmp_path / "3")


KILLED = """
import os, sys
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from corrflow.benchmarks.evaluation import run_sequences
from corrflow.benchmarks.plan import read_plan
from test_evaluation import small_model
frames = 0
def die(count):
    global frames
    frames += count
    if frames == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
plan = read_plan(Path(sys.argv[1]))
run_sequences(plan, plan.sequences, small_model(), die)
"""


def test_a_killed_job_keeps_its_finished_sequences(tree, whole, tmp_path):
    plan = prepare(evaluation_of(tree, small_model()), tmp_path)
    here = Path(__file__)
    command = [
        sys.executable,
        "-c",
        KILLED,
        str(tmp_path),
        "13",
        str(here.parent),
        str(here.parents[2]),
    ]
    assert subprocess.run(command, timeout=TIMEOUT_SECONDS, check=False).returncode == -9
    assert [sequence.name for sequence in plan.left()] == ["val-001", "val-002", "val-003"]
    kept = tmp_path / "sequences/val-000.json"
    before = kept.stat()
    (tmp_path / "overlays/val-001").mkdir(parents=True)
    # a temporary file, as a kill in the middle of a write leaves one
    (tmp_path / "overlays/val-001/.00003.jpg.123.tmp").touch()
    counts = []
    run_sequences(plan, plan.sequences, small_model(), counts.append)
    finish(plan)
    assert counts == [8] + 24 * [1]
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert content(tmp_path) == content(whole)


def test_unfinished_sequences_are_named_and_counted(tree, tmp_path):
    plan = prepare(evaluation_of(tree, small_model()), tmp_path)
    words = (
        r"4 of 4 sequences are not done \(val-000, val-001, val-002, ...\): the same command "
        r"resumes it$"
    )
    with pytest.raises(InputError, match=words):
        finish(plan)
    run_sequences(plan, [plan.sequences[i] for i in (0, 1, 3)], small_model())
    with pytest.raises(
        InputError, match=r"1 of 4 sequences are not done \(val-002\): the same command resumes it$"
    ):
        finish(plan)
    assert not (tmp_path / "metrics.json").exists()


def test_a_failure_is_reported_until_its_cause_is_fixed(tree, tmp_path):
    root = shutil.copytree(tree, tmp_path / "tree")
    frame = root / "JPEGImages/480p/val-001/00004.jpg"
    good = frame.read_bytes()
    frame.write_bytes(b"no picture")
    plan = prepare(evaluation_of(root, small_model()), tmp_path / "out")
    with (
        pytest.raises(InputError, match=r"00004\.jpg: not a readable image"),
        recording_failure(plan, list(plan.sequences)),
    ):
        run_sequences(plan, plan.sequences, small_model())
    with pytest.raises(
        InputError,
        match=r"3 of 4 sequences are not done .*; frame .*val-001/00004.jpg: not a readable image",
    ):
        finish(plan)
    frame.write_bytes(good)
    plan = prepare(evaluation_of(root, small_model()), tmp_path / "out")
    with pytest.raises(InputError, match=r"the same command resumes it$"):
        finish(plan)
    run_sequences(plan, plan.sequences, small_model())
    assert len(finish(plan).scores) > 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"weights": "beef"},
            "weights is '[0-9a-f]{16}' there and 'beef' here: expected another folder",
        ),
        ({"protocol": Protocol("paper", radius=36)}, "protocol.radius is 24 there and 36 here"),
        ({"benchmark": "davis2016"}, "benchmark is 'davis2017' there and 'davis2016' here"),
        (
            {"size": 32, "seed": 3, "device": "cuda", "attention": "triton"},
            "seed is 0 there and 3 here; .*; and 1 more: expected",
        ),
    ],
)
def test_a_folder_of_another_evaluation_is_refused(tree, tmp_path, change, words):
    plan = prepare(evaluation_of(tree, small_model()), tmp_path)
    with pytest.raises(InputError, match=words):
        prepare(replace(plan.evaluation, **change), tmp_path)
    assert read_plan(tmp_path) == plan
    moved = prepare(replace(plan.evaluation, checkpoint="/elsewhere.pt"), tmp_path)
    assert moved.digest == plan.digest


def test_changed_frames_are_evaluated_again_but_moved_data_are_not(tree, tmp_path):
    root = shutil.copytree(tree, tmp_path / "tree")
    settings, model = evaluation_of(root, small_model()), small_model()
    plan = prepare(settings, tmp_path / "out")
    run_sequences(plan, plan.sequences, model)
    assert not plan.left()
    moved = replace(settings, root=str(root.rename(tmp_path / "moved")), name="renamed")
    assert not prepare(moved, tmp_path / "out").left()
    frames = sorted((tmp_path / "moved/JPEGImages/480p/val-001").iterdir())
    shutil.copy(frames[-1], frames[0])
    again = prepare(moved, tmp_path / "out")
    assert [sequence.name for sequence in again.left()] == ["val-001"]


def test_a_plan_is_refused_if_its_data_have_changed(tree, tmp_path):
    root = shutil.copytree(tree, tmp_path / "tree")
    settings = evaluation_of(root, small_model())
    plan = prepare(settings, tmp_path / "out")
    for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        (root / kind / "480p/val-001" / f"00007.{suffix}").unlink()
    with pytest.raises(
        InputError, match=r"belongs to another evaluation: sequences\.val-001 is 8 there and 7 here"
    ):
        prepare(settings, tmp_path / "out")
    with pytest.raises(
        InputError, match=r"the data have changed: sequences\.val-001 is 8 there and 7 here"
    ):
        read_plan(plan.out)


@pytest.mark.parametrize(
    ("name", "empty"),
    [
        ("youtube-vos", lambda root: (root / "meta.json").write_text('{"videos": {}}')),
        ("davis2017-test", lambda root: (root / "ImageSets/2017/test-dev.txt").write_text("\n")),
    ],
)
def test_a_list_without_a_sequence_is_refused(tmp_path, name, empty):
    {"youtube-vos": youtube_vos, "davis2017-test": davis_test}[name](tmp_path)
    empty(tmp_path)
    with pytest.raises(
        InputError, match=f"its list for {name} names no sequence: nothing to evaluate"
    ):
        evaluate(name, tmp_path, None, PROTOCOLS["identity"], tmp_path / "out", "identity")


def test_two_sequences_of_the_same_name_are_refused(tmp_path):
    vip(tmp_path)
    (tmp_path / "VIP_Fine/lists/val_videos.txt").write_text("videos10\nImages/videos10\n")
    with pytest.raises(
        InputError, match="vip has two sequences videos10: expected different names"
    ):
        evaluate("vip", tmp_path, None, PROTOCOLS["identity"], tmp_path / "out", "identity")


def test_results_of_another_plan_are_ignored(tree, tmp_path):
    plan = prepare(evaluation_of(tree, small_model()), tmp_path)
    run_sequences(plan, plan.sequences, small_model())
    (tmp_path / "plan.json").unlink()
    other = prepare(evaluation_of(tree, small_model(seed=1)), tmp_path)
    assert len(other.left()) == 4


def test_results_of_another_results_version_are_ignored(tree, tmp_path, monkeypatch):
    plan = prepare(evaluation_of(tree, small_model()), tmp_path)
    run_sequences(plan, plan.sequences, small_model())
    assert read_plan(tmp_path).left() == []
    monkeypatch.setattr("corrflow.benchmarks.plan.RESULTS_VERSION", 0)
    assert len(read_plan(tmp_path).left()) == 4


def test_stored_scores_are_read_back_exactly(tree, tmp_path):
    plan = prepare(evaluation_of(tree, small_model()), tmp_path)
    draw = random.Random(0)
    scores = {
        f"val-000_{k}": {
            "J": [draw.random() for _ in range(50)],
            "F": [draw.random() / 3 for _ in range(50)],
        }
        for k in (1, 2)
    }
    done = SequenceRecord(plan.digest_of(plan.sequences[0]), scores, 52, 1 / 3, 10**9, 1, "here")
    plan.keep(plan.sequences[0], done)
    assert plan.result(plan.sequences[0]) == done


def test_a_result_is_stored_as_strict_json(tree, tmp_path):
    plan = prepare(evaluation_of(tree, small_model()), tmp_path)
    plan.keep(
        plan.sequences[0],
        SequenceRecord(
            plan.digest_of(plan.sequences[0]),
            {"val-000_1": {"J": [1.0, math.nan]}},
            2,
            1.0,
            1,
            1,
            "here",
        ),
    )
    assert "NaN" not in (tmp_path / "sequences/val-000.json").read_text()
    kept = plan.result(plan.sequences[0]).scores["val-000_1"]["J"]
    assert kept[0] == 1
    assert math.isnan(kept[1])


@pytest.mark.parametrize("content", [b"", b'{"digest": "x', b"[]", b"{}", b"\xff"])
def test_a_sequence_with_a_damaged_result_is_evaluated_again(tree, tmp_path, content):
    out = tmp_path / "out"
    evaluate("davis2017", tree, None, PROTOCOLS["identity"], out, "m")
    before = (out / "sequences/val-001.json").read_bytes()
    (out / "sequences/val-001.json").write_bytes(content)
    plan = read_plan(out)
    assert [sequence.name for sequence in plan.left()] == ["val-001"]
    evaluate("davis2017", tree, None, PROTOCOLS["identity"], out, "m")
    again = json.loads((out / "sequences/val-001.json").read_text())
    assert again["scores"] == json.loads(before)["scores"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"protocol": [], "sequences": {}}'])
def test_a_damaged_plan_is_refused(tree, tmp_path, content):
    settings = prepare(evaluation_of(tree, small_model()), tmp_path).evaluation
    (tmp_path / "plan.json").write_text(content)
    for call in (lambda: prepare(settings, tmp_path), lambda: read_plan(tmp_path)):
        with pytest.raises(
            InputError, match=r"plan.json: (damaged: not JSON|not what this version writes)"
        ):
            call()


def test_a_plan_of_another_version_is_refused(tree, tmp_path):
    prepare(evaluation_of(tree, small_model()), tmp_path)
    stored = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps({**stored, "colour": 1}))
    with pytest.raises(InputError, match=r"plan.json: not what this version writes \(.*colour"):
        read_plan(tmp_path)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_each_sequence_gets_one_job_and_jobs_are_of_similar_size(count):
    draw = random.Random(count)
    frames = [draw.randint(25, 104) for _ in range(30)]
    jobs = assign_jobs(frames, count)
    assert sorted(index for job in jobs for index in job) == list(range(30))
    loads = [sum(frames[index] for index in job) for job in jobs]
    assert max(loads) - min(loads) <= max(frames)
    assert assign_jobs(frames, count) == jobs
    assert assign_jobs([3, 9, 4, 4], 2) == [[1], [2, 3, 0]]


def test_a_job_without_a_plan_is_refused(tmp_path):
    with pytest.raises(InputError, match="no evaluation was started there"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    ("name", "make"),
    [("tapvid", lambda root: tapvid(root / "tapvid_davis.pkl")), ("davis2017-test", davis_test)],
)
def test_a_reset_gap_needs_the_true_mask_of_every_frame(tmp_path, name, make):
    root = make(tmp_path) or tmp_path
    with pytest.raises(
        InputError,
        match=f"benchmark {name}: has no true mask of every frame: expected davis2016 or davis2017",
    ):
        prepare(
            Evaluation(name, str(root), "m", PROTOCOLS["identity"], reset_gap=1), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_a_result_records_its_reset_gap(tree, tmp_path):
    for gap in (0, 2):
        settings = Evaluation("davis2017", str(tree), "m", PROTOCOLS["identity"], reset_gap=gap)
        plan = prepare(settings, tmp_path / str(gap))
        run_sequences(plan, plan.sequences, None)
        assert finish(plan) == read_result(plan.out)
        assert read_result(plan.out).reset_gap == gap


def test_the_weights_digest_depends_on_architecture_and_weights():
    same, other = small_model(), small_model(seed=1)
    assert weights_digest(small_model()) == weights_digest(same) != weights_digest(other)
    wider = CorrFlow(replace(same.config, radius=3))
    wider.load_state_dict(same.state_dict())
    assert weights_digest(wider) != weights_digest(same)


def test_points_are_in_the_videos_pixels_at_any_tracked_size(tmp_path):
    """The identity protocol copies each point, so it stays where it was given, here on frames of
    256x256 that are tracked at 64x64."""
    tapvid(tmp_path / "tapvid_davis.pkl")
    settings = Evaluation("tapvid", str(tmp_path), "m", PROTOCOLS["identity"], size=64)
    plan = prepare(settings, tmp_path / "out")
    goat = plan.sequences[0]
    given = plan.benchmark.initial_labels(goat)
    tracked = [outputs[0] for outputs in track(plan, [goat], None)]
    np.testing.assert_allclose(tracked[0].xy[:2], given[0][:2], atol=1e-4)
    np.testing.assert_allclose(
        tracked[4].xy, np.where(np.isnan(given[0]), given[2], given[0]), atol=1e-4
    )
