"""Who works in a folder: one command at a time, until it ends, however it ends."""

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
    told = ("--benchmark", "davis2017", "--root", tree, "--out", out, "--protocol", "identity")
    return [str(flag) for flag in (*told, "--device", "cpu", *more)]


def test_a_second_evaluation_in_a_folder_is_told_of_the_first(refused, tree, tmp_path):
    out = tmp_path / "out"
    with holder(out) as process:
        told = refused("eval", *flags(tree, out))
        assert not (out / "plan.json").exists()
    place = f"process {process.pid} on {socket.gethostname()}"
    assert told == f"eval.py: error: {out}: {place} is evaluating there: expected one at a time"
    assert command_of_eval.main(flags(tree, out)) == 0


def test_a_holder_that_is_killed_is_in_nobodys_way(tree, tmp_path):
    with holder(tmp_path) as process:
        process.kill()
        process.wait()
        assert command_of_eval.main(flags(tree, tmp_path)) == 0


def test_folders_beside_each_other_are_evaluated_in_at_once(tree, tmp_path):
    with holder(tmp_path / "one"):
        assert command_of_eval.main(flags(tree, tmp_path / "two")) == 0


def test_processes_of_the_one_that_holds_the_folder_work_in_it_together(
    tree, tmp_path, monkeypatch
):
    monkeypatch.setattr(command_of_eval, "goes_to_slurm", lambda jobs, local: False)
    assert command_of_eval.main(flags(tree, tmp_path, "--jobs", 2)) == 0
    assert (tmp_path / "metrics.json").exists()


def test_a_file_system_without_locks_is_told_of_and_worked_on(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(claim.fcntl, "lockf", refuse)
    with evaluation_lock(tmp_path):
        told = capsys.readouterr().err
    words = (
        f"{tmp_path}: its file system has no locks (No locks available): start one command at a "
        "time\n"
    )
    assert told == words


def test_a_folder_is_packed_into_by_one_command_at_a_time_and_keeps_no_lock(
    command, refused, tree, tmp_path
):
    out = tmp_path / "out"
    flags = ("--source", tree / "JPEGImages/480p", "--out", out, "--fps", 25, "--procs", 1)
    with holder(out, "packing_lock") as process:
        told = refused("shard", *flags)
        place = f"process {process.pid} on {socket.gethostname()}"
        assert told == f"shard.py: error: {out}: {place} is packing there: expected one at a time"
        assert not (out / ".parts").exists()
    assert "packed 4 of 4 videos" in command("shard", *flags).stdout
    names = {path.name for path in out.iterdir() if path.suffix != ".tar"}
    assert names == {"manifest.json", "failures.csv", "too-short.csv"}
    assert "packed already: packed 4 of 4 videos" in command("shard", *flags).stdout
    assert command("shard", "verify", "--data", out).returncode == 0


def test_a_run_is_held_as_a_folder_of_an_evaluation_is(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "LOCK_SECONDS", 0.0)
    with holder(tmp_path) as process:
        words = rf"run .*: process {process.pid} on .* is training there: expected one at a time"
        with pytest.raises(InputError, match=words), run_lock(tmp_path):
            pass
    with run_lock(tmp_path):
        pass


def test_a_command_that_is_refused_changes_nothing_of_the_run_that_is_trained(
    packed, refused, tmp_path, monkeypatch
):
    monkeypatch.setattr(claim, "LOCK_SECONDS", 0.0)
    flags = ["--data", packed, "--run", tmp_path, *TINY, "--trainer.steps"]
    assert command_of_train.main([str(flag) for flag in (*flags, 2)]) == 0
    before = (tmp_path / "config.json").read_bytes()
    with holder(tmp_path, "packing_lock"):
        assert "is training there: expected one at a time" in refused("train", *flags, 9)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_folder_that_can_not_be_is_one_line(refused, tree, tmp_path):
    (tmp_path / "file").write_text("")
    told = refused("eval", *flags(tree, tmp_path / "file"))
    assert told.endswith(f"{tmp_path / 'file'}: can't be written to (File exists)")
