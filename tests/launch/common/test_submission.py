"""Tests `train.py --nodes` without a cluster. `sbatch` is a stand-in that must not be called."""

import json
from dataclasses import asdict

import pytest
from conftest import TINY
from holding import holder

from launch import train
from launch.common import run_config, submission
from launch.common.command import take_cluster
from slurm import status
from slurm.status import JobState

JOB = ("--nodes", 2, "--gpus-per-node", 2)


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """SLURM commands that fail, so that nothing is submitted, except for `scontrol`."""
    for name in ("sbatch", "srun", "squeue", "sacct", "scontrol"):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {int(name != 'scontrol')}\n")
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
    monkeypatch.setenv("CORRFLOW_CLUSTER", "")  # undoes what --cluster sets
    assert train.main(take_cluster(argv)) == 0
    assert not (tmp_path / "run").exists()
    return capsys.readouterr().out.splitlines()


def test_a_dry_run_prints_the_script_and_writes_nothing(
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
    ended = f'rm -f "{tmp_path / "run/logs"}/$SLURM_JOB_ID.done"'
    assert lines.index(ended) < next(
        number for number, line in enumerate(lines) if line.startswith("srun ")
    )


def test_a_profile_provides_the_settings_that_no_flag_gives(
    packed, sbatch, capsys, monkeypatch, tmp_path
):
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


def test_a_job_accepts_flags_that_are_valid_only_with_the_profile(
    packed, sbatch, tmp_path, monkeypatch
):
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


@pytest.fixture
def submitted_run(tmp_path):
    """The folder of a run that was submitted as job 58."""
    run = tmp_path / "run"
    run.mkdir()
    record = submission.Record("58", "", "", 1, 1, 0.0)
    (run / submission.RECORD).write_text(json.dumps(asdict(record)))
    return run


@pytest.mark.parametrize(
    ("squeue", "words"),
    [
        (
            "echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1",
            "job 58: SLURM does not say whether it still runs (asked squeue and sacct for 0 s: "
            "slurm_load_jobs error: Unable to contact): expected an answer (if it has "
            "ended: remove ",
        ),
        ("echo 'RUNNING|None|n1|N/A|0:02'", "job 58 has it (RUNNING): expected it to end first"),
    ],
)
def test_a_run_whose_job_may_still_run_is_not_started_again(
    packed, slurm_client, refused, submitted_run, monkeypatch, squeue, words
):
    slurm_client(scontrol="exit 0", squeue=squeue, sacct="exit 1")
    monkeypatch.setattr(status, "SILENCE_SECONDS", 0.0)
    flags = ("--data", packed, "--run", submitted_run, *TINY)
    assert words in refused("train", *flags, "--nodes", 2)
    assert words in refused("train", *flags)
    assert [path.name for path in submitted_run.iterdir()] == [submission.RECORD]


def test_a_run_that_is_training_locally_is_not_submitted(
    packed, slurm_client, refused, tmp_path, monkeypatch
):
    slurm_client(scontrol="exit 0")
    monkeypatch.setattr(run_config, "LOCK_SECONDS", 0.0)
    flags = ["--data", packed, "--run", tmp_path, *TINY, "--trainer.steps"]
    assert train.main([str(flag) for flag in (*flags, 2)]) == 0
    before = {path: path.read_bytes() for path in tmp_path.glob("*.json*")}
    with holder(tmp_path, "run_lock"):
        message = refused("train", *flags, 9, "--nodes", 2)
    assert "is training there: expected one at a time" in message
    assert {path: path.read_bytes() for path in tmp_path.glob("*.json*")} == before
    assert not (tmp_path / "snapshots").exists()


def test_a_briefly_silent_controller_does_not_end_following_a_job(tmp_path, monkeypatch):
    states = iter(["RUNNING", "NO ANSWER", "RUNNING", "RUNNING", "RUNNING"])
    monkeypatch.setattr(status, "job_state", lambda _: JobState(next(states, "COMPLETED")))
    for module in (status, submission):
        monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
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
def test_invalid_flags_are_refused_before_anything_is_written(
    packed, sbatch, refused, tmp_path, flags, words
):
    assert words in refused("train", "--data", packed, "--run", tmp_path / "run", *TINY, *flags)
    assert not (tmp_path / "run").exists()


def test_missing_slurm_is_reported(packed, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(submission, "has_slurm", lambda: False)
    line = refused("train", "--data", packed, "--run", tmp_path / "run", *TINY, "--nodes", 2)
    assert (
        "nodes 2: no sbatch on this machine: expected a SLURM cluster (here: without --nodes, with "
        "--procs N)" in line
    )


def test_a_silent_cluster_is_reported_in_one_line(packed, silent_slurm, refused, tmp_path):
    line = refused("train", "--data", packed, "--run", tmp_path / "run", *TINY, "--nodes", 2)
    assert (
        "nodes 2: no SLURM cluster answers (tried scontrol ping, sinfo -h: sinfo: fatal: " in line
    )
    assert "to train here: without --nodes, with --procs N" in line
    assert not (tmp_path / "run").exists()


def test_a_dry_run_does_not_contact_a_cluster(packed, silent_slurm, capsys, monkeypatch, tmp_path):
    assert "#SBATCH --nodes=2" in dry_run(packed, capsys, monkeypatch, tmp_path, "--device", "cuda")
