"""The appearance model, which predicts labels from what cells look like."""

import pytest
import torch

from corrflow.propagation.appearance import AppearanceModel

BACK, LEFT, RIGHT = range(3)


def features_of(labels_hw, seed, noise=0.1):
    """Features `[1, 8, h, w]`: a direction for each label, with noise."""
    draw = torch.Generator().manual_seed(seed)
    directions = torch.eye(8)[:, labels_hw]
    return (directions + noise * torch.randn(directions.shape, generator=draw))[None]


def shares(labels_hw):
    return torch.nn.functional.one_hot(labels_hw, 3).movedim(-1, 0)[None].float()


@pytest.fixture
def scene():
    labels_hw = torch.zeros(12, 16, dtype=torch.long)
    labels_hw[3:6, 2:5], labels_hw[4:10, 9:14] = LEFT, RIGHT
    return labels_hw


@pytest.fixture
def model(scene):
    model = AppearanceModel(features_of(scene, 0), 3, stride=8)
    model.learn(features_of(scene, 0), shares(scene), given=True)
    return model


def test_labels_are_recognised_wherever_they_are(scene, model):
    elsewhere = scene.flip(0, 1).roll(3, 1)
    likeness = model.likeness(features_of(elsewhere, 1))
    assert likeness.shape == (1, 3, 12, 16)
    assert torch.equal(likeness[0].argmax(dim=0), elsewhere)
    assert likeness.min() > 0 and likeness.max() <= 1


def test_reweighting_decides_doubtful_copies_and_keeps_certain_ones(scene, model):
    features = features_of(scene, 2)
    doubtful = torch.tensor([0.4, 0.3, 0.3])[None, :, None, None].expand(1, 3, 12, 16)
    weighed = model.reweight(doubtful, features, 0.5)
    assert torch.equal(weighed[0].argmax(dim=0), scene)
    torch.testing.assert_close(weighed.sum(dim=1), torch.ones(1, 12, 16))
    certain = torch.tensor([0.98, 0.01, 0.01])[None, :, None, None].expand(1, 3, 12, 16)
    assert (model.reweight(certain, features, 0.5)[0].argmax(dim=0) == BACK).all()
    torch.testing.assert_close(model.reweight(shares(scene), features, 0.5), shares(scene))
    torch.testing.assert_close(model.reweight(doubtful, features, 0.0), doubtful)


def test_a_late_label_is_learnt_from_its_given_and_its_tracked_frames(scene):
    early = scene.masked_fill(scene == RIGHT, BACK)
    model = AppearanceModel(features_of(scene, 0), 3, stride=8)
    model.learn(features_of(scene, 0), shares(early), given=True)
    for seed in range(1, 4):
        model.learn(features_of(scene, seed), shares(early), given=False)
    right = scene == RIGHT
    before = model.likeness(features_of(scene, 9))[0, :, right].mean(dim=1)
    assert before[RIGHT] < 0.1 < before[BACK]
    model.learn(features_of(scene, 5), shares(scene), given=True)
    entered = model.likeness(features_of(scene, 9))[0, :, right].mean(dim=1)
    for seed in range(6, 12):
        model.learn(features_of(scene, seed), shares(scene), given=False)
    later = model.likeness(features_of(scene, 9))[0, :, right].mean(dim=1)
    assert entered[RIGHT] > 0.4
    assert later[RIGHT] > 0.7 > 0.3 > later[BACK]


def test_videos_in_step_do_not_affect_each_other(scene, model):
    other = scene.flip(1)
    both = AppearanceModel(torch.cat([features_of(scene, 0), features_of(other, 7)]), 3, stride=8)
    both.learn(
        torch.cat([features_of(scene, 0), features_of(other, 7)]),
        torch.cat([shares(scene), shares(other)]),
        given=True,
    )
    features = features_of(scene, 3)
    torch.testing.assert_close(
        both.likeness(torch.cat([features, features]))[:1], model.likeness(features)
    )
    both.select([0])
    torch.testing.assert_close(both.likeness(features), model.likeness(features))


def test_fine_cells_are_subsampled_for_learning(scene):
    features, labels = features_of(scene, 0), shares(scene)
    fine = AppearanceModel(features, 3, stride=4)
    fine.learn(features, labels, given=True)
    coarse = AppearanceModel(features, 3, stride=8)
    coarse.learn(features[..., ::2, ::2], labels[..., ::2, ::2], given=True)
    assert torch.equal(fine.likeness(features), coarse.likeness(features))
