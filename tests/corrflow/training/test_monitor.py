"""Reading the log of a run."""

import json

import pytest

from corrflow.training.monitor import METRICS, Monitor, read_last, read_lines

WHOLE = b'{"step": 1, "loss": 2.5}'


@pytest.mark.parametrize(
    "damaged", [b'{"step": 2, "lo', b"\xff\xfe", b"null", b"7", b"[1]", b'{"step": 2}', b""]
)
def test_a_damaged_line_is_left_out(tmp_path, damaged):
    path = tmp_path / METRICS
    path.write_bytes(WHOLE + b"\n" + damaged + b"\n")
    assert read_lines(path) == [json.loads(WHOLE)]
    assert read_last(tmp_path) == json.loads(WHOLE)
    monitor = Monitor(tmp_path, step=2)
    monitor.close()
    assert monitor.losses == [2.5]
    path.write_bytes(damaged)
    assert read_last(tmp_path) == {}
