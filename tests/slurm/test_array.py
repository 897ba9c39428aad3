"""What the jobs of an array are given; `tests/cluster` has arrays on a real SLURM."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from slurm import array
from slurm.array import submit_array
from slurm.cluster import ClusterConfig
from slurm.tasks import Task


@pytest.mark.parametrize(("of_a_node", "of_a_job"), [(8, 1), (1, 1), (0, 0)])
def test_a_job_of_an_array_takes_one_gpu_and_not_a_whole_node(
    tmp_path, monkeypatch, of_a_node, of_a_job
):
    given = []

    def executor_of(logs, name, config, **more):
        given.append(config.gpus_per_node)
        job = SimpleNamespace(job_id="17_0")
        return SimpleNamespace(batch=nullcontext, submit=lambda task: job)

    monkeypatch.setattr(array, "executor_of", executor_of)
    monkeypatch.setattr(array, "check_possible", lambda executor: None)
    task = Task("gc:enable", {})
    config = ClusterConfig(gpus_per_node=of_a_node)
    assert submit_array([task, task], task, tmp_path, "pack", config).array == "17"
    assert given == [of_a_job, 0]
