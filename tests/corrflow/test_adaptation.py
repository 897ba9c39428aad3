"""Adaptation of a model to the video that it will track."""

import pytest
import torch
from conftest import TINY_SCENE
from test_model import SMALL

from corrflow import InputError
from corrflow.adaptation import CLIP_FRAMES, LOSS, SIDE, TARGET, adapt, sample_clips
from corrflow.augmentation import step_draws
from corrflow.inputs import InputPipeline
from corrflow.loss import CorrespondenceLoss
from corrflow.model import seeded_model, weights_digest
from shards.synthetic import render


@pytest.fixture(scope="module")
def video():
    return torch.from_numpy(render(TINY_SCENE, 3).frames_thw3).movedim(-1, 1)


def test_adaptation_trains_a_copy_of_the_model_on_the_video(video, monkeypatch):
    monkeypatch.setattr("corrflow.adaptation.LEARNING_RATE", 1e-2)  # the model is untrained
    model = seeded_model(SMALL, 0)
    before, seen = weights_digest(model), []
    adapted = adapt(model, video, 30, watch=lambda steps: seen.extend(steps) or seen)
    assert seen == list(range(30))
    assert weights_digest(model) == before
    assert not adapted.training
    assert all(
        torch.equal(statistic, was)
        for statistic, was in zip(adapted.buffers(), model.buffers(), strict=True)
    )
    assert loss_of(adapted, video) < 0.95 * loss_of(model, video)


def loss_of(model, video):
    """The loss on clips that were not used for adaptation, almost without augmentation."""
    pipeline = InputPipeline.of(model, TARGET)
    data = pipeline.prepare(sample_clips(video, 8, model.stride, seed=7), step_draws(7, 0))
    with torch.no_grad():
        loss = CorrespondenceLoss(model, LOSS, pipeline.targets)
        return loss(*data[1:], (True,)).total.item()


def test_adaptation_is_determined_by_the_seed_even_in_inference_mode(video):
    model = seeded_model(SMALL, 0)
    with torch.inference_mode():
        one = adapt(model, iter(video), 2, seed=1)
    again, other = adapt(model, video, 2, seed=1), adapt(model, video, 2, seed=2)
    assert weights_digest(one) == weights_digest(again) != weights_digest(other)


def test_clips_are_sampled_evenly_from_a_video_that_is_read_once():
    frames = (torch.full((3, 40, 60), number, dtype=torch.uint8) for number in range(12))
    clips_nt3hw = sample_clips(frames, 2000, 4, seed=0)
    assert clips_nt3hw.shape == (2000, CLIP_FRAMES, 3, 40, 60)
    first_n = clips_nt3hw[:, 0, 0, 0, 0].int()
    follows_t = torch.arange(CLIP_FRAMES)[None, :, None, None, None]
    assert (clips_nt3hw == first_n[:, None, None, None, None] + follows_t).all()
    counts = torch.bincount(first_n, minlength=10)
    assert len(counts) == 10
    assert counts.min() > 140  # 200 are expected, with a standard deviation of 13


def test_crops_cover_the_frame_and_move_between_frames():
    columns_w = torch.arange(SIDE + 60, dtype=torch.uint8)
    frame_3hw = columns_w.expand(3, SIDE + 60, -1)
    clips_nt3hw = sample_clips([frame_3hw] * CLIP_FRAMES, 300, 4, seed=0)
    edges_nt = clips_nt3hw[..., 0, 0, [0, -1]].int().amin(dim=-1)
    assert clips_nt3hw.shape[-2:] == (SIDE, SIDE)
    assert (edges_nt.min(), edges_nt.max()) == (0, 60)
    moved_n = (edges_nt[:, 1] - edges_nt[:, 0]).abs()
    assert 16 < moved_n.max() <= 32
    is_mirrored_n = (clips_nt3hw[:, 0, 0, 0].int().diff(dim=1) < 0).all(dim=1)
    assert 100 < is_mirrored_n.sum() < 200


@pytest.mark.parametrize(
    ("frames", "steps", "message"),
    [
        (torch.zeros(2, 3, 32, 32), 1, "a video of 2 frames: expected at least 3"),
        (torch.zeros(3, 3, 3, 32), 1, r"frames \[3, 3, 32\]: expected sides of at least 4"),
        (torch.zeros(3, 3, 32, 32), 0, "0 steps: expected at least 1"),
    ],
)
def test_invalid_videos_and_step_counts_are_refused(frames, steps, message):
    with pytest.raises(InputError, match=message):
        adapt(seeded_model(SMALL, 0), frames.byte(), steps)
