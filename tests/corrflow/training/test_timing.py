import time

import pytest
import torch
from test_trainer import ALONE, batches, config

from corrflow.training.monitor import read_lines
from corrflow.training.timing import PARTS, covered
from corrflow.training.trainer import Trainer

SLEEP = 0.05


def slowed(work):
    def sleeping(*arguments):
        time.sleep(SLEEP)
        return work(*arguments)

    return sleeping


def slow(source):
    for batch in source:
        time.sleep(2 * SLEEP)
        yield batch


def test_each_part_is_timed_and_the_parts_add_up_to_the_step(tmp_path, monkeypatch):
    trainer = Trainer(tmp_path, config(steps=6, log_every=3), ALONE)
    monkeypatch.setattr(trainer, "prepare", slowed(trainer.prepare))
    monkeypatch.setattr(trainer, "update", slowed(trainer.update))
    trainer.fit(slow(batches()), lambda: False, lambda _: None)
    line = read_lines(tmp_path / "metrics.jsonl")[-1]
    parts = {name: line[f"time_{name}"] for name in (*PARTS, "other")}
    slept = {"data": 2 * SLEEP, "copy": SLEEP, "optimizer": SLEEP}
    for name, milliseconds in parts.items():
        assert milliseconds > 1000 * slept.get(name, 0)
    assert sum(parts.values()) == pytest.approx(1000 * 2 / line["clips_per_second"], rel=0.02)
    assert (
        parts["data"] + parts["copy"] + parts["optimizer"]
        < sum(parts.values()) - parts["forward"] - parts["backward"]
    )
    assert line["data_wait"] == pytest.approx(parts["data"] / sum(parts.values()), rel=0.02)
    assert line["time_allreduce"] == 0


def test_overlapping_reductions_are_counted_once():
    assert covered([]) == 0
    assert covered([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0), (5.5, 5.7)]) == pytest.approx(4.0)


def test_a_pause_between_steps_is_not_counted():
    from corrflow.training.timing import StepTimer

    timer = StepTimer(torch.device("cpu"))
    time.sleep(SLEEP)
    timer.restart()
    with timer.part("forward"):
        pass
    assert sum(timer.milliseconds(1).values()) < 1000 * SLEEP
