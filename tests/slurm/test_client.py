"""Shell scripts stand in for SLURM's client, and print what the real one prints (22.05)."""

import pytest

from slurm import ClusterError, client

NO_DAEMON = "slurm_load_partitions: Unable to contact slurm controller (connect failure)"
DOWN = "echo 'Slurmctld(primary) at laptop is DOWN'; exit 1"
UP = "echo 'Slurmctld(primary) at head is UP'"
FAILS = f"echo '{NO_DAEMON}' >&2; exit 1"


def test_a_client_without_configuration_is_reported_with_alternatives(silent_slurm):
    with pytest.raises(ClusterError) as caught:
        client.goes_to_slurm(4, local=False)
    assert str(caught.value) == (
        "jobs 4: no SLURM cluster answers (tried scontrol ping, sinfo -h: "
        "sinfo: fatal: Could not establish a configuration source): "
        "expected one that does, or --local for processes here"
    )


def test_a_controller_that_is_down_is_reported_with_slurms_reason(slurm_client):
    slurm_client(scontrol=DOWN, sinfo=FAILS)
    with pytest.raises(ClusterError, match=r"nodes 2: no SLURM .* \(connect failure\)\): expected"):
        client.check_answer("nodes 2", "nothing")


@pytest.mark.parametrize(
    "scripts",
    [
        {"scontrol": UP, "sinfo": "exit 1"},  # a site that hides its nodes
        {"scontrol": "exit 1", "sinfo": "echo debug"},  # a site that forbids scontrol
        {"sinfo": "echo debug"},
        {},  # only a wrapper of sbatch is installed
    ],
)
def test_a_cluster_that_answers_any_question_is_used(slurm_client, scripts):
    slurm_client(**scripts)
    assert client.goes_to_slurm(4, local=False)


def test_waiting_for_an_answer_ends_after_a_time(slurm_client, monkeypatch):
    slurm_client(scontrol=DOWN, sinfo="exec /bin/sleep 60")
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.5)
    with pytest.raises(ClusterError, match=r"sinfo -h: sinfo: nothing in 0\.5 s\)"):
        client.check_answer("jobs 2", "nothing")


def test_a_client_that_fails_silently_is_reported_with_its_exit_code(slurm_client):
    slurm_client(sinfo="exit 7")
    with pytest.raises(ClusterError, match=r"sinfo -h: sinfo: exit code 7\)"):
        client.check_answer("jobs 2", "nothing")


@pytest.mark.parametrize(("jobs", "local"), [(0, False), (4, True)])
def test_local_work_asks_no_cluster(silent_slurm, jobs, local):
    assert not client.goes_to_slurm(jobs, local)


def test_without_sbatch_jobs_run_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not client.goes_to_slurm(4, local=False)
