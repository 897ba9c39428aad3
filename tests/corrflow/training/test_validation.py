import os
from dataclasses import replace

import pytest
import torch
from PIL import Image
from test_trainer import ALONE, batches, config, weights

from corrflow import InputError, load_model
from corrflow.benchmarks.evaluation import evaluate
from corrflow.propagation import PROTOCOLS
from corrflow.scale import resized
from corrflow.training import trainer as trainer_module
from corrflow.training.checkpoint import checkpoint_path, prune, read_validation
from corrflow.training.distributed import DistributedContext
from corrflow.training.monitor import read_lines
from corrflow.training.trainer import Trainer
from corrflow.training.validation import ValidationConfig, ValidationResult, Validator

BEST = "checkpoints/best.pt"


def settings(tree, validation=(), **trainer):
    return replace(
        config(**trainer), validation=ValidationConfig(root=tree, every=2, **dict(validation))
    )


def run_to_end(run, training):
    trainer = Trainer(run, training, ALONE)
    trainer.fit(batches(trainer.step), lambda: False, lambda _: None)
    return trainer


@pytest.mark.parametrize("year", [2016, 2017])
def test_the_figures_equal_those_of_the_benchmark(tree, tmp_path, year):
    run_to_end(tmp_path, settings(tree, {"year": year}, steps=2, ema_clips=4.0))
    model = load_model(checkpoint_path(tmp_path, 2))
    result = evaluate(f"davis{year}", tree, model, PROTOCOLS["paper"], tmp_path / "eval", "again")
    line = read_lines(tmp_path / "metrics.jsonl")[-1]
    for key, column in (("jf", "J&F-Mean"), ("j", "J-Mean"), ("f", "F-Mean")):
        assert line[f"validation_{key}"] == pytest.approx(result.overall[column], abs=1e-9)
    assert list(line["validation_sequences"]) == list(result.sequences)


@pytest.mark.parametrize("ema_clips", [0.0, 4.0])
def test_validation_does_not_change_training(tree, tmp_path, ema_clips):
    plain = run_to_end(tmp_path / "plain", config(ema_clips=ema_clips))
    watched = run_to_end(tmp_path / "watched", settings(tree, {"size": 32}, ema_clips=ema_clips))
    assert torch.equal(weights(plain), weights(watched))
    losses = [
        [line["loss"] for line in read_lines(tmp_path / name / "metrics.jsonl")]
        for name in ("plain", "watched")
    ]
    assert losses[0] == losses[1]
    assert [
        "validation_jf" in line for line in read_lines(tmp_path / "watched" / "metrics.jsonl")
    ] == [False, True] * 3


def test_figures_and_overlays_are_on_tensorboard_once(tree, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_to_end(tmp_path, settings(tree, steps=4, pictures_every=4))
    checkpoint_path(tmp_path, 4).unlink()
    run_to_end(tmp_path, settings(tree, steps=6, pictures_every=4))  # steps 3 and 4 are repeated
    board = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0}).Reload()
    for tag in ("validation/J&F", "validation/J", "validation/F", "validation_sequence/val-000"):
        assert [event.step for event in board.Scalars(tag)] == [2, 4, 6]
    assert [event.step for event in board.Images("validation/val-001")] == [2, 4, 6]
    assert "validation/val-002" not in board.Tags()["images"]


def test_sequences_are_dealt_to_all_ranks_longest_first(tree):
    shares = [
        Validator(ValidationConfig(tree), DistributedContext(rank, 3, torch.device("cpu"))).share()
        for rank in range(3)
    ]
    assert sorted(index for share in shares for index in share) == [0, 1, 2, 3]
    assert [len(share) for share in shares] == [2, 1, 1]
    validator = Validator(ValidationConfig(tree, sequences=2), ALONE)
    validator.sequences[0] = replace(validator.sequences[0], length=3)
    assert validator.share() == [1, 0]


