import math

import pytest
import torch
from test_trainer import ALONE, SMALL, batches, config, fit

from corrflow import CorrFlow, Encoder, InputError, load_model
from corrflow.training.checkpoint import checkpoint_path
from corrflow.training.ema import EMA
from corrflow.training.trainer import Trainer

CLIPS = 5.0


def average_of(run, step):
    return torch.load(checkpoint_path(run, step), weights_only=True)["ema"]


def test_past_weights_decay_with_the_number_of_clips_since(tmp_path):
    trainer = Trainer(tmp_path, config(steps=4, ema_clips=CLIPS), ALONE)
    seen = []
    update = trainer.ema.update

    def recorded(model, batch, clips):
        seen.append({name: tensor.double() for name, tensor in model.state_dict().items()})
        update(model, batch, clips)

    trainer.ema.update = recorded
    trainer.fit(batches(), lambda: False, lambda _: None)
    shares = torch.tensor([math.exp(-2 * ago / CLIPS) for ago in (3, 2, 1, 0)], dtype=torch.float64)
    for name, found in average_of(tmp_path, 4).items():
        if found.is_floating_point():
            wanted = sum(
                share * state[name]
                for share, state in zip(shares / shares.sum(), seen, strict=True)
            )
            torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-7)
        else:
            assert found == seen[-1][name]


def test_two_small_batches_decay_the_past_like_one_large_batch():
    models = [CorrFlow(SMALL) for _ in range(2)]
    small, large = (EMA(models[0], CLIPS) for _ in range(2))
    for ema, batches_of in ((small, (2, 2)), (large, (4,))):
        ema.update(models[0], 20, seen := 20)
        for batch in batches_of:
            ema.update(models[1], batch, seen := seen + batch)
    torch.testing.assert_close(small.model.state_dict(), large.model.state_dict())
    assert not torch.equal(small.model.encoder.head.weight, models[1].encoder.head.weight)


def test_an_interrupted_and_resumed_run_has_exactly_the_same_average(tmp_path):
    fit(tmp_path / "whole", config(ema_clips=CLIPS))
    calls = iter([False] * 3 + [True])
    fit(tmp_path / "cut", config(ema_clips=CLIPS), stop=lambda: next(calls))
    fit(tmp_path / "cut", config(ema_clips=CLIPS))
    whole, cut = (average_of(tmp_path / name, 6) for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_keeping_an_average_does_not_change_training(tmp_path):
    plain, _ = fit(tmp_path / "plain", config())
    kept, _ = fit(tmp_path / "kept", config(ema_clips=CLIPS))
    ours, theirs = plain.model.state_dict(), kept.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_average_is_loaded_unless_the_last_weights_are_requested(tmp_path):
    trainer, _ = fit(tmp_path, config(ema_clips=CLIPS))
    path = checkpoint_path(tmp_path, 6)
    last, ema = (
        trainer.model.encoder.head.weight,
        average_of(tmp_path, 6)["encoder.head.weight"],
    )
    assert not torch.equal(last, ema)
    for weights, wanted in (("auto", ema), ("ema", ema), ("last", last)):
        assert torch.equal(load_model(path, weights=weights).encoder.head.weight, wanted)


def test_an_average_that_was_not_kept_is_refused(tmp_path):
    fit(tmp_path, config(steps=2))
    with pytest.raises(InputError, match="no moving average"):
        load_model(checkpoint_path(tmp_path, 2), weights="ema")
    with pytest.raises(InputError, match="no moving average"):
        Trainer(tmp_path, config(ema_clips=CLIPS), ALONE)


class Pixels(Encoder):
    stride, channels = 1, 4

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 4, 1)

    def forward(self, frames):
        return self.layer(frames)


def test_an_encoder_without_batchnorm_is_averaged_too():
    model = CorrFlow(encoder=Pixels())
    ema = EMA(model, CLIPS)
    ema.update(model, 2, 2)
    torch.testing.assert_close(ema.model.state_dict(), model.state_dict())
