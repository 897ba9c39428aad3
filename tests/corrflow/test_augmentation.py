"""What is changed at random before the encoder sees it, and that each draw stands by itself."""

import numpy as np
import pytest
import torch

from corrflow.augmentation import (
    AugmentationConfig,
    BatchPart,
    augment,
    drop_channels,
    jitter_frames,
)
from corrflow.training.schedule import step_draws


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_channels_are_dropped_alike_in_all_frames_and_the_rest_scaled():
    config, frames, seen = AugmentationConfig(keep_channels=0.0), torch.ones(2, 3, 3, 4, 4), set()
    for seed in range(40):
        out = drop_channels(frames, config, generator(seed))
        factors = out[0, 0, :, 0, 0]
        assert torch.equal(out, frames * factors[:, None, None])
        assert factors.sum() == pytest.approx(3.0)
        seen.add(tuple(factors.tolist()))
    assert seen == {(0, 1.5, 1.5), (1.5, 0, 1.5), (1.5, 1.5, 0), (3, 0, 0), (0, 3, 0), (0, 0, 3)}


def test_the_share_of_untouched_steps_is_as_configured():
    frames = torch.ones(1, 1, 3, 2, 2)
    kept = [
        torch.equal(drop_channels(frames, AugmentationConfig(), generator(seed)), frames)
        for seed in range(1000)
    ]
    assert 0.25 < np.mean(kept) < 0.35


def test_jitter_touches_its_share_of_frames_the_same_however_the_batch_is_divided():
    frames = torch.rand(60, 3, 8, 8, generator=generator(0))
    config = AugmentationConfig(color_jitter=0.3)
    whole = jitter_frames(frames, config, generator(7), BatchPart(0, 60, 60))
    halves = [
        jitter_frames(frames[first : first + 30], config, generator(7), BatchPart(first, 30, 60))
        for first in (0, 30)
    ]
    assert torch.equal(whole, torch.cat(halves))
    touched = (whole != frames).flatten(1).any(dim=1)
    assert 8 <= touched.sum() <= 28
    assert (whole - frames)[touched].abs().mean() < 0.1


def test_of_lab_either_a_or_b_is_dropped_and_never_lightness():
    config, frames, seen = AugmentationConfig(keep_channels=0.0), torch.ones(2, 3, 3, 4, 4), set()
    for seed in range(40):
        out = drop_channels(frames, config, generator(seed), "lab")
        seen.add(tuple(out[0, 0, :, 0, 0].tolist()))
        assert torch.equal(out, out[:1, :1, :, :1, :1].expand_as(out))
    assert seen == {(1.5, 0, 1.5), (1.5, 1.5, 0)}


def test_another_share_of_jitter_leaves_the_channels_that_are_dropped():
    """Each augmentation has draws of its own: without jitter the rest is as with it."""
    frames = torch.rand(6, 3, 8, 8, generator=generator(0))
    part = BatchPart(0, 6, 6)
    for step in range(20):
        plain, jittered = (
            augment(
                frames, "rgb", AugmentationConfig(color_jitter=share), step_draws(0, step), part
            )
            for share in (0.0, 1.0)
        )
        dropped = [(x == 0).flatten(2).all(dim=2) for x in (plain, jittered)]
        assert torch.equal(*dropped)
