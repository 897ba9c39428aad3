import json
from pathlib import Path

import pytest
import torch
from test_trainer import ALONE, batches, config

from corrflow.training.failures import WriteError
from corrflow.training.tracing import WARM_STEPS
from corrflow.training.trainer import Trainer


def traced(run, **trainer):
    said = []
    Trainer(run, config(**trainer), ALONE, said.append).fit(
        batches(), lambda: False, lambda _: None
    )
    return said, sorted((run / "profile").iterdir()) if (run / "profile").exists() else []


def test_the_trace_of_the_steps_that_were_asked_for_can_be_read(tmp_path):
    said, files = traced(tmp_path, steps=WARM_STEPS + 4, profile=2)
    assert [file.name for file in files] == ["rank0-step00000004-00000005.json"]
    assert str(files[0]) in said[0]
    names = [event.get("name", "") for event in json.loads(files[0].read_text())["traceEvents"]]
    assert sum(name.startswith("Optimizer.step") for name in names) == 2


def test_a_run_that_ends_within_them_leaves_what_there_is(tmp_path):
    assert [file.name for file in traced(tmp_path, steps=WARM_STEPS + 1, profile=5)[1]] == [
        "rank0-step00000004-00000004.json"
    ]


def test_a_trace_that_is_cut_short_is_no_trace(tmp_path, monkeypatch):
    monkeypatch.setattr(
        torch.profiler.profile,
        "export_chrome_trace",
        lambda _, path: Path(path).write_text('{"traceEvents": [{'),
    )
    with pytest.raises(WriteError, match="the trace was cut short"):
        traced(tmp_path, steps=WARM_STEPS + 4, profile=2)
    assert not list((tmp_path / "profile").iterdir())


def test_nothing_is_traced_unless_asked_for(tmp_path):
    assert traced(tmp_path, steps=WARM_STEPS + 1) == ([], [])
