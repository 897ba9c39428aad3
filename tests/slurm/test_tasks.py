"""The shell lines before and after a job's command. Bash runs them with stand-ins for SLURM's
commands, which log their arguments."""

import os
import subprocess

import pytest

from slurm import tasks
from slurm.rendezvous import PORTS, rendezvous_port
from slurm.tasks import DistributedTask, Task, requeue_lines, start_lines


def run_job(tmp_path, code, state="RUNNING", is_done=False, command="(exit $CODE)"):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, lines in (
        ("squeue", f"echo {state}"),
        ("scontrol", f'echo "$@" >> {tmp_path}/called'),
        ("sleep", "true"),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{lines}\n")
        (tools / name).chmod(0o755)
    if is_done:
        (tmp_path / "7.done").touch()
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
def test_a_job_that_is_not_done_is_requeued(tmp_path, code):
    assert run_job(tmp_path, code) == (code, "requeue 7\n")


@pytest.mark.parametrize("code", [0, 2, 3, 137])
def test_a_job_that_is_done_is_not_requeued(tmp_path, code):
    assert run_job(tmp_path, code, is_done=True) == (code, "")


def test_the_done_file_of_an_earlier_attempt_is_removed_at_the_start(tmp_path):
    command = "\n".join([*start_lines(tmp_path), "(exit 1)"])
    assert run_job(tmp_path, 1, is_done=True, command=command) == (1, "requeue 7\n")


def test_a_process_that_starts_late_does_not_remove_the_jobs_done_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBMITIT_FOLDER", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(tasks, "distributed_variables", dict)
    monkeypatch.setattr(tasks.signal, "signal", lambda *_: None)
    (tmp_path / "7.done").touch()
    DistributedTask(Task("gc:enable", {}))()
    assert (tmp_path / "7.done").exists()


def test_a_cancelled_job_is_not_requeued(tmp_path):
    assert run_job(tmp_path, 143, state="COMPLETING") == (143, "")


def test_a_restarted_job_uses_another_rendezvous_port():
    assert rendezvous_port("12", "0") != rendezvous_port("12", "1")
    assert all(rendezvous_port(str(job), "3") in PORTS for job in (1, 10**7, 10**9))
