"""Shell scripts stand in for SLURM's client, and print what the real one prints (22.05)."""

import pytest

from slurm import ClusterError, status
from slurm.status import job_state, wait_for_state

SILENT = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
FORGOTTEN = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
NO_ACCOUNTS = "echo 'Slurm accounting storage is disabled' >&2; exit 1"
RUNNING = "echo 'RUNNING|None|n1|2026-11-30T15:29:53|0:02'"
# squeue shows a completed job only if all states are asked for
COMPLETED = "case \"$*\" in *'-t all'*) echo 'COMPLETED|None|n1|2026-11-30T15:29:53|0:02';; esac"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(status, "LOOK_SECONDS", 0.01)


@pytest.mark.parametrize(
    ("squeue", "sacct", "state"),
    [
        (RUNNING, NO_ACCOUNTS, "RUNNING"),
        (COMPLETED, NO_ACCOUNTS, "COMPLETED"),
        (FORGOTTEN, NO_ACCOUNTS, "UNKNOWN"),
        (f"echo 'squeue: warning: old' >&2; {FORGOTTEN}", NO_ACCOUNTS, "UNKNOWN"),
        ("exit 0", NO_ACCOUNTS, "UNKNOWN"),  # among several jobs, squeue omits ended ones
        (FORGOTTEN, "echo 'TIMEOUT|0:0|n1|2026-11-30T15:29:53|0:02'", "TIMEOUT"),
        (SILENT, "echo 'RUNNING|0:0|n1|2026-11-30T15:29:53|0:02'", "RUNNING"),
        (SILENT, NO_ACCOUNTS, "NO ANSWER"),
        (SILENT, "exit 0", "NO ANSWER"),
    ],
)
def test_an_ended_job_is_distinguished_from_a_cluster_without_answer(
    slurm_client, squeue, sacct, state
):
    slurm_client(squeue=squeue, sacct=sacct)
    assert job_state("7").state == state


def test_a_question_without_an_answer_is_repeated(slurm_client, tmp_path):
    asked = tmp_path / "asked"
    slurm_client(squeue=f"[ -e {asked} ] && {{ {RUNNING}; exit; }}; : >{asked}; {SILENT}")
    assert wait_for_state("7", "").state == "RUNNING"


def test_a_question_that_is_never_answered_raises_an_error(slurm_client, monkeypatch):
    slurm_client(squeue=SILENT, sacct=NO_ACCOUNTS)
    monkeypatch.setattr(status, "SILENCE_SECONDS", 0.1)
    asked = (
        "asked squeue and sacct for 0 s: slurm_load_jobs error: Unable to contact slurm controller"
    )
    with pytest.raises(ClusterError) as caught:
        wait_for_state("7", "do something else")
    words = f"job 7: SLURM does not say whether it still runs ({asked}): do something else"
    assert str(caught.value) == words