def test_a_reduced_mask_is_enlarged_to_its_own_size():
    small = resized(
        torch.arange(48, dtype=torch.uint8).view(6, 8).numpy(), (4, 3), Image.Resampling.NEAREST
    )
    assert small.shape == (3, 4)
    assert resized(small, (8, 6), Image.Resampling.NEAREST).shape == (6, 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"every": 0}, "validation: every 0: expected 1 or more"),
        ({"size": 8}, "validation: size 8: expected at least 32, or 0"),
        ({"size": -1}, "validation: size -1: expected at least 32, or 0"),
        ({"protocol": "magic"}, "protocol 'magic'"),
        ({"pictures": -1}, "validation: pictures -1: expected 0 or more"),
    ],
)
def test_impossible_settings_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        ValidationConfig(**change)


@pytest.fixture
def scripted(monkeypatch):
    """J&F by step, which a test fills. Only these steps are validated, and get this figure."""
    figures = {}

    def validate(validator, model):
        jf = figures[validator.at]
        return ValidationResult(jf, jf, {"a": jf}, {}, 0.0)

    def is_due(validator, step):
        validator.at = step
        return step in figures

    monkeypatch.setattr(Validator, "validate", validate)
    monkeypatch.setattr(Validator, "is_due", is_due)
    return figures


def best(run):
    found = read_validation(run / BEST)
    return found["step"], found["jf"]


def test_the_best_checkpoint_is_kept_with_its_step_and_figure(tree, tmp_path, scripted):
    scripted |= {2: 0.5, 3: 0.7, 6: 0.6}
    run_to_end(tmp_path, settings(tree, steps=12, keep=1))
    assert best(tmp_path) == (3, 0.7)
    assert torch.load(tmp_path / BEST, weights_only=True)["step"] == 3
    assert not checkpoint_path(tmp_path, 3).exists()
    prune(tmp_path, step=12, keep=1, keep_every=0)
    assert best(tmp_path) == (3, 0.7)
    assert [
        line["step"] for line in read_lines(tmp_path / "metrics.jsonl") if "validation_jf" in line
    ] == [2, 3, 6]


def test_a_resumed_run_compares_with_the_best_before_it(tree, tmp_path, scripted):
    scripted |= {2: 0.5, 4: 0.7, 6: 0.6, 8: 0.8}
    run_to_end(tmp_path, settings(tree, steps=4))
    run_to_end(tmp_path, settings(tree, steps=7))
    assert best(tmp_path) == (4, 0.7)
    run_to_end(tmp_path, settings(tree, steps=8))
    assert best(tmp_path) == (8, 0.8)


def test_a_run_killed_before_it_linked_its_best_links_it_when_resumed(
    tree, tmp_path, scripted, monkeypatch
):
    scripted |= {2: 0.5, 4: 0.7, 6: 0.6}

    def killed(run, step):
        raise KeyboardInterrupt

    run_to_end(tmp_path, settings(tree, steps=3))
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "keep_best", killed)
        with pytest.raises(KeyboardInterrupt):
            run_to_end(tmp_path, settings(tree, steps=6))
    assert best(tmp_path) == (2, 0.5)
    run_to_end(tmp_path, settings(tree, steps=6))
    assert best(tmp_path) == (4, 0.7)


def test_a_best_checkpoint_of_a_repeated_step_is_removed(tree, tmp_path, scripted, capsys):
    scripted |= {2: 0.5, 4: 0.7}
    run_to_end(tmp_path, settings(tree, steps=4))
    checkpoint_path(tmp_path, 4).unlink()
    scripted |= {4: 0.4, 6: 0.3}
    run_to_end(tmp_path, settings(tree, steps=6))
    output = capsys.readouterr().err
    assert "best.pt: removed: it is of step 4, but the run resumes from step 2\n" in output
    assert best(tmp_path) == (2, 0.5)


def test_figures_of_other_sequences_are_not_compared(tree, tmp_path, scripted):
    scripted |= {2: 0.9, 4: 0.4}
    run_to_end(tmp_path, settings(tree, steps=2))
    run_to_end(tmp_path, settings(tree, {"sequences": 2}, steps=4))
    assert best(tmp_path) == (4, 0.4)


def test_the_best_is_copied_where_links_are_not_supported(tree, tmp_path, scripted, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    scripted |= {2: 0.5}
    run_to_end(tmp_path, settings(tree, steps=2))
    assert best(tmp_path) == (2, 0.5)
    assert (tmp_path / BEST).read_bytes() == checkpoint_path(tmp_path, 2).read_bytes()
