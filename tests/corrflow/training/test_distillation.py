"""A small encoder that learns the features of a trained one."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_trainer import ALONE, SMALL, config, fit

from corrflow import CorrFlow, InputError, load_model
from corrflow.distillation import FLOOR, DistillationLoss, whitening_matrix
from corrflow.model import seeded_model
from corrflow.training.checkpoint import checkpoint_path
from corrflow.training.trainer import Trainer

COARSE = replace(SMALL, encoder=replace(SMALL.encoder, strides=(1, 2, 2, 1)))
FRAMES = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def teacher(tmp_path):
    seeded_model(SMALL, 5).save_pretrained(tmp_path / "teacher")
    return str(tmp_path / "teacher")


def loss_of(student, teacher):
    return DistillationLoss(student, teacher, torch.device("cpu"))(FRAMES, None, None, ()).total


def test_the_loss_is_the_whitened_distance_to_the_teachers_features(teacher):
    frames = FRAMES.flatten(0, 1)
    same = load_model(teacher)
    assert loss_of(same, teacher).item() == pytest.approx(0, abs=1e-8)
    other = seeded_model(COARSE, 6).eval()
    taught = overlapping_means(same.encode_input(frames))
    cells = (other.encode_input(frames) - taught).movedim(1, -1).flatten(0, 2).double()
    spread = torch.cov(taught.movedim(1, -1).flatten(0, 2).double().T)
    noise = FLOOR * spread.diagonal().mean() * torch.eye(len(spread))
    expected = (cells @ torch.linalg.inv(spread + noise) * cells).sum(dim=1).mean() / len(spread)
    assert loss_of(other, teacher).item() == pytest.approx(expected.item(), rel=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        half = loss_of(other, teacher)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(expected.item(), rel=0.05)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_teacher_computes_in_its_own_precision(precision):
    frames = FRAMES.flatten(0, 1)
    loss = DistillationLoss(load_model("base"), "base", torch.device("cpu"), precision)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        taught = loss.teach(frames)
    exact = load_model("base").double().encode_input(frames.double())
    error = (taught - exact).norm() / exact.norm()
    # Winograd convolution of bfloat16 would have three times the error of the direct one
    assert error < {"float32": 1e-5, "bfloat16": 0.008}[precision]


def overlapping_means(cells):
    """Means over 2x2 cells, weighted by a triangle that reaches a cell beyond them."""
    weights = torch.outer(*2 * [torch.tensor([1.0, 3.0, 3.0, 1.0])]).expand(cells.shape[1], 1, 4, 4)
    total, weight = (
        F.conv2d(x, weights, stride=2, padding=1, groups=cells.shape[1])
        for x in (cells, torch.ones_like(cells))
    )
    return total / weight


def test_whitening_limits_the_variance_in_all_directions():
    mixed = torch.randn(4000, 8) @ torch.diag(torch.logspace(0, 3, 8)) @ torch.randn(8, 8)
    root = whitening_matrix(mixed.T.reshape(1, 8, 40, 100))
    variances = torch.linalg.eigvalsh(torch.cov(root @ mixed.T))
    assert float(variances.max()) < 1
    torch.testing.assert_close(root, root.T)


def test_a_student_learns_and_its_checkpoint_holds_only_the_student(teacher, tmp_path):
    settings = config(steps=30, batch=2, ema_clips=5.0)
    settings = replace(
        settings,
        model=COARSE,
        loss=replace(settings.loss, teacher=teacher),
        schedule=replace(settings.schedule, learning_rate=5e-3, base_batch=2),
    )
    before = loss_of(Trainer(tmp_path / "new", settings, ALONE).model.eval(), teacher)
    fit(tmp_path / "whole", settings)
    after = load_model(checkpoint_path(tmp_path / "whole", 30), weights="last")
    assert loss_of(after, teacher).item() < 0.7 * before.item()
    assert after.state_dict().keys() == CorrFlow(COARSE).state_dict().keys()
    calls = iter([False] * 7 + [True])
    fit(tmp_path / "cut", settings, stop=lambda: next(calls))
    fit(tmp_path / "cut", settings)
    resumed = load_model(checkpoint_path(tmp_path / "cut", 30), weights="last").state_dict()
    assert all(torch.equal(weight, resumed[name]) for name, weight in after.state_dict().items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input": "lab"}, "input rgb, 8 channels at stride 4: expected lab, 8 channels"),
        ({"encoder": replace(SMALL.encoder, features=16)}, "expected rgb, 16 channels"),
        ({"encoder": replace(SMALL.encoder, strides=(1, 1, 1, 1))}, "a stride that divides 2"),
    ],
)
def test_a_teacher_that_does_not_fit_the_student_is_refused(teacher, change, words):
    with pytest.raises(InputError, match=words):
        loss_of(CorrFlow(replace(SMALL, **change)), teacher)
