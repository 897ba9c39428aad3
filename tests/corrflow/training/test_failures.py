import errno
import math

import pytest
from test_trainer import ALONE, batches, config

from corrflow.training import failures as anomalies
from corrflow.training import monitor
from corrflow.training.checkpoint import checkpoint_path, checkpoints
from corrflow.training.failures import (
    MIN_LOSSES,
    ErrorSync,
    LossSpikeError,
    NonFiniteError,
    SpikeDetector,
    WriteError,
)
from corrflow.training.monitor import read_lines
from corrflow.training.trainer import Trainer

SPIKE = MIN_LOSSES + 5


def train_with_spike(run, monkeypatch, warnings, steps=SPIKE + 4, **trainer):
    """Train with a loss that is a hundred times as high in one step; returns the trainer."""
    made = Trainer(
        run, config(steps=steps, log_every=2, save_every=4, **trainer), ALONE, warnings.append
    )
    backward = made.backward
    monkeypatch.setattr(
        made, "backward", lambda *data: backward(*data) * (100 if made.step == SPIKE - 1 else 1)
    )
    made.fit(batches(made.step), lambda: False, lambda _: None)
    return made


def test_a_loss_spike_is_reported_with_its_clips(tmp_path, monkeypatch):
    warnings = []
    assert train_with_spike(tmp_path, monkeypatch, warnings).step == SPIKE + 4
    assert len(warnings) == 1
    line = read_lines(tmp_path / "metrics.jsonl")[SPIKE - 1]
    assert f"rank 0: warning: step {SPIKE}: loss {line['loss']:.4g} is" in warnings[0]
    assert f"clip-{SPIKE - 1}a, clip-{SPIKE - 1}b" in warnings[0]


def test_a_loss_spike_stops_the_run_if_requested(tmp_path, monkeypatch):
    with pytest.raises(LossSpikeError, match=f"step {SPIKE}: loss .* times the median"):
        train_with_spike(tmp_path, monkeypatch, [], on_spike="stop")
    assert checkpoints(tmp_path)[-1] == checkpoint_path(tmp_path, SPIKE - 1)
    assert read_lines(tmp_path / "metrics.jsonl")[-1]["step"] == SPIKE


def test_a_resumed_run_finds_the_same_spike_as_an_uninterrupted_one(tmp_path, monkeypatch):
    warnings_by_run = []
    for run, cuts in (("whole", ()), ("cut", (SPIKE - 1,))):
        warnings = []
        for steps in (*cuts, SPIKE + 4):
            train_with_spike(tmp_path / run, monkeypatch, warnings, steps=steps)
        warnings_by_run.append(warnings)
    assert warnings_by_run[0] == warnings_by_run[1] != []


def test_no_spike_is_found_after_too_few_losses_or_when_switched_off():
    detector = SpikeDetector(5.0, [1.0] * (MIN_LOSSES - 1), ALONE)
    assert detector.median_below(100.0) is None
    assert detector.median_below(100.0) == 1.0
    assert detector.median_below(5.0) is None
    assert SpikeDetector(0.0, [1.0] * MIN_LOSSES, ALONE).median_below(math.inf) is None


def test_a_log_that_can_not_be_written_ends_the_run_and_keeps_checkpoints(tmp_path, monkeypatch):
    made = Trainer(tmp_path, config(steps=6), ALONE)
    append = monitor.Monitor.append

    def full(self, text):
        if b'"step": 5' in text:
            text = text[: len(text) // 2]
            append(self, text)
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, text)

    monkeypatch.setattr(monitor.Monitor, "append", full)
    with pytest.raises(WriteError, match=r"can't be written: No space left on device"):
        made.fit(batches(), lambda: False, lambda _: None)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002.pt", "step-00000004.pt"]


def test_a_partly_written_line_is_removed_from_the_log(tmp_path):
    log = monitor.Monitor(tmp_path, 0)
    log.append(b'{"step": 1}\n')
    log.file.close()

    class Full:
        """A file on a disk with room for three bytes."""

        def __init__(self, file):
            self.file, self.fileno, self.truncate = file, file.fileno, file.truncate
            self.room = 3

        def write(self, text):
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            written, self.room = self.file.write(text[: self.room]), 0
            return written

    with log.path.open("ab", buffering=0) as file:
        log.file = Full(file)
        with pytest.raises(OSError, match="No space"):
            log.append(b'{"step": 2}\n')
    assert log.path.read_text() == '{"step": 1}\n'


def test_the_first_error_is_held_until_all_ranks_learn_of_it():
    errors = ErrorSync(ALONE)
    with errors.capture(writing="the file"):
        raise RuntimeError("torch's own") from OSError(errno.EFBIG, "File too large")
    with errors.capture():
        raise ValueError("a consequence")
    with pytest.raises(WriteError, match="the file can't be written: File too large"):
        errors.raise_on_all_ranks()
    assert not ErrorSync(ALONE).raise_on_all_ranks()
    assert ErrorSync(ALONE).raise_on_all_ranks(stop=True)


def test_an_error_while_reading_clips_is_raised_unchanged(tmp_path):
    def broken():
        yield next(batches())
        raise KeyError("a shard")

    with pytest.raises(KeyError, match="a shard"):
        Trainer(tmp_path, config(), ALONE).fit(broken(), lambda: False, lambda _: None)


def test_non_finite_losses_and_spikes_are_recurring_errors():
    assert issubclass(NonFiniteError, anomalies.RecurringError)
    assert issubclass(LossSpikeError, anomalies.RecurringError)
    assert not issubclass(WriteError, anomalies.RecurringError)
