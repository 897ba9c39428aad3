"""The shell lines behind a job's command, run by bash with stand-ins for SLURM's commands that
write down how they were called."""

import os
import subprocess

import pytest

from slurm import tasks
from slurm.rendezvous import PORTS, rendezvous_port
from slurm.tasks import DistributedTask, Task, requeue_lines, start_lines


def run_job(tmp_path, code, state="RUNNING", over=False, command="(exit $CODE)"):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, lines in (
        ("squeue", f"echo {state}"),
        ("scontrol", f'echo "$@" >> {tmp_path}/called'),
        ("sleep", "true"),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{lines}\n")
        (tools / name).chmod(0o755)
    if over:
        (tmp_path / "7.over").touch()
    script = "\n".join([command, *requeue_lines(tmp_path)])
    variables = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "CODE": str(code),
    }
    done = subprocess.run(["bash", "-c", script], env=variables, check=False)
    called = tmp_path / "called"
    return done.returncode, called.read_text() if called.exists() else ""


@pytest.mark.parametrize("code", [1, 75, 137, 143])
def test_a_job_that_was_cut_goes_back_into_the_queue(tmp_path, code):
    assert run_job(tmp_path, code) == (code, "requeue 7\n")


@pytest.mark.parametrize("code", [0, 2, 3, 137])
def test_one_that_said_it_is_over_does_not(tmp_path, code):
    assert run_job(tmp_path, code, over=True) == (code, "")


def test_what_an_earlier_try_said_of_its_end_does_not_count(tmp_path):
    command = "\n".join([*start_lines(tmp_path), "(exit 1)"])
    assert run_job(tmp_path, 1, over=True, command=command) == (1, "requeue 7\n")


def test_a_process_that_starts_when_another_has_said_it_is_over_leaves_that_said(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("SUBMITIT_FOLDER", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(tasks, "distributed_variables", dict)
    monkeypatch.setattr(tasks.signal, "signal", lambda *_: None)
    (tmp_path / "7.over").touch()
    DistributedTask(Task("gc:enable", {}))()
    assert (tmp_path / "7.over").exists()


def test_one_that_was_cancelled_stays_away(tmp_path):
    assert run_job(tmp_path, 143, state="COMPLETING") == (143, "")


def test_a_restarted_job_meets_at_another_port():
    assert rendezvous_port("12", "0") != rendezvous_port("12", "1")
    assert all(rendezvous_port(str(job), "3") in PORTS for job in (1, 10**7, 10**9))
