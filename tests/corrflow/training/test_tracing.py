import json
from pathlib import Path

import pytest
import torch
from test_trainer import ALONE, batches, config

from corrflow.training.failures import WriteError
from corrflow.training.tracing import WARM_STEPS
from corrflow.training.trainer import Trainer


def train_with_trace(run, **trainer):
    messages = []
    Trainer(run, config(**trainer), ALONE, messages.append).fit(
        batches(), lambda: False, lambda _: None
    )
    return messages, sorted((run / "profile").iterdir()) if (run / "profile").exists() else []


def test_the_requested_steps_are_traced_to_a_readable_file(tmp_path):
    messages, files = train_with_trace(tmp_path, steps=WARM_STEPS + 4, profile=2)
    assert [file.name for file in files] == ["rank0-step00000004-00000005.json"]
    assert str(files[0]) in messages[0]
    names = [event.get("name", "") for event in json.loads(files[0].read_text())["traceEvents"]]
    assert sum(name.startswith("Optimizer.step") for name in names) == 2


def test_a_run_that_ends_early_writes_the_steps_traced_so_far(tmp_path):
    assert [
        file.name for file in train_with_trace(tmp_path, steps=WARM_STEPS + 1, profile=5)[1]
    ] == ["rank0-step00000004-00000004.json"]


def test_a_trace_that_was_cut_short_is_removed_with_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(
        torch.profiler.profile,
        "export_chrome_trace",
        lambda _, path: Path(path).write_text('{"traceEvents": [{'),
    )
    with pytest.raises(WriteError, match="the trace was cut short"):
        train_with_trace(tmp_path, steps=WARM_STEPS + 4, profile=2)
    assert not list((tmp_path / "profile").iterdir())


def test_nothing_is_traced_by_default(tmp_path):
    assert train_with_trace(tmp_path, steps=WARM_STEPS + 1) == ([], [])
