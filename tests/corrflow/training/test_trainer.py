import json
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from corrflow import InputError, ModelConfig
from corrflow.device import choose_device
from corrflow.encoders.resnet import ResNetConfig
from corrflow.training.checkpoint import checkpoint_path, checkpoints
from corrflow.training.config import TrainerConfig, TrainingConfig
from corrflow.training.distributed import DistributedContext
from corrflow.training.failures import NonFiniteError, WriteError
from corrflow.training.monitor import read_lines
from corrflow.training.schedule import ScheduleConfig
from corrflow.training.trainer import Trainer

ALONE = DistributedContext(0, 1, torch.device("cpu"))
SMALL = ModelConfig(ResNetConfig((4, 4, 8, 8), (1, 1, 1, 1), 8), radius=2)


class Batch(NamedTuple):
    clips: Tensor
    keys: list[str]


def config(steps=6, **trainer):
    settings = TrainerConfig(
        steps=steps, batch=2, log_every=2, save_every=2, keep=2, pictures_every=0, seed=3
    )
    settings = TrainerConfig(**{**settings.__dict__, **trainer})
    return TrainingConfig(
        model=SMALL, schedule=ScheduleConfig(teacher_forcing_clips=20), trainer=settings
    )


def batches(start=0, count=2):
    """Yield random batches that depend only on the step."""
    step = start
    while True:
        clips = torch.randint(
            0,
            256,
            (count, 3, 3, 16, 16),
            generator=torch.Generator().manual_seed(step),
            dtype=torch.uint8,
        )
        yield Batch(clips, [f"clip-{step}a", f"clip-{step}b"])
        step += 1


def fit(run, settings, stop=lambda: False, source=None):
    trainer = Trainer(run, settings, ALONE)
    finished = trainer.fit(source or batches(trainer.step), stop, lambda _: None)
    return trainer, finished


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.state_dict().values()])


def test_an_interrupted_and_resumed_run_has_exactly_the_same_weights(tmp_path):
    whole, _ = fit(tmp_path / "whole", config())
    calls = iter([False] * 3 + [True])
    cut, finished = fit(tmp_path / "cut", config(), stop=lambda: next(calls))
    assert (cut.step, finished) == (3, False)
    resumed, finished = fit(tmp_path / "cut", config())
    assert finished
    assert torch.equal(weights(resumed), weights(whole))
    keys = (
        "step",
        "loss",
        "hop_loss",
        "cycle_loss",
        "gradient_norm",
        "teacher_forcing",
        "learning_rate",
    )
    lines = [
        [{k: line[k] for k in keys} for line in read_lines(tmp_path / run / "metrics.jsonl")]
        for run in ("whole", "cut")
    ]
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0]] == [1, 2, 3, 4, 5, 6]


def test_steps_logged_after_the_last_checkpoint_are_logged_once(tmp_path):
    fit(tmp_path, config(steps=4))
    checkpoint_path(tmp_path, 4).unlink()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # as a kill in the middle of a line leaves it
    fit(tmp_path, config(steps=6))
    assert [
        json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ] == [1, 2, 3, 4, 5, 6]


def test_old_checkpoints_are_removed_except_those_of_keep_every(tmp_path):
    fit(tmp_path, config(steps=12, keep_every=4))
    assert [path.name for path in checkpoints(tmp_path)] == [
        f"step-{step:08d}.pt" for step in (4, 8, 10, 12)
    ]


def test_a_truncated_checkpoint_is_skipped_with_a_warning(tmp_path):
    fit(tmp_path, config(steps=6))
    newest = checkpoint_path(tmp_path, 6)
    newest.write_bytes(newest.read_bytes()[:-500])
    warnings = []
    assert Trainer(tmp_path, config(), ALONE, warnings.append).step == 4
    (warning,) = warnings
    assert warning.startswith(f"rank 0: warning: checkpoint {newest}: ")
    assert warning.endswith("; trying the previous one")
    checkpoint_path(tmp_path, 4).write_bytes(b"")
    with pytest.raises(InputError, match="none of its 2 checkpoints"):
        Trainer(tmp_path, config(), ALONE, warnings.append)
    assert len(warnings) == 3


