"""`eval.py --jobs` on a real SLURM cluster."""

import re
import shutil
import subprocess
import time

import pytest
import torch

from corrflow import CorrFlow, ModelConfig
from corrflow.encoders.resnet import ResNetConfig
from corrflow.training.checkpoint import save_checkpoint

pytestmark = pytest.mark.usefixtures("cluster")
JOBS = ("--jobs", 4, "--cluster.cpus", 1, "--cluster.memory-gb", 1, "--cluster.minutes", 5)
TEXTS = ("global_results-val.csv", "per-sequence_results-val.csv", "metrics.json")


@pytest.fixture
def flags(tree, tmp_path):
    """All flags except `--out`."""
    torch.manual_seed(0)
    model = CorrFlow(ModelConfig(ResNetConfig((4, 4, 8, 8), (1, 1, 1, 1), 8), radius=2))
    checkpoint = save_checkpoint(tmp_path / "run", 1, model, torch.optim.Adam(model.parameters()))
    return ("--benchmark", "davis2017", "--root", tree, "--checkpoint", checkpoint)


def content(out):
    masks = {
        str(path.relative_to(out)): path.read_bytes() for path in (out / "masks").rglob("*.png")
    }
    return masks | {name: (out / name).read_bytes() for name in TEXTS}


def wait_until_gone(job):
    for _ in range(400):
        if not subprocess.run(
            ["squeue", "-hj", job], capture_output=True, text=True, check=False
        ).stdout.strip():
            return
        time.sleep(0.3)
    raise AssertionError(f"job {job} is still in the queue")


def test_only_a_killed_job_is_repeated_and_results_are_as_without_jobs(command, flags, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert command("eval", *flags, "--out", whole).returncode == 0
    # kills one job before it has done anything, as a failing node would
    fault = '[ "$SLURM_ARRAY_TASK_ID" != 1 ] || kill -9 $$'
    first = command("eval", *flags, "--out", out, *JOBS, "--cluster.setup", fault)
    assert first.returncode == 0, first.stderr
    last = re.search(r"submitted \d+_\S+, and (\d+),", first.stdout).group(1)
    wait_until_gone(last)
    log = (out / "logs" / f"{last}_0_log.err").read_text()
    assert f"{out}: 1 of 4 sequences are not done (val-001): the same command resumes it" in log
    assert not (out / "metrics.json").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "sequences").glob("*.json")}
    second = command("eval", *flags, "--out", out, *JOBS, "--follow")
    assert second.returncode == 0, second.stderr
    assert "1 of 4 sequences to do, 8 frames: submitted" in second.stdout
    assert "J&F" in second.stdout
    assert (
        kept.items()
        <= {
            path.name: path.stat().st_mtime_ns for path in (out / "sequences").glob("*.json")
        }.items()
    )
    assert content(out) == content(whole)
    assert (out / "report.html").exists()


def test_a_failing_jobs_reason_is_in_its_log_and_shown_by_follow(command, flags, tree, tmp_path):
    root = shutil.copytree(tree, tmp_path / "tree")
    (root / "JPEGImages/480p/val-002/00004.jpg").write_bytes(b"no picture")
    done = command("eval", *flags, "--root", root, "--out", tmp_path / "out", *JOBS, "--follow")
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert "1 of 4 sequences are not done (val-002): the same command resumes it; frame " in line
    assert "val-002/00004.jpg: not a readable image" in line
    logs = [
        path
        for path in (tmp_path / "out/logs").glob("*_log.err")
        if "00004.jpg: not a readable image" in path.read_text()
    ]
    assert any(re.fullmatch(r"\d+_2_0_log\.err", path.name) for path in logs)
