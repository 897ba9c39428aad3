"""Tests that a SLURM job array blocks its folder for other commands until it has ended."""

from types import SimpleNamespace

import pytest
from test_run_config import flags as evaluating
from test_track import SQUARE, checkpoint, write_labelme, write_video

from launch import eval as command_of_eval
from launch import shard, track
from launch.common import job_array
from launch.common.job_array import LOGS, RECORD, check_array_ended
from launch.tracking import track_folder
from slurm import ClusterError, status
from slurm.array import Submitted
from slurm.status import JobState

__all__ = ["checkpoint"]  # a fixture


@pytest.fixture
def commands(tree, tmp_path, checkpoint):
    """For each command that can submit an array: its module, its main function and its flags."""
    for folder in ("videos", "labels"):
        (tmp_path / folder).mkdir()
    write_video(tmp_path / "videos" / "run.mkv", count=3)
    write_labelme(tmp_path / "labels" / "run.json", [{"points": SQUARE}], "frame_000000.jpg")
    out = tmp_path / "out"
    packing = ("--source", tree / "JPEGImages/480p", "--fps", 25, "--segment", 4, "--procs", 1)
    tracking = ("--video", tmp_path / "videos", "--labels", tmp_path / "labels", "--size", 0)
    tracking += ("--checkpoint", checkpoint, "--device", "cpu")
    return {
        "eval": (command_of_eval, command_of_eval.main, evaluating(tree, out)),
        "shard": (shard, shard.main, [str(flag) for flag in (*packing, "--out", out)]),
        "track": (track_folder, track.main, [str(flag) for flag in (*tracking, "--out", out)]),
    }


@pytest.mark.parametrize("name", ["eval", "shard", "track"])
def test_a_submitted_array_blocks_its_folder_until_it_has_ended(
    commands, name, refused, tmp_path, monkeypatch, capfd
):
    module, main, flags = commands[name]
    states = {"18": JobState("PENDING")}
    monkeypatch.setattr(job_array, "has_slurm", lambda: True)
    monkeypatch.setattr(status, "job_state", lambda job: states[job])
    monkeypatch.setattr(module, "goes_to_slurm", lambda jobs, local: jobs > 0)
    submitted = Submitted("17", SimpleNamespace(job_id="18"))
    monkeypatch.setattr(job_array, "submit_array", lambda *_: submitted)
    assert main([*flags, "--jobs", "2"]) == 0
    assert "submitted 17_[0-1], and 18, which puts" in capfd.readouterr().out
    message = refused(name, *flags)
    words = "jobs 17 and 18 have this folder (PENDING): expected them to end first"
    assert message == f"{name}.py: error: {tmp_path / 'out'}: {words} (scancel 17 18)"
    states["18"] = JobState("CANCELLED")
    assert main(flags) == 0


@pytest.fixture
def array_folder(tmp_path):
    """The folder of an array that was submitted as jobs 17 and 18."""
    (tmp_path / LOGS).mkdir()
    (tmp_path / LOGS / RECORD).write_text('["17", "18"]')
    return tmp_path


def test_jobs_that_slurm_no_longer_knows_do_not_block_the_folder(array_folder, monkeypatch):
    monkeypatch.setattr(job_array, "has_slurm", lambda: True)
    monkeypatch.setattr(status, "job_state", lambda _: JobState("UNKNOWN"))
    check_array_ended(array_folder)


def test_jobs_block_the_folder_if_slurm_does_not_answer(slurm_client, array_folder, monkeypatch):
    slurm_client(squeue="echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1")
    monkeypatch.setattr(status, "SILENCE_SECONDS", 0.0)
    words = rf"SLURM does not say .* Unable to contact.*: expected an answer .*remove .*{RECORD}\)"
    with pytest.raises(ClusterError, match=words):
        check_array_ended(array_folder)


def test_jobs_do_not_block_the_folder_where_slurm_is_missing(array_folder, monkeypatch):
    monkeypatch.setenv("PATH", str(array_folder))
    check_array_ended(array_folder)