def test_a_truncated_checkpoint_does_not_displace_later_ones(tmp_path):
    fit(tmp_path, config(steps=6))
    checkpoint_path(tmp_path, 6).write_bytes(b"")
    calls = iter([False, True])
    fit(tmp_path, config(keep=1), stop=lambda: next(calls))
    assert checkpoints(tmp_path) == [checkpoint_path(tmp_path, 5)]
    assert Trainer(tmp_path, config(), ALONE).step == 5


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    fit(tmp_path, config(steps=2))
    other = TrainingConfig(model=ModelConfig(SMALL.encoder, radius=3), trainer=config().trainer)
    with pytest.raises(InputError, match=r"step-00000002\.pt: another architecture"):
        Trainer(tmp_path, other, ALONE)


def test_a_nan_loss_stops_the_run_before_the_weights_change(tmp_path, monkeypatch):
    trainer = Trainer(tmp_path, config(steps=6, log_every=3, save_every=3), ALONE)
    prepare, snapshots = trainer.prepare, []

    def poisoned(clips, draw):
        data = prepare(clips, draw)
        snapshots.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
        return (
            data._replace(inputs_bt3hw=data.inputs_bt3hw * float("nan"))
            if trainer.step == 1
            else data
        )

    monkeypatch.setattr(trainer, "prepare", poisoned)
    with pytest.raises(NonFiniteError, match=r"step 2: loss nan.*clip-1a, clip-1b"):
        trainer.fit(batches(), lambda: False, lambda _: None)
    assert not checkpoints(tmp_path)
    assert not torch.equal(snapshots[0], snapshots[1])  # step 1 changed the weights
    # steps 2 and 3 did not
    assert torch.equal(torch.cat([p.flatten() for p in trainer.model.parameters()]), snapshots[1])


def first_step(run, **trainer):
    """The inputs, teacher forcing and gradients of a first step on four clips, with fixed BatchNorm
    statistics."""
    made = Trainer(run, config(steps=1, batch=4, **trainer), ALONE)
    made.model.eval()
    seen = []
    made.loss_module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    made.fit(batches(count=4), lambda: False, lambda _: None)
    inputs = [torch.cat(tensors) for tensors in zip(*(step[:3] for step in seen), strict=True)]
    return (
        inputs,
        [step[3] for step in seen],
        torch.cat([p.grad.flatten() for p in made.model.parameters()]),
    )


def test_gradient_accumulation_equals_the_whole_batch_without_batchnorm(
    tmp_path,
):
    inputs, teacher_forced, gradient = first_step(tmp_path / "whole")
    for parts in (2, 4):
        same, forced_by_part, accumulated = first_step(tmp_path / str(parts), accumulate=parts)
        assert all(torch.equal(a, b) for a, b in zip(inputs, same, strict=True))
        assert forced_by_part == teacher_forced * parts
        torch.testing.assert_close(accumulated, gradient, rtol=1e-4, atol=1e-6)


def test_a_large_gradient_is_clipped_and_its_original_norm_is_logged(tmp_path):
    whole, _ = fit(tmp_path / "whole", config(steps=1))
    cut, _ = fit(tmp_path / "cut", config(steps=1, clip_norm=0.01))
    norms = [
        read_lines(tmp_path / name / "metrics.jsonl")[0]["gradient_norm"]
        for name in ("whole", "cut")
    ]
    assert norms[0] == norms[1] > 0.01
    gradients = [
        torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
        for trainer in (whole, cut)
    ]
    assert gradients[1].norm().item() == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(gradients[1], gradients[0] * (0.01 / norms[0]), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        (
            {"accumulate": 3, "batch": 4},
            "accumulate 3: 4 clips on 1 processes: expected one of 1, 2, 4",
        ),
        ({"sync_batch_norm": True}, "sync_batch_norm on cpu: expected cuda"),
    ],
)
def test_settings_that_do_not_fit_processes_or_device_are_refused(tmp_path, trainer, words):
    with pytest.raises(InputError, match=words):
        Trainer(tmp_path, config(**trainer), ALONE)


