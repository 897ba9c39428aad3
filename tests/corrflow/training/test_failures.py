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


def spiked(run, monkeypatch, said, steps=SPIKE + 4, **trainer):
    """A run whose loss is a hundred times as high in one step."""
    made = Trainer(
        run, config(steps=steps, log_every=2, save_every=4, **trainer), ALONE, said.append
    )
    backward = made.backward
    monkeypatch.setattr(
        made, "backward", lambda *data: backward(*data) * (100 if made.step == SPIKE - 1 else 1)
    )
    made.fit(batches(made.step), lambda: False, lambda _: None)
    return made


def test_a_spike_is_named_with_its_clips(tmp_path, monkeypatch):
    said = []
    assert spiked(tmp_path, monkeypatch, said).step == SPIKE + 4
    assert len(said) == 1
    line = read_lines(tmp_path / "metrics.jsonl")[SPIKE - 1]
    assert f"rank 0: warning: step {SPIKE}: loss {line['loss']:.4g} is" in said[0]
    assert f"clip-{SPIKE - 1}a, clip-{SPIKE - 1}b" in said[0]


def test_a_spike_stops_the_run_where_that_is_asked_for(tmp_path, monkeypatch):
    with pytest.raises(LossSpikeError, match=f"step {SPIKE}: loss .* times the median"):
        spiked(tmp_path, monkeypatch, [], on_spike="stop")
    assert checkpoints(tmp_path)[-1] == checkpoint_path(tmp_path, SPIKE - 1)
    assert read_lines(tmp_path / "metrics.jsonl")[-1]["step"] == SPIKE


def test_a_resumed_run_finds_the_spike_that_the_whole_one_found(tmp_path, monkeypatch):
    told = []
    for run, cuts in (("whole", ()), ("cut", (SPIKE - 1,))):
        said = []
        for steps in (*cuts, SPIKE + 4):
            spiked(tmp_path / run, monkeypatch, said, steps=steps)
        told.append(said)
    assert told[0] == told[1] != []


def test_no_loss_is_a_spike_before_enough_were_seen_or_when_switched_off():
    watch = SpikeDetector(5.0, [1.0] * (MIN_LOSSES - 1), ALONE)
    assert watch.median_below(100.0) is None
    assert watch.median_below(100.0) == 1.0
    assert watch.median_below(5.0) is None
    assert SpikeDetector(0.0, [1.0] * MIN_LOSSES, ALONE).median_below(math.inf) is None


def test_a_log_that_can_not_be_written_ends_the_run_and_stays_whole(tmp_path, monkeypatch):
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


def test_a_line_that_does_not_fit_is_taken_back(tmp_path):
    log = monitor.Monitor(tmp_path, 0)
    log.append(b'{"step": 1}\n')
    log.file.close()

    class Full:
        """A disk with room for three bytes."""

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


def test_trouble_waits_until_all_are_told():
    trouble = ErrorSync(ALONE)
    with trouble.capture(writing="the file"):
        raise RuntimeError("torch's own") from OSError(errno.EFBIG, "File too large")
    with trouble.capture():
        raise ValueError("a consequence")
    with pytest.raises(WriteError, match="the file can't be written: File too large"):
        trouble.raise_on_all_ranks()
    assert not ErrorSync(ALONE).raise_on_all_ranks()
    assert ErrorSync(ALONE).raise_on_all_ranks(stop=True)


def test_what_the_clips_raise_comes_out_as_it_is(tmp_path):
    def broken():
        yield next(batches())
        raise KeyError("a shard")

    with pytest.raises(KeyError, match="a shard"):
        Trainer(tmp_path, config(), ALONE).fit(broken(), lambda: False, lambda _: None)


def test_both_reasons_that_recur_are_of_one_kind():
    assert issubclass(NonFiniteError, anomalies.RecurringError)
    assert issubclass(LossSpikeError, anomalies.RecurringError)
    assert not issubclass(WriteError, anomalies.RecurringError)
