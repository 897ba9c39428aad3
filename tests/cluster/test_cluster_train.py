"""`train.py --nodes` on a real SLURM: what happens to jobs happens to these, and they end with the weights of one that was left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY

pytestmark = pytest.mark.usefixtures("cluster")
STEPS = 400
JOB = ("--gpus-per-node", 1, "--cluster.cpus", 1, "--cluster.memory-gb", 2, "--cluster.minutes", 20, "--patience.join-seconds", 60)


def slurm(*words):
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True, timeout=60).stdout.strip()


class Run:
    """A training run that was handed to the cluster."""

    def __init__(self, data, folder, *flags, nodes=2, steps=STEPS):
        self.folder, self.steps = folder, steps
        shape = ("--trainer.steps", steps, "--trainer.save-every", 10, "--trainer.log-every", 5, "--stream.workers", 1)
        line = [sys.executable, ROOT / "launch/train.py", "--data", data, "--run", folder, *TINY, *JOB, *shape, "--nodes", nodes, *flags]
        done = subprocess.run(list(map(str, line)), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        self.told = done.stdout
        self.job = json.loads((folder / "job.json").read_text())["job"]

    def log(self, rank=0):
        path = self.folder / "logs" / f"{self.job}_{rank}_log.out"
        return path.read_text() if path.exists() else ""

    def await_that(self, holds, seconds=120):
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"{self.queue()}\n{self.log()[-3000:]}\n{self.log(1)[-3000:]}"
            time.sleep(0.2)

    def queue(self):
        return slurm("squeue", "-h", "-j", self.job, "-o", "%T %r %N") if self.job in slurm("squeue", "-h", "-o", "%A").split() else ""

    def await_saved(self, beyond=0):
        """Until a checkpoint later than `beyond` is there; returns its step."""
        self.await_that(lambda: self.newest() > beyond)
        return self.newest()

    def newest(self):
        return max((int(path.stem.removeprefix("step-")) for path in (self.folder / "checkpoints").glob("step-*.pt")), default=0)

    def await_end(self, seconds=240):
        self.await_that(lambda: not self.queue() or self.queue().startswith(("COMPLETED", "FAILED", "CANCELLED")), seconds)
        return self.log()

    def weights(self):
        state = torch.load(self.folder / "checkpoints" / f"step-{self.steps:08d}.pt", weights_only=True)["model"]
        return torch.cat([tensor.double().flatten() for tensor in state.values()])

    def lines(self):
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def attempts(self):
        found = {line["began"]: line for line in map(json.loads, (self.folder / "attempts.jsonl").read_text().splitlines())}
        return list(found.values())

    def processes(self, rank):
        """The process of a rank, by what SLURM told it."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = dict(pair.split("=", 1) for pair in (folder / "environ").read_text().split("\0") if "=" in pair)
                words = (folder / "cmdline").read_text().split("\0")
            except OSError:
                continue
            if (
                variables.get("SLURM_JOB_ID") == self.job
                and variables.get("SLURM_PROCID") == str(rank)
                and "submitit.core._submit" in words
            ):
                found.append(int(folder.name))
        return sorted(found)


@pytest.fixture(scope="module")
def whole(packed, tmp_path_factory):
    """A run on two nodes that nothing happened to."""
    run = Run(packed, tmp_path_factory.mktemp("whole") / "run")
    run.await_end()
    return run


def check_equal(run, whole):
    assert [line["step"] for line in run.lines()] == list(range(1, run.steps + 1))
    assert [line["loss"] for line in run.lines()] == [line["loss"] for line in whole.lines()]
    assert torch.equal(run.weights(), whole.weights())


def test_two_nodes_train_to_the_end_and_hold_equal_weights(whole):
    assert "2 x cpu on n1, n2" in whole.log()
    assert f"code {whole.folder}/snapshots/001/code" in whole.log()
    assert "rank 0 of 2 on n1, cpu" in whole.log(0)
    assert "rank 1 of 2 on n2, cpu" in whole.log(1)
    digests = {line.split()[-1] for rank in (0, 1) for line in whole.log(rank).splitlines() if ": weights " in line}
    assert len(digests) == 1
    assert [line["step"] for line in whole.lines()] == list(range(1, STEPS + 1))
    assert [attempt["left"] for attempt in whole.attempts()] == ["finished"]
    for words in (f"submitted {whole.job}", f"{whole.job}_0_log.out", "tensorboard --logdir", f"scancel {whole.job}"):
        assert words in whole.told
    assert (whole.folder / "snapshots/001/git.txt").read_text()
    assert "torch==" in (whole.folder / "snapshots/001/environment.txt").read_text()


def test_told_to_leave_by_a_time_limit_a_preemption_or_a_requeue_it_loses_and_repeats_nothing(packed, whole, tmp_path):
    run = Run(packed, tmp_path / "run")
    saved = run.await_saved()
    slurm("scancel", "--signal=USR2", run.job)  # as SLURM does before the time limit; its own clock counts in minutes
    saved = run.await_saved(saved)
    slurm("sbatch", "-p", "high", "-N2", "--exclusive", "-J", "urgent", "-o", "/dev/null", "--wrap", "sleep 5")
    saved = run.await_saved(saved)
    slurm("scontrol", "requeue", run.job)
    run.await_end()
    check_equal(run, whole)
    assert [attempt["left"] for attempt in run.attempts()] == ["told to leave"] * 3 + ["finished"]


def test_a_killed_rank_brings_the_job_back(packed, whole, tmp_path):
    run = Run(packed, tmp_path / "run")
    run.await_saved()
    os.kill(run.processes(1)[0], signal.SIGKILL)
    run.await_end()
    assert "lost rank 1 on n2" in run.log()
    check_equal(run, whole)
    assert [attempt["left"] for attempt in run.attempts()] == ["", "finished"]


def test_a_hanging_rank_is_named_and_ended(packed, whole, tmp_path):
    run = Run(packed, tmp_path / "run", "--patience.stall-seconds", 10)
    run.await_saved()
    begun = time.monotonic()
    os.kill(run.processes(1)[0], signal.SIGSTOP)
    run.await_that(lambda: "lost rank 1 on n2: ended, or no answer for 10 s" in run.log(), 40)
    assert time.monotonic() - begun < 30
    run.await_end()
    check_equal(run, whole)
