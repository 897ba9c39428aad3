"""`train.py --nodes` on a real SLURM cluster: jobs are interrupted in the ways that happen on
clusters, and must end with the same weights as an uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TIMEOUT_SECONDS, TINY

pytestmark = pytest.mark.usefixtures("cluster")
STEPS = 240
JOB = (
    "--gpus-per-node",
    1,
    "--cluster.cpus",
    1,
    "--cluster.memory-gb",
    2,
    "--cluster.minutes",
    20,
    "--timeouts.join-seconds",
    60,
)


def slurm(*words):
    return subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=True, timeout=TIMEOUT_SECONDS
    ).stdout.strip()


class Run:
    """A training run that is submitted to the cluster."""

    def __init__(self, data, folder, *flags, nodes=2, steps=STEPS):
        self.folder, self.steps = folder, steps
        shape = (
            "--trainer.steps",
            steps,
            "--trainer.save-every",
            10,
            "--trainer.log-every",
            5,
            "--stream.workers",
            1,
        )
        line = [
            sys.executable,
            ROOT / "launch/train.py",
            "--data",
            data,
            "--run",
            folder,
            *TINY,
            *JOB,
            *shape,
            "--nodes",
            nodes,
            *flags,
        ]
        done = subprocess.run(
            list(map(str, line)),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self.output = done.stdout
        self.job = json.loads((folder / "job.json").read_text())["job"]

    def log(self, rank=0):
        path = self.folder / "logs" / f"{self.job}_{rank}_log.out"
        return path.read_text() if path.exists() else ""

    def wait_until(self, condition, seconds=TIMEOUT_SECONDS):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (
                f"{self.queue()}\n{self.log()[-3000:]}\n{self.log(1)[-3000:]}"
            )
            time.sleep(0.2)

    def queue(self):
        return (
            slurm("squeue", "-h", "-j", self.job, "-o", "%T %r %N")
            if self.job in slurm("squeue", "-h", "-o", "%A").split()
            else ""
        )

    def wait_until_saved(self, attempt=1):
        """Wait until the attempt with this number, from 1, has saved a checkpoint."""
        self.wait_until(
            lambda: (
                len(self.attempts()) == attempt and self.newest_step() > self.attempts()[-1]["step"]
            )
        )

    def newest_step(self):
        return max(
            (
                int(path.stem.removeprefix("step-"))
                for path in (self.folder / "checkpoints").glob("step-*.pt")
            ),
            default=0,
        )

    def wait_until_ended(self, seconds=TIMEOUT_SECONDS):
        self.wait_until(
            lambda: (
                not self.queue() or self.queue().startswith(("COMPLETED", "FAILED", "CANCELLED"))
            ),
            seconds,
        )
        return self.log()

    def weights(self):
        state = torch.load(
            self.folder / "checkpoints" / f"step-{self.steps:08d}.pt", weights_only=True
        )["model"]
        return torch.cat([tensor.double().flatten() for tensor in state.values()])

    def metrics(self):
        return [
            json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()
        ]

    def attempts(self):
        path = self.folder / "attempts.jsonl"
        lines = map(json.loads, path.read_text().splitlines() if path.exists() else [])
        return list({line["began"]: line for line in lines}.values())

    def processes(self, rank):
        """The processes of a rank, found by the environment variables that SLURM sets."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = dict(
                    pair.split("=", 1)
                    for pair in (folder / "environ").read_text().split("\0")
                    if "=" in pair
                )
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
def uninterrupted(cluster, packed, tmp_path_factory):
    """A finished run on two nodes that was not interrupted."""
    run = Run(packed, tmp_path_factory.mktemp("whole") / "run")
    run.wait_until_ended()
    return run


