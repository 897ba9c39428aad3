"""The resources of an array's jobs; `tests/cluster` runs arrays on a real SLURM cluster."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from slurm import array
from slurm.array import submit_array
from slurm.cluster import ClusterConfig
from slurm.tasks import Task


@pytest.mark.parametrize(("node_gpus", "job_gpus"), [(8, 1), (1, 1), (0, 0)])
def test_a_job_of_an_array_requests_at_most_one_gpu(tmp_path, monkeypatch, node_gpus, job_gpus):
    requested = []

    def executor_of(logs, name, config, **more):
        requested.append(config.gpus_per_node)
        job = SimpleNamespace(job_id="17_0")
        return SimpleNamespace(batch=nullcontext, submit=lambda task: job)

    monkeypatch.setattr(array, "executor_of", executor_of)
    monkeypatch.setattr(array, "check_possible", lambda executor: None)
    task = Task("gc:enable", {})
    config = ClusterConfig(gpus_per_node=node_gpus)
    assert submit_array([task, task], task, tmp_path, "pack", config).array == "17"
    assert requested == [job_gpus, 0]
