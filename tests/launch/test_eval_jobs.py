"""Tests evaluation by several jobs; `tests/cluster/test_cluster_eval.py` does on a real SLURM."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluating import evaluate_job
from PIL import Image

from corrflow import CorrFlow, InputError, ModelConfig, load_model, propagate
from corrflow.benchmarks.plan import read_plan
from corrflow.encoders.resnet import ResNetConfig
from corrflow.pretrained import export_model
from corrflow.training.checkpoint import save_checkpoint
from launch import eval as command_of_eval
from launch.common import job_array
from launch.configs.evaluate import EvalJob
from slurm import status
from slurm.array import Submitted
from slurm.status import JobState

TEXTS = ("global_results-val.csv", "per-sequence_results-val.csv", "metrics.json")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = CorrFlow(ModelConfig(ResNetConfig((4, 4, 8, 8), (1, 1, 1, 1), 8), radius=2))
    return save_checkpoint(
        tmp_path_factory.mktemp("run"), 1, model, torch.optim.Adam(model.parameters())
    )


@pytest.fixture(scope="module")
def single_job(tree, checkpoint, tmp_path_factory):
    """The results of a single job."""
    out = tmp_path_factory.mktemp("whole")
    evaluate_job(EvalJob("davis2017", tree, out, str(checkpoint)))
    return out


@pytest.fixture
def no_slurm(monkeypatch):
    """Makes the command run its jobs as local processes."""
    monkeypatch.setattr(command_of_eval, "goes_to_slurm", lambda jobs, local: False)


@pytest.fixture
def queue(monkeypatch):
    """A SLURM queue in which nothing runs; gives the list of submitted tasks."""
    submitted = []

    def submit(tasks, last, logs, name, config):
        submitted.extend(tasks)
        return Submitted("17", SimpleNamespace(job_id="18"))

    monkeypatch.setattr(command_of_eval, "goes_to_slurm", lambda jobs, local: jobs > 0)
    monkeypatch.setattr(job_array, "submit_array", submit)
    monkeypatch.setattr(status, "job_state", lambda _: JobState("UNKNOWN"))
    threads = torch.get_num_threads()
    yield submitted
    torch.set_num_threads(threads)  # jobs that run in this process change it


def content(out):
    masks = {
        str(path.relative_to(out)): path.read_bytes() for path in (out / "masks").rglob("*.png")
    }
    return masks | {name: (out / name).read_bytes() for name in TEXTS}


def flags(tree, checkpoint, out, *more):
    given = (
        "--benchmark",
        "davis2017",
        "--root",
        tree,
        "--checkpoint",
        checkpoint,
        "--out",
        out,
        *more,
    )
    return [str(flag) for flag in given]


def test_local_processes_produce_the_results_of_one_job(
    no_slurm, tree, checkpoint, single_job, tmp_path, capfd
):
    line = flags(tree, checkpoint, tmp_path, "--jobs", 2)
    assert command_of_eval.main(line) == 0
    assert "report: " in capfd.readouterr().out
    assert content(tmp_path) == content(single_job)
    assert (tmp_path / "report.html").exists()
    assert command_of_eval.main(line) == 0
    assert capfd.readouterr().out.startswith("evaluated already:\n")


def test_local_jobs_are_processes_even_if_slurm_is_installed(silent_slurm, tree, tmp_path, capfd):
    line = ["--benchmark", "davis2017", "--root", str(tree), "--protocol", "identity"]
    jobs = ["--out", str(tmp_path / "here"), "--jobs", "2", "--local"]
    assert command_of_eval.main([*line, *jobs]) == 0
    assert "report: " in capfd.readouterr().out
    assert command_of_eval.main([*line, "--out", str(tmp_path / "one")]) == 0
    assert content(tmp_path / "here") == content(tmp_path / "one")


def test_a_silent_cluster_is_reported_in_one_line(
    silent_slurm, refused, tree, checkpoint, tmp_path
):
    message = refused("eval", *flags(tree, checkpoint, tmp_path / "out", "--jobs", 2))
    assert "jobs 2: no SLURM cluster answers" in message
    assert "--local for processes here" in message
    assert not (tmp_path / "out").exists()


def test_local_without_jobs_is_refused(refused, tree, checkpoint, tmp_path):
    message = refused("eval", *flags(tree, checkpoint, tmp_path / "out", "--local"))
    assert "local: expected --jobs N with it" in message


def test_array_jobs_in_any_order_produce_the_bytes_of_one_job(
    queue, tree, checkpoint, single_job, tmp_path, capsys
):
    line = flags(tree, checkpoint, tmp_path, "--jobs", 9)
    assert command_of_eval.main(line) == 0
    output = capsys.readouterr().out
    assert "4 of 4 sequences to do, 32 frames: submitted 17_[0-3]" in output
    assert "scancel 17 18" in output
    for task in reversed(queue):
        task()
    command_of_eval.end_array(str(tmp_path))
    assert content(tmp_path) == content(single_job)


def test_only_a_failed_job_is_submitted_again(queue, tree, checkpoint, single_job, tmp_path):
    line = flags(tree, checkpoint, tmp_path, "--jobs", 3)
    command_of_eval.main(line)
    assert len(queue) == 3
    queue[0]()
    queue[2]()
    with pytest.raises(
        InputError, match=r"1 of 4 sequences are not done \(val-001\): the same command resumes it$"
    ):
        command_of_eval.end_array(str(tmp_path))
    queue.clear()
    command_of_eval.main(line)
    (left,) = queue
    left()
    command_of_eval.end_array(str(tmp_path))
    assert content(tmp_path) == content(single_job)


def test_repeating_the_command_completes_an_array_without_its_last_job(
    queue, tree, checkpoint, single_job, tmp_path
):
    line = flags(tree, checkpoint, tmp_path, "--jobs", 2)
    command_of_eval.main(line)
    for task in queue:
        task()
    assert command_of_eval.main([*line, "--follow"]) == 0
    assert content(tmp_path) == content(single_job)
    assert (tmp_path / "report.html").exists()


def test_a_deleted_checkpoint_is_reported_by_the_last_job(queue, tree, checkpoint, tmp_path):
    gone = shutil.copy(checkpoint, tmp_path / "gone.pt")
    command_of_eval.main(flags(tree, gone, tmp_path / "out", "--jobs", 2))
    (tmp_path / "gone.pt").unlink()
    with pytest.raises(InputError, match="no such file"):
        queue[0]()
    with pytest.raises(
        InputError, match=r"4 of 4 sequences are not done .*; checkpoint .*gone.pt: no such file"
    ):
        command_of_eval.end_array(str(tmp_path / "out"))


def test_a_replaced_checkpoint_is_refused(queue, tree, checkpoint, tmp_path):
    changed = shutil.copy(checkpoint, tmp_path / "changed.pt")
    command_of_eval.main(flags(tree, changed, tmp_path / "out", "--jobs", 2))
    state = torch.load(changed, weights_only=True)
    state["model"]["encoder.head.bias"] += 1
    torch.save(state, changed)
    with pytest.raises(InputError, match="not those that were planned"):
        queue[0]()


def test_errors_are_found_before_anything_is_submitted(queue, refused, tree, checkpoint, tmp_path):
    torch.save({"model": {"other": torch.zeros(1)}}, tmp_path / "other.pt")
    line = flags(tree, tmp_path / "other.pt", tmp_path / "out", "--jobs", 2)
    assert "another architecture" in refused("eval", *line)
    assert "expected a DAVIS tree" in refused(
        "eval", *flags(tmp_path, checkpoint, tmp_path / "out", "--jobs", 2)
    )
    assert "jobs -1" in refused("eval", *flags(tree, checkpoint, tmp_path / "out", "--jobs", -1))
    line = flags(tree, "none", tmp_path / "out", "--seed", 2**64)
    assert f"eval: seed {2**64}: expected 0 to" in refused("eval", *line)
    assert not queue
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_evaluation_is_refused(refused, tree, checkpoint, tmp_path):
    evaluate_job(EvalJob("davis2017", tree, tmp_path, protocol="identity"))
    message = refused("eval", *flags(tree, checkpoint, tmp_path))
    assert "belongs to another evaluation: protocol." in message
    assert "protocol.propagates is False there and True here" in message


def test_an_unreadable_frame_is_one_line_and_finished_sequences_are_kept(
    no_slurm, command, tree, checkpoint, tmp_path
):
    root = shutil.copytree(tree, tmp_path / "tree")
    (root / "JPEGImages/480p/val-002/00004.jpg").write_bytes(b"no picture")
    done = command("eval", *flags(root, checkpoint, tmp_path / "out"))
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "val-002/00004.jpg: not a readable image" in done.stderr.splitlines()[-1]
    assert [sequence.name for sequence in read_plan(tmp_path / "out").left()] == [
        "val-002",
        "val-003",
    ]


def test_a_failing_local_process_ends_all_with_its_error(
    no_slurm, tree, checkpoint, tmp_path, capfd
):
    root = shutil.copytree(tree, tmp_path / "tree")
    (root / "JPEGImages/480p/val-001/00004.jpg").write_bytes(b"no picture")
    assert command_of_eval.main(flags(root, checkpoint, tmp_path / "out", "--jobs", 2)) == 2
    message = capfd.readouterr().err
    assert "eval.py: rank 1: error: frame" in message
    assert "Traceback" not in message


ENCODER = """
import torch.nn.functional as F
from corrflow import Encoder

