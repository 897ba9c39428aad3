"""`shard.py --jobs` on a real SLURM."""

import subprocess

import pytest

from shards.files import sha256_of

pytestmark = pytest.mark.usefixtures("cluster")
JOB = ("--fps", 25, "--segment", 4, "--cluster.cpus", 1, "--cluster.memory-gb", 1)


def test_an_array_of_jobs_packs_the_bytes_of_one(command, tree, packed, tmp_path):
    source = tree / "JPEGImages" / "480p"
    done = command(
        "shard", "--source", source, "--out", tmp_path / "out", *JOB, "--jobs", 2, "--follow"
    )
    assert done.returncode == 0, done.stderr
    for path in packed.iterdir():
        assert sha256_of(tmp_path / "out" / path.name) == sha256_of(path)


def test_slurms_own_reason_is_told_and_nothing_is_left_in_the_queue(command, tree, tmp_path):
    source = tree / "JPEGImages" / "480p"
    done = command(
        "shard",
        "--source",
        source,
        "--out",
        tmp_path / "out",
        *JOB,
        "--jobs",
        2,
        "--cluster.partition",
        "nowhere",
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "shard.py: error: SLURM refused the job: invalid partition specified: nowhere"
    )
    assert (
        "corrflow-pack"
        not in subprocess.run(
            ["squeue", "-ho", "%j"], capture_output=True, text=True, check=True
        ).stdout
    )
