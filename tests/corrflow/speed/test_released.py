import pytest
import torch

from corrflow import CorrFlow, ModelConfig, restricted_attention
from corrflow.attention.window import Window
from corrflow.encoders.resnet import ResNetConfig
from corrflow.loss import CorrespondenceLoss, LossConfig
from corrflow.palette import CLASSES
from corrflow.propagation import Protocol, propagate
from corrflow.speed import released

SMALL = ModelConfig(ResNetConfig((4, 4, 8, 8), (1, 1, 1, 1), 8), radius=2)


def test_the_released_attention_equals_ours():
    query, key, value = (torch.randn(2, n, 9, 11) for n in (8, 8, 3))
    theirs = released.copy(query, key, value, Window(3))
    torch.testing.assert_close(
        theirs, restricted_attention(query, key, value, radius=3), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("truth", [True, False])
def test_the_released_loss_equals_ours(truth):
    torch.manual_seed(0)
    model = CorrFlow(SMALL).eval()
    frames, classes = torch.rand(2, 3, 3, 32, 32), torch.randint(CLASSES, (2, 3, 32, 32))
    colors = released.shrunk_labels(classes.flatten(0, 1)).unflatten(0, (2, 3))
    ours = CorrespondenceLoss(model, LossConfig())(frames, colors, classes, (truth,))
    torch.testing.assert_close(released.losses(model, frames, classes, truth), ours.total)


def test_the_released_tracking_equals_ours_if_each_cell_has_one_label():
    torch.manual_seed(0)
    model, frames = CorrFlow(SMALL).eval(), torch.rand(2, 1, 3, 32, 48)
    labels = torch.randint(3, (8, 12)).repeat_interleave(4, 0).repeat_interleave(4, 1)
    with torch.no_grad():
        theirs = released.track(model, frames[0], frames[1], labels[None])[0]
    # without hardening, labels are upsampled linearly, as in the released code
    near = Protocol("near", radius=4 * SMALL.radius, hardening=0.0)
    ours = propagate(model, frames[:, 0], labels, near)
    assert torch.equal(theirs, ours[1])
