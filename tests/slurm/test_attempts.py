from dataclasses import replace

import pytest

from slurm.attempts import ATTEMPTS, Attempt, log_attempt, makes_no_progress, read_attempts
from slurm.errors import ClusterError


def attempt(began, step=10, job="7", left=""):
    return Attempt(job, step, ("n1",), 1, began, left=left)


def test_an_attempt_that_ends_is_one_attempt(tmp_path):
    log_attempt(tmp_path, attempt(1.0))
    log_attempt(tmp_path, attempt(2.0))
    log_attempt(tmp_path, replace(attempt(2.0), step=30, left="told to leave"))
    assert [(found.step, found.left) for found in read_attempts(tmp_path)] == [
        (10, ""),
        (30, "told to leave"),
    ]


def test_a_line_that_a_kill_cut_spoils_nothing(tmp_path):
    log_attempt(tmp_path, attempt(1.0))
    with (tmp_path / ATTEMPTS).open("a") as file:
        file.write('{"job": "7", "st')
    log_attempt(tmp_path, attempt(2.0))
    assert [found.began for found in read_attempts(tmp_path)] == [1.0, 2.0]


def test_a_line_that_is_damaged_spoils_nothing(tmp_path):
    log_attempt(tmp_path, attempt(1.0))
    with (tmp_path / ATTEMPTS).open("ab") as file:
        file.write(b'\xff\n7\nnull\n{}\n{"began": 3.0}\n')
    assert [found.began for found in read_attempts(tmp_path)] == [1.0]


def test_attempts_that_can_not_be_noted_are_told(tmp_path):
    (tmp_path / ATTEMPTS).mkdir()
    with pytest.raises(ClusterError, match=r"attempts.jsonl: can't be written \(Is a directory\)"):
        log_attempt(tmp_path, attempt(1.0))


def test_three_attempts_cut_where_they_began_are_enough(tmp_path):
    for began in (1.0, 2.0):
        log_attempt(tmp_path, attempt(began))
    assert not makes_no_progress(tmp_path, attempt(9.0))
    log_attempt(tmp_path, attempt(3.0))
    assert makes_no_progress(tmp_path, attempt(9.0))
    assert not makes_no_progress(tmp_path, attempt(9.0, step=11))  # it saved
    assert not makes_no_progress(tmp_path, attempt(9.0, job="8"))  # somebody submitted it again
    assert not makes_no_progress(tmp_path, attempt(9.0, job=""))  # somebody started it by hand


def test_to_be_told_to_leave_is_no_failure(tmp_path):
    for began in (1.0, 2.0, 3.0):
        log_attempt(tmp_path, attempt(began, left="told to leave" if began == 2.0 else ""))
    assert not makes_no_progress(tmp_path, attempt(9.0))