def test_a_run_resumed_with_another_batch_size_continues_by_clips_seen(tmp_path):
    fit(tmp_path, config(steps=3))
    trainer = Trainer(tmp_path, config(steps=5, batch=4), ALONE)
    assert (trainer.step, trainer.clips_seen, trainer.previous_batch, trainer.next_batch) == (
        3,
        6,
        2,
        2,
    )
    trainer.fit(batches(trainer.next_batch, count=4), lambda: False, lambda _: None)
    assert trainer.clips_seen == 14
    again = Trainer(tmp_path, config(steps=9, batch=3), ALONE)
    assert (again.clips_seen, again.previous_batch, again.next_batch) == (14, 4, 5)
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [line["teacher_forcing"] for line in lines] == pytest.approx(
        [0.9 - 0.3 * clips / 20 for clips in (0, 2, 4, 6, 10)]
    )
    rates = [2e-4 * (batch / 6) ** 0.5 for batch in (2, 2, 2, 4, 4)]
    assert [line["learning_rate"] for line in lines] == pytest.approx(rates)


def test_moments_saved_in_another_memory_layout_are_restored(tmp_path):
    trainer, _ = fit(tmp_path, config(steps=2))
    path = checkpoint_path(tmp_path, 2)
    state = torch.load(path, weights_only=True)
    for moments in state["optimizer"]["state"].values():
        for name in ("exp_avg", "exp_avg_sq"):
            if moments[name].ndim == 4:  # as a CUDA run saves them
                moments[name] = moments[name].contiguous(memory_format=torch.channels_last)
    torch.save(state, path)
    again = Trainer(tmp_path, config(), ALONE)
    for weight, moments in again.optimizer.state.items():
        assert moments["exp_avg"].stride() == weight.stride()
    for ours, theirs in zip(
        again.optimizer.state.values(), trainer.optimizer.state.values(), strict=True
    ):
        assert torch.equal(ours["exp_avg"], theirs["exp_avg"])


def test_a_failed_save_ends_the_run(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(WriteError, match=r"step-00000002\.pt can't be written: "):
        fit(tmp_path, config(steps=2))


def test_scalars_and_pictures_are_written_to_tensorboard(tmp_path):
    fit(tmp_path, config(steps=2, pictures_every=2))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read_board():
        return EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0}).Reload()

    board = read_board()
    assert set(board.Tags()["images"]) == {
        f"clip/{n}" for n in ("input", "augmented", "true_colors", "reconstructed", "cycle", "flow")
    }
    wanted = {
        "loss/total",
        "loss/hop",
        "loss/cycle",
        "schedule/learning_rate",
        "schedule/teacher_forcing",
    }
    again = config(steps=4, pictures_every=2)
    # as if killed before the checkpoint: the steps are repeated, but each is shown once
    checkpoint_path(tmp_path, 2).unlink()
    fit(tmp_path, again)
    wanted |= {
        f"time/{part}"
        for part in ("data", "copy", "forward", "backward", "allreduce", "optimizer", "other")
    }
    wanted |= {
        "speed/clips_per_second",
        "speed/data_wait_share",
        "health/gradient_norm",
        "health/memory_gb",
    }
    assert set(board.Tags()["scalars"]) == wanted
    assert [event.step for event in read_board().Scalars("loss/total")] == [1, 2, 3, 4]


def test_the_model_learns_to_copy(tmp_path):
    clips = (
        torch.nn.functional.interpolate(
            torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)), size=32
        )
        .mul(255)
        .byte()
    )
    moving = torch.stack([clips.roll(shift, dims=-1) for shift in (0, 4, 8)], dim=1)
    settings = config(steps=60, log_every=60, save_every=60)
    settings = TrainingConfig(
        model=SMALL, schedule=ScheduleConfig(learning_rate=3e-3), trainer=settings.trainer
    )
    fit(tmp_path, settings, source=iter(lambda: Batch(moving[:2], ["a", "b"]), None))
    losses = [line["loss"] for line in read_lines(tmp_path / "metrics.jsonl")]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


@pytest.mark.parametrize(
    ("name", "words"),
    [("tpu", "expected auto, cpu or cuda"), ("cuda", "torch finds no CUDA device here")],
)
def test_a_device_that_does_not_exist_is_refused(monkeypatch, name, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=words):
        choose_device(name)


def test_fewer_devices_than_processes_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda", local_rank=1) == torch.device("cuda", 1)
    with pytest.raises(InputError, match="cuda: 2 here, 3 or more processes: expected a device"):
        choose_device("cuda", local_rank=2)
