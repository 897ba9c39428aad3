from dataclasses import replace

import pytest

from slurm.attempts import ATTEMPTS, Attempt, log_attempt, makes_no_progress, read_attempts
from slurm.errors import ClusterError


def attempt(began, step=10, job="7", outcome=""):
    return Attempt(job, step, ("n1",), 1, began, outcome=outcome)


def test_the_line_of_an_attempts_end_replaces_the_line_of_its_start(tmp_path):
    log_attempt(tmp_path, attempt(1.0))
    log_attempt(tmp_path, attempt(2.0))
    log_attempt(tmp_path, replace(attempt(2.0), step=30, outcome="stopped by a signal"))
    assert [(found.step, found.outcome) for found in read_attempts(tmp_path)] == [
        (10, ""),
        (30, "stopped by a signal"),
    ]


def test_a_line_that_was_truncated_by_a_kill_is_skipped(tmp_path):
    log_attempt(tmp_path, attempt(1.0))
    with (tmp_path / ATTEMPTS).open("a") as file:
        file.write('{"job": "7", "st')
    log_attempt(tmp_path, attempt(2.0))
    assert [found.began for found in read_attempts(tmp_path)] == [1.0, 2.0]


def test_damaged_lines_are_skipped(tmp_path):
    log_attempt(tmp_path, attempt(1.0))
    with (tmp_path / ATTEMPTS).open("ab") as file:
        file.write(b'\xff\n7\nnull\n{}\n{"began": 3.0}\n')
    assert [found.began for found in read_attempts(tmp_path)] == [1.0]


def test_an_attempt_that_cannot_be_logged_raises_an_error(tmp_path):
    (tmp_path / ATTEMPTS).mkdir()
    with pytest.raises(ClusterError, match=r"attempts.jsonl: can't be written \(Is a directory\)"):
        log_attempt(tmp_path, attempt(1.0))


def test_three_interrupted_attempts_from_the_same_step_are_no_progress(tmp_path):
    for began in (1.0, 2.0):
        log_attempt(tmp_path, attempt(began))
    assert not makes_no_progress(tmp_path, attempt(9.0))
    log_attempt(tmp_path, attempt(3.0))
    assert makes_no_progress(tmp_path, attempt(9.0))
    assert not makes_no_progress(tmp_path, attempt(9.0, step=11))  # a checkpoint was saved
    assert not makes_no_progress(tmp_path, attempt(9.0, job="8"))  # the user submitted it again
    assert not makes_no_progress(
        tmp_path, attempt(9.0, job="")
    )  # the user started it without SLURM


def test_an_attempt_that_was_told_to_stop_is_not_a_failure(tmp_path):
    for began in (1.0, 2.0, 3.0):
        log_attempt(tmp_path, attempt(began, outcome="stopped by a signal" if began == 2.0 else ""))
    assert not makes_no_progress(tmp_path, attempt(9.0))
