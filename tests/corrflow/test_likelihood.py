"""The likelihood of the true colours, by PyTorch operations and by the kernels, equals that of
upsampled maps."""

import pytest
import torch
import torch.nn.functional as F

from corrflow import likelihood as module
from corrflow.attention.backends import is_available
from corrflow.likelihood import likelihood_eager
from corrflow.loss import CorrespondenceLoss, LossConfig
from corrflow.model import ModelConfig, seeded_model

needs_triton = pytest.mark.skipif(not is_available("triton"), reason="triton is not installed")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# clips, classes, rows and columns of cells, side of a cell in pixels
CASES = [(2, 5, 4, 6, 1), (2, 5, 4, 6, 3), (2, 16, 5, 7, 4), (1, 3, 2, 3, 8), (1, 80, 9, 5, 4)]
CASES += [(2, 2, 1, 1, 4), (1, 3, 1, 5, 2)]


def random_case(clips, classes, height, width, stride):
    """Shares in which the classes of a cell are adjacent in memory, and the classes of one of three
    frames. A training step has both in this layout."""
    draw = torch.Generator().manual_seed(stride)
    copied = torch.rand(clips, height, width, classes, generator=draw).permute(0, 3, 1, 2)
    three_frames = torch.randint(
        classes, (clips, 3, height * stride, width * stride), generator=draw
    )
    return copied.to(DEVICE), three_frames[:, 1].to(DEVICE)


def upsampled(copied, classes):
    """The reference: upsample the map of each class, then select the true class of each pixel."""
    enlarged = F.interpolate(copied, classes.shape[1:], mode="bilinear", align_corners=False)
    return enlarged.gather(1, classes[:, None])[:, 0]


def output_and_gradient(function, copied, classes):
    """The output of a function, and the gradient of the copied shares."""
    copied = copied.detach().requires_grad_()
    out = function(copied, classes)
    draw = torch.Generator().manual_seed(0)
    weights = torch.rand(out.shape, generator=draw, dtype=torch.float64).to(out)
    return out.detach(), torch.autograd.grad((out * weights).sum(), copied)[0]


@pytest.mark.parametrize("case", CASES)
def test_the_eager_likelihood_equals_that_of_upsampled_maps(case):
    copied, classes = random_case(*case)
    inputs = copied.double(), classes
    actual, expected = (
        output_and_gradient(function, *inputs) for function in (likelihood_eager, upsampled)
    )
    torch.testing.assert_close(actual, expected)


@needs_triton
@pytest.mark.parametrize("case", CASES)
def test_the_fused_likelihood_equals_that_of_upsampled_maps(case):
    from corrflow.likelihood import fused

    copied, classes = random_case(*case)
    actual = output_and_gradient(fused.likelihood, copied, classes)
    expected = output_and_gradient(upsampled, copied.double(), classes)
    for ours, exact in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours.double(), exact, atol=1e-6, rtol=1e-6)


@needs_triton
def test_a_training_step_with_the_kernels_has_the_same_gradients(monkeypatch):
    def gradients():
        model = seeded_model(ModelConfig(), seed=0).to(DEVICE).train()
        draw = torch.Generator().manual_seed(0)
        frames = torch.rand(2, 3, 3, 16, 24, generator=draw).to(DEVICE)
        classes = torch.randint(16, (2, 3, 1, 16, 24), generator=draw).to(DEVICE)
        colors = torch.rand(2, 3, 16, 4, 6, generator=draw).softmax(dim=2).to(DEVICE)
        losses = CorrespondenceLoss(model, LossConfig())(frames, colors, classes[:, :, 0], (True,))
        losses.total.backward()
        return [losses.total.detach(), *(p.grad for p in model.parameters())]

    monkeypatch.setattr(module, "has_triton", lambda device: False)
    plain = gradients()
    used = []
    kernels = module.fused_likelihood
    monkeypatch.setattr(module, "has_triton", lambda device: True)
    monkeypatch.setattr(module, "fused_likelihood", lambda *x: used.append(x) or kernels(*x))
    by_kernels = gradients()
    # two hops and two cycles
    assert len(used) == 4
    for ours, theirs in zip(by_kernels, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@needs_triton
def test_the_kernels_pass_torchs_operator_checks():
    from corrflow.likelihood import fused

    copied, classes = random_case(2, 5, 4, 6, 4)
    torch.library.opcheck(fused.likelihood, (copied.requires_grad_(), classes))
