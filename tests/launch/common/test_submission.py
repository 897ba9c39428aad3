"""`train.py --nodes` as far as it goes without a cluster: `sbatch` is a stand-in that must not be
called."""

import pytest
from conftest import TINY

from launch import train
from launch.common import submission
from launch.common.command import take_cluster
from slurm.status import JobState

JOB = ("--nodes", 2, "--gpus-per-node", 2)


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """A folder of commands that fail, so that nothing is submitted."""
    for name in ("sbatch", "srun", "squeue", "sacct"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def dry_run(packed, capsys, monkeypatch, tmp_path, *flags):
    argv = [
        "--data",
        str(packed),
        "--run",
        str(tmp_path / "run"),
        *TINY,
        *map(str, (*JOB, "--dry-run", *flags)),
    ]
    monkeypatch.setenv("CORRFLOW_CLUSTER", "")  # and not what --cluster leaves there
    assert train.main(take_cluster(argv)) == 0
    assert not (tmp_path / "run").exists()
    return capsys.readouterr().out.splitlines()


def test_a_dry_run_prints_the_script_and_leaves_nothing(
    packed, sbatch, capsys, monkeypatch, tmp_path
):
    lines = dry_run(
        packed,
        capsys,
        monkeypatch,
        tmp_path,
        "--device",
        "cuda",
        "--cluster.partition",
        "gpu",
        "--cluster.cpus",
        6,
    )
    for line in (
        "nodes=2",
        "ntasks-per-node=2",
        "gpus-per-node=2",
        "partition=gpu",
        "requeue",
        "signal=USR2@120",
        "mem=16384M",
    ):
        assert f"#SBATCH --{line}" in lines
    assert any(
        line.startswith("srun ") and "--cpus-per-task=6" in line and "--kill-on-bad-exit=1" in line
        for line in lines
    )
    assert any("scontrol requeue" in line for line in lines)
    assert "export PYTHONSAFEPATH=1" in lines
    ended = f'rm -f "{tmp_path / "run/logs"}/$SLURM_JOB_ID.over"'
    assert lines.index(ended) < next(
        number for number, line in enumerate(lines) if line.startswith("srun ")
    )


def test_a_profile_gives_what_flags_do_not(packed, sbatch, capsys, monkeypatch, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'partition = "big"\naccount = "us"\ngpu_form = "gres"\ngpu_type = "h100"\nsetup = ["module '
        'load x"]\n'
    )
    lines = dry_run(
        packed,
        capsys,
        monkeypatch,
        tmp_path,
        "--device",
        "cuda",
        "--cluster",
        path,
        "--cluster.account",
        "them",
    )
    for line in ("partition=big", "account=them", "gres=gpu:h100:2"):
        assert f"#SBATCH --{line}" in lines
    assert lines.index("module load x") < next(
        number for number, line in enumerate(lines) if line.startswith("srun ")
    )


def test_a_job_understands_flags_that_fit_the_profile_alone(packed, sbatch, tmp_path, monkeypatch):
    profile, tasks = tmp_path / "debug.toml", []
    profile.write_text("signal_lead = 30\n")
    monkeypatch.setattr(submission, "submit_distributed", lambda _, task: tasks.append(task) or "7")
    flags = ("--data", packed, "--run", tmp_path / "run", *TINY, "--device", "cpu", "--nodes", 2)
    chosen = ("--cluster", profile, "--cluster.minutes", 2)
    monkeypatch.setenv("CORRFLOW_CLUSTER", "")
    assert train.main(take_cluster([str(flag) for flag in (*flags, *chosen)])) == 0
    monkeypatch.delenv("CORRFLOW_CLUSTER")
    cluster = train.read_flags(tasks[0].task.arguments["argv"]).cluster
    assert (cluster.minutes, cluster.signal_lead) == (2, 30)


def test_a_controller_that_is_silent_for_a_moment_ends_no_following(tmp_path, monkeypatch):
    states = iter(["RUNNING", "UNKNOWN", "RUNNING", "RUNNING", "RUNNING"])
    monkeypatch.setattr(submission, "job_state", lambda _: JobState(next(states, "COMPLETED")))
    monkeypatch.setattr(submission, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(submission, "LAG_SECONDS", 1.0)
    record = submission.Record("58", "", "", 1, 1, 0.0)
    assert submission.follow(tmp_path, record) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--nodes", 2, "--gpus-per-node", 0, "--device", "cuda"),
            "gpus-per-node 0: expected at least 1",
        ),
        (
            ("--nodes", 2, "--gpus-per-node", 2, "--procs", 3, "--device", "cuda"),
            "procs 3: expected 2, one for each GPU",
        ),
        (("--nodes", 3, "--procs", 1), "a global batch of 4 clips can't be divided by 3 processes"),
        (("--nodes", -1), "nodes -1"),
        (("--follow",), "train: follow: expected --nodes N with it"),
        (("--dry-run",), "train: dry-run: expected --nodes N with it"),
        (("--gpus-per-node", 4), "train: gpus-per-node: expected --nodes N with it"),
        (("--nodes", 2, "--cluster", "nowhere"), "cluster 'nowhere'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    packed, sbatch, refused, tmp_path, flags, words
):
    assert words in refused("train", "--data", packed, "--run", tmp_path / "run", *TINY, *flags)
    assert not (tmp_path / "run").exists()


def test_without_slurm_it_says_what_is_missing(packed, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(submission, "has_slurm", lambda: False)
    line = refused("train", "--data", packed, "--run", tmp_path / "run", *TINY, "--nodes", 2)
    assert (
        "nodes 2: no sbatch on this machine: expected a SLURM cluster (here: without --nodes, with "
        "--procs N)" in line
    )


def test_a_cluster_that_does_not_answer_is_one_line(packed, silent_slurm, refused, tmp_path):
    line = refused("train", "--data", packed, "--run", tmp_path / "run", *TINY, "--nodes", 2)
    assert (
        "nodes 2: no SLURM cluster answers (tried scontrol ping, sinfo -h: sinfo: fatal: " in line
    )
    assert "to train here: without --nodes, with --procs N" in line
    assert not (tmp_path / "run").exists()


def test_a_dry_run_asks_no_cluster(packed, silent_slurm, capsys, monkeypatch, tmp_path):
    assert "#SBATCH --nodes=2" in dry_run(packed, capsys, monkeypatch, tmp_path, "--device", "cuda")
