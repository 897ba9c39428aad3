"""Tests packing by several jobs; `tests/cluster/test_cluster_pack.py` does on a real SLURM."""

import contextlib
import shutil
from types import SimpleNamespace

import pytest

from launch import shard
from launch.common import job_array
from shards.errors import DataError
from shards.files import sha256_of
from shards.packing.config import PackConfig
from shards.packing.pack import pack, prepare, read_plan, read_source
from slurm.array import Submitted

SMALL = PackConfig(fps=25.0, segment=4)


@pytest.fixture
def source(tree):
    return tree / "JPEGImages" / "480p"


def content(folder):
    return {path.name: sha256_of(path) for path in folder.iterdir() if path.is_file()}


def test_jobs_in_any_order_produce_the_bytes_of_one_process(source, packed, tmp_path):
    prepare(read_source(source, SMALL), tmp_path / "out")
    for number in (2, 0, 1):
        shard.pack_slice(str(tmp_path / "out"), number, 3, 1)
    shard.pack_end(str(tmp_path / "out"))
    assert content(tmp_path / "out") == content(packed)


def test_videos_of_a_missing_job_are_reported_and_packed_again(
    source, packed, tmp_path, monkeypatch
):
    plan = prepare(read_source(source, SMALL), tmp_path / "out")
    for number in (0, 2):
        shard.pack_slice(str(tmp_path / "out"), number, 3, 1)
    with pytest.raises(
        DataError,
        match=(
            r"1 of 4 units are not packed \(1 videos, from val-001 on\): the same command "
            r"resumes it"
        ),
    ):
        shard.pack_end(str(tmp_path / "out"))
    assert [unit.number for unit in read_plan(tmp_path / "out").units if not unit.report()] == [1]
    pack(source, tmp_path / "out", SMALL, processes=1)
    assert plan is not None
    assert content(tmp_path / "out") == content(packed)


def test_the_last_job_reports_that_too_many_broken_videos_ended_others(source, tmp_path):
    videos, out = shutil.copytree(source, tmp_path / "videos"), tmp_path / "out"
    shutil.rmtree(videos / "val-002")
    (videos / "val-002.mp4").write_bytes(b"not downloaded")
    prepare(read_source(videos, SMALL), out, max_failures=0)
    for number in (0, 1):
        with contextlib.suppress(DataError):
            shard.pack_slice(str(out), number, 2, 1)
    words = rf"units are not packed .*: more videos are broken .*: see {out}/failures.csv"
    with pytest.raises(DataError, match=words):
        shard.pack_end(str(out))
    (videos / "val-002.mp4").unlink()
    shutil.copytree(source / "val-002", videos / "val-002")
    prepare(read_source(videos, SMALL), out, max_failures=0)
    with pytest.raises(DataError, match=r"units are not packed .*: the same command resumes it"):
        shard.pack_end(str(out))


def test_packing_jobs_request_no_gpus(source, tmp_path, monkeypatch):
    requested = []

    def submit(tasks, last, logs, name, config):
        requested.append(config.gpus_per_node)
        return Submitted("17", SimpleNamespace(job_id="18"))

    monkeypatch.setattr(shard, "goes_to_slurm", lambda jobs, local: True)
    monkeypatch.setattr(job_array, "submit_array", submit)
    flags = ["--source", str(source), "--out", str(tmp_path / "out"), "--jobs", "2"]
    assert shard.main([*flags, "--cluster.gpus-per-node", "8"]) == 0
    assert requested == [0]


def test_a_job_without_a_plan_is_refused(tmp_path):
    with pytest.raises(DataError, match="no packing was begun there"):
        shard.pack_slice(str(tmp_path), 0, 1, 1)


def test_local_jobs_are_processes_even_if_slurm_is_installed(
    silent_slurm, source, packed, tmp_path
):
    flags = [
        "--source",
        str(source),
        "--out",
        str(tmp_path / "out"),
        "--fps",
        "25",
        "--segment",
        "4",
    ]
    assert shard.main([*flags, "--jobs", "2", "--local"]) == 0
    assert content(tmp_path / "out") == content(packed)


def test_a_silent_cluster_is_reported_in_one_line(silent_slurm, refused, source, tmp_path):
    message = refused("shard", "--source", source, "--out", tmp_path / "out", "--jobs", 2)
    assert "jobs 2: no SLURM cluster answers" in message
    assert "--local for processes here" in message
    assert not (tmp_path / "out").exists()


def test_jobs_are_local_processes_if_slurm_is_not_installed(
    source, packed, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(shard, "goes_to_slurm", lambda jobs, local: False)
    flags = [
        "--source",
        str(source),
        "--out",
        str(tmp_path / "out"),
        "--fps",
        "25",
        "--segment",
        "4",
        "--jobs",
        "2",
    ]
    assert shard.main(flags) == 0
    assert "packed 4 of 4 videos" in capsys.readouterr().out
    assert content(tmp_path / "out") == content(packed)
    assert shard.main(flags) == 0
    assert "packed already: packed 4 of 4 videos" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--jobs", -1), "jobs -1"),
        (("--local",), "local: expected --jobs N with it"),
        (("--follow",), "follow: expected --jobs N with it"),
        (("--max-failures", 101), "shard: max_failures 101.0: expected 0 to 100"),
        (("--strict", "--max-failures", 5), "expected one of them"),
        (("--every", -1), "pack: every -1: expected 0 or more"),
    ],
)
def test_invalid_flags_are_refused(refused, source, tmp_path, flags, words):
    assert words in refused("shard", "--source", source, "--out", tmp_path / "out", *flags)


def test_strict_ends_with_the_first_broken_video(refused, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.mp4").write_text("no video")
    message = refused("shard", "--source", tmp_path / "in", "--out", tmp_path / "out", "--strict")
    assert "1 of 1 videos are broken, more than the 0" in message
    assert "text: Invalid data" in message


def test_a_full_disk_is_reported_in_one_line(command, source, tmp_path):
    """A limit on the size of files stands in for a full disk: the write fails at the same point."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limit[1]))
    try:
        done = command(
            "shard", "--source", source, "--out", tmp_path / "out", "--fps", 25, "--procs", 2
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    last = done.stderr.strip().splitlines()[-1]
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert last.endswith("File too large")
    assert str(tmp_path / "out") in last


def test_an_unwritable_folder_is_reported_in_one_line(refused, source):
    assert "/proc/nowhere: can't be written to" in refused(
        "shard", "--source", source, "--out", "/proc/nowhere"
    )