class Pixels(Encoder):
    stride, channels = 8, 3

    def forward(self, frames):
        return F.avg_pool2d(frames, 8)

def mine():
    return Pixels()
"""


def test_an_array_evaluates_a_custom_encoder_like_one_job(queue, tree, tmp_path, capsys):
    (tmp_path / "encoders.py").write_text(ENCODER)
    line = [
        "--benchmark",
        "davis2017",
        "--root",
        str(tree),
        "--encoder",
        f"{tmp_path / 'encoders.py'}:mine",
        "--protocol",
        "crw",
    ]
    line += ["--attention", "reference"]
    assert command_of_eval.main([*line, "--out", str(tmp_path / "array"), "--jobs", "2"]) == 0
    for task in queue:
        task()
    command_of_eval.end_array(str(tmp_path / "array"))
    output = capsys.readouterr().out
    assert "mine" in output
    evaluate_job(
        EvalJob(
            "davis2017",
            tree,
            tmp_path / "one",
            encoder=f"{tmp_path / 'encoders.py'}:mine",
            protocol="crw",
            attention="reference",
        )
    )
    assert content(tmp_path / "array") == content(tmp_path / "one")
    plan = json.loads((tmp_path / "one/plan.json").read_text())
    name = f"{tmp_path / 'encoders.py'}:mine"
    assert (plan["encoder"], plan["attention"]) == (name, "reference")


def test_changed_protocol_settings_are_used_and_recorded(tree, checkpoint, tmp_path):
    assert (
        EvalJob("davis2017", tree, tmp_path, protocol="memory", frames=0).chosen_protocol.recent
        == ()
    )
    job = EvalJob(
        "davis2017",
        tree,
        tmp_path,
        str(checkpoint),
        protocol="memory",
        radius=8,
        frames=3,
        top_k=5,
    )
    assert evaluate_job(job).protocol == "memory, radius 8, recent 3"
    hardened = EvalJob("davis2017", tree, tmp_path, protocol="memory", hardening=1.0)
    assert hardened.chosen_protocol.hardening == 1
    assert hardened.chosen_protocol.name == "memory, hardening 1.0"
    recorded = json.loads((tmp_path / "plan.json").read_text())["protocol"]
    assert (recorded["radius"], recorded["recent"], recorded["top_k"]) == (8, [1, 2, 3], 5)


def test_tracking_at_a_smaller_size_is_scored_at_the_original_size(
    tree, checkpoint, single_job, tmp_path, refused
):
    """The videos are 64x48."""
    job = EvalJob("davis2017", tree, tmp_path / "small", str(checkpoint), size=32)
    assert evaluate_job(job).protocol == "paper, size 32"
    masks = sorted((tmp_path / "small/masks").rglob("*.png"))
    assert {
        Image.open(path).size for path in (*masks, *(tmp_path / "small/overlays").rglob("*.jpg"))
    } == {(64, 48)}
    assert content(tmp_path / "small") != content(single_job)
    first = [path for path in masks if path.stem == "00000"]
    for path in first:  # the given mask, resized to 43x32 and back
        original = Image.open(tree / "Annotations/480p" / path.parent.name / path.name)
        resized = original.resize((43, 32), Image.Resampling.NEAREST).resize(
            (64, 48), Image.Resampling.NEAREST
        )
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(resized))
    evaluate_job(replace(job, out=tmp_path / "own", size=48))
    # metrics.json differs because it holds the size
    full_size = {
        name: data for name, data in content(tmp_path / "own").items() if name != "metrics.json"
    }
    assert full_size.items() < content(single_job).items()
    with pytest.raises(InputError, match="size is 32 there and 0 here"):
        evaluate_job(replace(job, size=0))
    flags = ("--benchmark", "davis2017", "--root", tree, "--out", tmp_path / "o", "--size")
    assert "eval: size 31: expected at least 32, or 0" in refused("eval", *flags, 31).replace(
        "\n", " "
    )


def test_the_model_can_be_adapted_to_each_sequence(
    tree, checkpoint, single_job, tmp_path, monkeypatch
):
    monkeypatch.setattr("corrflow.adaptation.LEARNING_RATE", 0.03)
    job = EvalJob("davis2017", tree, tmp_path / "adapted", str(checkpoint), adapt=2)
    assert evaluate_job(job).protocol == "paper, adapt 2"
    evaluate_job(replace(job, out=tmp_path / "again"))
    adapted, again, without = (
        {name: data for name, data in content(folder).items() if name.endswith(".png")}
        for folder in (tmp_path / "adapted", tmp_path / "again", single_job)
    )
    assert adapted == again != without
    with pytest.raises(InputError, match="adapt is 2"):
        evaluate_job(replace(job, adapt=0))


def test_frames_can_be_enlarged_before_they_are_encoded(tree, checkpoint, single_job, tmp_path):
    job = EvalJob("davis2017", tree, tmp_path / "enlarged", str(checkpoint), input_scale=2.0)
    assert evaluate_job(job).protocol == "paper, input scale 2"
    assert content(tmp_path / "enlarged") != content(single_job)
    evaluate_job(job)  # the results of the same job are accepted
    with pytest.raises(InputError, match="input_scale is 2"):
        evaluate_job(replace(job, input_scale=0.0))
    export_model(checkpoint, tmp_path / "model", input_scale=2.0)
    evaluate_job(replace(job, out=tmp_path / "own", checkpoint=str(tmp_path / "model")))
    evaluate_job(EvalJob("davis2017", tree, tmp_path / "exported", str(tmp_path / "model")))
    one, other = (
        {name: data for name, data in content(tmp_path / out).items() if name.endswith(".png")}
        for out in ("own", "exported")
    )
    assert one == other


def test_the_bundled_model_is_evaluated_by_default(
    tree, checkpoint, single_job, tmp_path, monkeypatch
):
    export_model(checkpoint, tmp_path / "models/base")
    monkeypatch.setattr("corrflow.pretrained.MODELS", tmp_path / "models")
    evaluate_job(EvalJob("davis2017", tree, tmp_path))
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert (plan["name"], plan["checkpoint"]) == ("base", "")
    same = [
        {name: data for name, data in content(out).items() if name.startswith("masks")}
        for out in (single_job, tmp_path)
    ]
    assert same[0] == same[1]


def test_invalid_encoders_and_protocols_are_refused_with_one_line(
    refused, tree, checkpoint, tmp_path
):
    line = ("--benchmark", "davis2017", "--root", tree, "--out", tmp_path / "o")
    assert "expected one of them" in refused(
        "eval", *line, "--encoder", "a:b", "--checkpoint", checkpoint
    )
    message = refused("eval", *line, "--encoder", "nothing")
    assert "package.module:function or path/to/file.py:function" in message
    assert "protocol 'papier': expected one of paper, memory" in refused(
        "eval", *line, "--protocol", "papier"
    )
    assert "benchmark 'davis2015': expected one of davis2016" in refused(
        "eval", "--benchmark", "davis2015", *line[2:]
    )
    assert "frames -1" in refused("eval", *line, "--frames", -1)
    assert "expected at least one frame to copy from" in refused("eval", *line, "--frames", 0)
    assert "radius -3: expected 0 or more" in refused("eval", *line, "--radius", -3)


def test_reset_gap_tracks_each_frame_from_an_earlier_ground_truth_mask(
    tree, checkpoint, single_job, tmp_path, refused
):
    truth = {
        path.parent.name: sorted(path.parent.glob("*.png"))
        for path in (tree / "Annotations/480p").glob("*/00000.png")
    }

    def saved_masks(out, name):
        return [
            np.asarray(Image.open(path)) for path in sorted((out / "masks" / name).glob("*.png"))
        ]

    copying = EvalJob("davis2017", tree, tmp_path / "stay", protocol="identity", reset_gap=3)
    assert evaluate_job(copying).protocol == "identity, reset gap 3"
    for name, paths in truth.items():
        for number, mask in enumerate(saved_masks(copying.out, name)):
            assert np.array_equal(mask, np.asarray(Image.open(paths[max(number - 3, 0)])))
    job = EvalJob("davis2017", tree, tmp_path / "one", str(checkpoint), reset_gap=1)
    evaluate_job(job)
    assert content(job.out) != content(single_job)
    name = min(truth)
    for number, mask in enumerate(saved_masks(job.out, name)[1:], 1):
        given = np.asarray(Image.open(truth[name][number - 1]))
        frames = [
            np.asarray(Image.open(tree / "JPEGImages/480p" / name / f"{t:05d}.jpg"))
            for t in (number - 1, number)
        ]
        clip = torch.from_numpy(np.stack(frames)).movedim(-1, 1)
        assert np.array_equal(
            mask, propagate(load_model(checkpoint), clip, torch.from_numpy(given.copy()))[1].numpy()
        )
    with pytest.raises(InputError, match="reset_gap is 1 there and 0 here"):
        evaluate_job(replace(job, reset_gap=0))
    flags = ("--protocol", "identity", "--root", tree, "--out", tmp_path / "o", "--reset-gap")
    assert "eval: reset_gap -1: expected 0 or more" in refused(
        "eval", "--benchmark", "davis2017", *flags, -1
    )
