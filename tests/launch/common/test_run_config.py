"""Tests the locks of folders: one command at a time works in a folder, until it ends or dies."""

import errno
import os
import socket

import pytest
from conftest import TINY
from holding import holder

from corrflow import InputError
from launch import eval as command_of_eval
from launch import train as command_of_train
from launch.common import run_config as claim
from launch.common.run_config import evaluation_lock, run_lock


def flags(tree, out, *more):
    given = ("--benchmark", "davis2017", "--root", tree, "--out", out, "--protocol", "identity")
    return [str(flag) for flag in (*given, "--device", "cpu", *more)]


def test_a_second_evaluation_in_a_folder_is_refused(refused, tree, tmp_path):
    out = tmp_path / "out"
    with holder(out) as process:
        message = refused("eval", *flags(tree, out))
        assert not (out / "plan.json").exists()
    owner = f"process {process.pid} on {socket.gethostname()}"
    assert message == f"eval.py: error: {out}: {owner} is evaluating there: expected one at a time"
    assert command_of_eval.main(flags(tree, out)) == 0


def test_a_killed_process_releases_its_lock(tree, tmp_path):
    with holder(tmp_path) as process:
        process.kill()
        process.wait()
        assert command_of_eval.main(flags(tree, tmp_path)) == 0


def test_evaluations_in_two_folders_can_run_at_the_same_time(tree, tmp_path):
    with holder(tmp_path / "one"):
        assert command_of_eval.main(flags(tree, tmp_path / "two")) == 0


def test_all_processes_of_one_command_work_in_its_folder(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(command_of_eval, "goes_to_slurm", lambda jobs, local: False)
    assert command_of_eval.main(flags(tree, tmp_path, "--jobs", 2)) == 0
    assert (tmp_path / "metrics.json").exists()


def test_a_file_system_without_locks_is_reported_and_used(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(claim.fcntl, "lockf", refuse)
    with evaluation_lock(tmp_path):
        message = capsys.readouterr().err
    words = (
        f"{tmp_path}: its file system has no locks (No locks available): start one command at a "
        "time\n"
    )
    assert message == words


def test_one_command_at_a_time_packs_into_a_folder_and_leaves_no_lock(
    command, refused, tree, tmp_path
):
    out = tmp_path / "out"
    flags = ("--source", tree / "JPEGImages/480p", "--out", out, "--fps", 25, "--procs", 1)
    with holder(out, "packing_lock") as process:
        message = refused("shard", *flags)
        owner = f"process {process.pid} on {socket.gethostname()}"
        assert (
            message == f"shard.py: error: {out}: {owner} is packing there: expected one at a time"
        )
        assert not (out / ".parts").exists()
    assert "packed 4 of 4 videos" in command("shard", *flags).stdout
    names = {path.name for path in out.iterdir() if path.suffix != ".tar"}
    assert names == {"manifest.json", "failures.csv", "too-short.csv"}
    assert "packed already: packed 4 of 4 videos" in command("shard", *flags).stdout
    assert command("shard", "verify", "--data", out).returncode == 0


def test_a_run_folder_is_locked_like_an_evaluation_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "LOCK_SECONDS", 0.0)
    with holder(tmp_path) as process:
        words = rf"run .*: process {process.pid} on .* is training there: expected one at a time"
        with pytest.raises(InputError, match=words), run_lock(tmp_path):
            pass
    with run_lock(tmp_path):
        pass


def test_a_refused_command_does_not_change_the_run_in_progress(
    packed, refused, tmp_path, monkeypatch
):
    monkeypatch.setattr(claim, "LOCK_SECONDS", 0.0)
    flags = ["--data", packed, "--run", tmp_path, *TINY, "--trainer.steps"]
    assert command_of_train.main([str(flag) for flag in (*flags, 2)]) == 0
    before = (tmp_path / "config.json").read_bytes()
    with holder(tmp_path, "packing_lock"):
        assert "is training there: expected one at a time" in refused("train", *flags, 9)
    assert (tmp_path / "config.json").read_bytes() == before


def test_an_impossible_folder_is_reported_in_one_line(refused, tree, tmp_path):
    (tmp_path / "file").write_text("")
    message = refused("eval", *flags(tree, tmp_path / "file"))
    assert message.endswith(f"{tmp_path / 'file'}: can't be written to (File exists)")
