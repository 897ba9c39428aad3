"""`shard.py --jobs` on a real SLURM cluster."""

import subprocess

import pytest

from shards.files import sha256_of

pytestmark = pytest.mark.usefixtures("cluster")
JOB = ("--fps", 25, "--segment", 4, "--cluster.cpus", 1, "--cluster.memory-gb", 1)


def test_an_array_of_jobs_packs_the_same_bytes_as_one_process(command, tree, packed, tmp_path):
    source = tree / "JPEGImages" / "480p"
    done = command(
        "shard", "--source", source, "--out", tmp_path / "out", *JOB, "--jobs", 2, "--follow"
    )
    assert done.returncode == 0, done.stderr
    for path in packed.iterdir():
        assert sha256_of(tmp_path / "out" / path.name) == sha256_of(path)


def test_slurms_reason_for_a_refusal_is_shown_and_no_job_stays_queued(command, tree, tmp_path):
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