def daemon(name, *words):
    """A daemon's process id, its command line and its environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text().rstrip("\0").split("\0")
            variables = dict(
                pair.split("=", 1)
                for pair in (folder / "environ").read_text().split("\0")
                if "=" in pair
            )
        except OSError:
            continue
        if Path(command[0]).name == name and tuple(command[1:]) == words:
            return int(folder.name), command, variables
    raise AssertionError(f"no {name} {words}")


def parent_of(process):
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def assert_equal_training(run, uninterrupted):
    assert [line["step"] for line in run.metrics()] == list(range(1, run.steps + 1))
    assert [line["loss"] for line in run.metrics()] == [
        line["loss"] for line in uninterrupted.metrics()
    ]
    assert torch.equal(run.weights(), uninterrupted.weights())


def test_two_nodes_train_to_the_end_and_have_equal_weights(uninterrupted):
    assert "2 x cpu on n1, n2" in uninterrupted.log()
    assert f"code {uninterrupted.folder}/snapshots/001/code" in uninterrupted.log()
    assert "rank 0 of 2 on n1, cpu" in uninterrupted.log(0)
    assert "rank 1 of 2 on n2, cpu" in uninterrupted.log(1)
    digests = {
        line.split()[-1]
        for rank in (0, 1)
        for line in uninterrupted.log(rank).splitlines()
        if ": weights " in line
    }
    assert len(digests) == 1
    assert [line["step"] for line in uninterrupted.metrics()] == list(range(1, STEPS + 1))
    assert [attempt["outcome"] for attempt in uninterrupted.attempts()] == ["finished"]
    for words in (
        f"submitted {uninterrupted.job}",
        f"{uninterrupted.job}_0_log.out",
        "tensorboard --logdir",
        f"scancel {uninterrupted.job}",
    ):
        assert words in uninterrupted.output
    assert (uninterrupted.folder / "snapshots/001/git.txt").read_text()
    assert "torch==" in (uninterrupted.folder / "snapshots/001/environment.txt").read_text()


def test_a_job_that_is_told_to_stop_loses_and_repeats_no_step(packed, uninterrupted, tmp_path):
    run = Run(packed, tmp_path / "run")
    run.wait_until_saved()
    # the signal that SLURM sends before a time limit, which would be at least a minute
    slurm("scancel", "--signal=USR2", run.job)
    run.wait_until_saved(attempt=2)
    slurm(
        "sbatch",
        "-p",
        "high",
        "-N2",
        "--exclusive",
        "-J",
        "urgent",
        "-o",
        "/dev/null",
        "--wrap",
        "sleep 5",
    )
    run.wait_until_saved(attempt=3)
    slurm("scontrol", "requeue", run.job)
    run.wait_until_ended()
    assert_equal_training(run, uninterrupted)
    assert [attempt["outcome"] for attempt in run.attempts()] == ["stopped by a signal"] * 3 + [
        "finished"
    ]


def test_a_job_with_a_killed_rank_is_requeued(packed, uninterrupted, tmp_path):
    run = Run(packed, tmp_path / "run")
    run.wait_until_saved()
    os.kill(run.processes(1)[0], signal.SIGKILL)
    run.wait_until_ended()
    assert "lost rank 1 on n2" in run.log()
    assert_equal_training(run, uninterrupted)
    assert [attempt["outcome"] for attempt in run.attempts()] == ["", "finished"]


def test_a_hanging_rank_is_named_and_its_job_is_requeued(packed, uninterrupted, tmp_path):
    run = Run(packed, tmp_path / "run", "--timeouts.stall-seconds", 10)
    run.wait_until_saved()
    begun = time.monotonic()
    os.kill(run.processes(1)[0], signal.SIGSTOP)
    run.wait_until(lambda: "lost rank 1 on n2: ended, or no answer for 10 s" in run.log(), 40)
    assert time.monotonic() - begun < 30
    run.wait_until_ended()
    assert_equal_training(run, uninterrupted)


def test_training_survives_a_killed_controller_and_a_lost_node(packed, uninterrupted, tmp_path):
    run = Run(packed, tmp_path / "run")
    run.wait_until_saved()
    controller, command, variables = daemon("slurmctld")
    os.kill(controller, signal.SIGKILL)
    saved = run.newest_step()
    run.wait_until(lambda: run.newest_step() > saved)  # training goes on without a controller
    subprocess.run(command, env=variables, check=True, timeout=TIMEOUT_SECONDS)
    slurmd, command, variables = daemon("slurmd", "-N", "n2")
    rank = run.processes(1)
    for process in (slurmd, parent_of(rank[0]), *rank):
        os.kill(process, signal.SIGKILL)
    run.wait_until(lambda: "lost rank 1 on n2" in run.log())
    subprocess.run(command, env=variables, check=True, timeout=TIMEOUT_SECONDS)  # the node is back
    run.wait_until_ended()
    assert_equal_training(run, uninterrupted)
    assert [attempt["outcome"] for attempt in run.attempts()] == ["", "finished"]


def test_a_cancelled_run_is_not_requeued_and_resumes_on_other_nodes(
    packed, uninterrupted, tmp_path
):
    """One process that takes its clips in two parts computes the same as two processes, except for
    the order of sums and for the averages of BatchNorm."""
    for attempt, (nodes, *flags) in enumerate(
        ((2,), (1, "--procs", 2), (1, "--trainer.accumulate", 2)), 1
    ):
        run = Run(packed, tmp_path / "run", *flags, nodes=nodes)
        run.wait_until_saved(attempt)
        slurm("scancel", run.job)
        run.wait_until_ended()
        assert slurm("sacct", "-nX", "-j", run.job, "-o", "State").startswith("CANCELLED")
        if attempt < 3:
            done = run.metrics()
            assert [line["loss"] for line in done] == [
                line["loss"] for line in uninterrupted.metrics()[: len(done)]
            ]
    run = Run(packed, tmp_path / "run", nodes=2)
    run.wait_until_ended()
    assert [line["step"] for line in run.metrics()] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in run.metrics()] == pytest.approx(
        [line["loss"] for line in uninterrupted.metrics()], rel=1e-4
    )
    assert [(len(attempt["nodes"]), attempt["world"]) for attempt in run.attempts()] == [
        (2, 2),
        (1, 2),
        (1, 1),
        (2, 2),
    ]


def test_a_process_that_does_not_join_is_named_and_the_job_is_requeued(
    packed, uninterrupted, tmp_path
):
    fault = tmp_path / "fault" / "sitecustomize.py"  # Python imports it at startup
    fault.parent.mkdir()
    fault.write_text(
        'import os, time\nif os.environ.get("SLURM_PROCID") == "1":\n    time.sleep(1e6)\n'
    )
    run = Run(
        packed,
        tmp_path / "run",
        "--cluster.environment",
        "PYTHONPATH",
        fault.parent,
        "--timeouts.join-seconds",
        5,
    )
    run.wait_until(lambda: "rank 1 of 2 did not join within 5 s; the others are on n1" in run.log())
    fault.unlink()
    run.wait_until_ended()
    assert_equal_training(run, uninterrupted)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--cluster.partition", "nowhere"), "invalid partition specified: nowhere"),
        (("--nodes", 4), "Requested node configuration is not available"),
        (("--gpus-per-node", 3), "Requested node configuration is not available"),
    ],
)
def test_a_refused_job_is_reported_in_slurms_words(packed, command, tmp_path, flags, words):
    done = command(
        "train", "--data", packed, "--run", tmp_path / "run", *TINY, *JOB, "--nodes", 2, *flags
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("train.py: error: SLURM refused the job: ")
    assert words in last
    assert slurm("squeue", "-h", "-n", "corrflow-run") == ""
    assert not list((tmp_path / "run/snapshots").iterdir())


def test_a_run_with_a_job_is_not_submitted_again_and_status_shows_the_job(
    packed, command, tmp_path
):
    # so many steps that it still runs when it is cancelled
    flags, steps = (
        ("--cluster.nodelist", "n1,n2", "--cluster.qos", ""),
        100 * STEPS,
    )
    run = Run(packed, tmp_path / "run", *flags, steps=steps)
    again = command(
        "train",
        "--data",
        packed,
        "--run",
        run.folder,
        *TINY,
        *JOB,
        "--nodes",
        2,
        "--trainer.steps",
        steps,
    )
    assert again.returncode == 2
    assert f"job {run.job} has it" in again.stderr
    run.wait_until_saved()
    output = command("status", run.folder).stdout
    job = f"job         {run.job}: RUNNING on n[1-2], since"
    for words in (job, "attempts    1: killed or running", "checkpoint  step-00000", "clips/s"):
        assert words in output
    slurm("scancel", run.job)
    run.wait_until_ended()
    assert "CANCELLED" in command("status", "--all", tmp_path).stdout
