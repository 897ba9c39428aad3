"""Random augmentation of frames; the draws of each kind are independent of the others."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2 import functional as tv

from corrflow.augmentation import (
    AugmentationConfig,
    BatchPart,
    augment,
    drop_channels,
    jitter_colors,
    jitter_frames,
    step_draws,
)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_random_draws_depend_only_on_seed_step_and_name():
    def draw(seed, step, name="jitter"):
        return torch.rand(4, generator=step_draws(seed, step)(name)).tolist()

    assert draw(0, 5) == draw(0, 5)
    assert len({tuple(draw(seed, step)) for seed in range(3) for step in range(3)}) == 9
    assert draw(0, 5) != draw(0, 5, "dropout")
    draws = step_draws(0, 5)
    assert torch.equal(*(torch.rand(4, generator=draws("jitter")) for _ in range(2)))


def test_all_frames_drop_the_same_channels_and_the_rest_are_scaled():
    config, frames, seen = AugmentationConfig(keep_channels=0.0), torch.ones(2, 3, 3, 4, 4), set()
    for seed in range(40):
        out = drop_channels(frames, config, generator(seed))
        factors = out[0, 0, :, 0, 0]
        assert torch.equal(out, frames * factors[:, None, None])
        assert factors.sum() == pytest.approx(3.0)
        seen.add(tuple(factors.tolist()))
    assert seen == {(0, 1.5, 1.5), (1.5, 0, 1.5), (1.5, 1.5, 0), (3, 0, 0), (0, 3, 0), (0, 0, 3)}


def test_the_share_of_unchanged_steps_is_as_configured():
    frames = torch.ones(1, 1, 3, 2, 2)
    kept = [
        torch.equal(drop_channels(frames, AugmentationConfig(), generator(seed)), frames)
        for seed in range(1000)
    ]
    assert 0.25 < np.mean(kept) < 0.35


def test_jitter_does_not_depend_on_how_the_batch_is_divided():
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


def test_jitter_equals_that_of_torchvision_for_each_frame():
    frames = torch.rand(7, 3, 9, 11, generator=generator(0))
    frames[0] = frames[0, :1]  # without a hue
    frames[1] = 0.0
    frames[2, 1] = frames[2, 0]  # yellow and blue
    changes = torch.rand(7, 4, generator=generator(1)) - 0.5
    expected = []
    for frame, change in zip(frames, changes.tolist(), strict=True):
        brightness, contrast, saturation, hue = change
        changed = tv.adjust_brightness(frame, 1 + brightness)
        changed = tv.adjust_contrast(changed, 1 + contrast)
        changed = tv.adjust_saturation(changed, 1 + saturation)
        expected.append(tv.adjust_hue(changed, hue))
    torch.testing.assert_close(jitter_colors(frames, changes), torch.stack(expected))


def test_lab_frames_drop_either_a_or_b_but_never_lightness():
    config, frames, seen = AugmentationConfig(keep_channels=0.0), torch.ones(2, 3, 3, 4, 4), set()
    for seed in range(40):
        out = drop_channels(frames, config, generator(seed), "lab")
        seen.add(tuple(out[0, 0, :, 0, 0].tolist()))
        assert torch.equal(out, out[:1, :1, :, :1, :1].expand_as(out))
    assert seen == {(1.5, 0, 1.5), (1.5, 1.5, 0)}


def test_the_share_of_jitter_does_not_change_which_channels_are_dropped():
    """Each augmentation has its own random draws, so that none of them changes the others."""
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


class Operations(TorchDispatchMode):
    """Counts tensor operations; on a GPU, each of them is at most one kernel launch."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_the_number_of_operations_does_not_grow_with_the_batch():
    """The host limits how fast kernels are launched, so more clips must not mean more launches."""
    counts = []
    for frames in (4, 4, 64):  # the first run also creates cached constants
        rgb = torch.rand(frames, 3, 8, 8, generator=generator(0))
        config, part = AugmentationConfig(color_jitter=1.0), BatchPart(0, frames, frames)
        with Operations() as operations:
            augment(rgb, "lab", config, step_draws(0, 0), part)
        counts.append(operations.count)
    assert counts[1] == counts[2] < 200
