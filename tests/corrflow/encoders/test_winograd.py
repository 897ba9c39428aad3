"""Winograd convolution compared with torch's own, with gradients."""

import pytest
import torch
import torch.nn.functional as F

from corrflow.encoders.resnet import ResNet, ResNetConfig
from corrflow.encoders.winograd import convolve


@pytest.mark.parametrize("size", [(24, 24), (5, 7), (1, 1), (4, 9)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_equal_the_plain_convolution(size, layout):
    draw = torch.Generator().manual_seed(1)
    x_nchw = (
        torch.randn(2, 5, *size, generator=draw, dtype=torch.float64)
        .to(memory_format=layout)
        .requires_grad_()
    )
    kernel = torch.randn(7, 5, 3, 3, generator=draw, dtype=torch.float64).requires_grad_()
    ours, plain = convolve(x_nchw, kernel), F.conv2d(x_nchw, kernel, padding=1)
    torch.testing.assert_close(ours, plain)
    grad = torch.randn(plain.shape, generator=draw, dtype=torch.float64)
    found, wanted = (torch.autograd.grad(y, (x_nchw, kernel), grad) for y in (ours, plain))
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_error_in_single_precision_is_small():
    draw = torch.Generator().manual_seed(2)
    x_nchw, kernel = (
        torch.randn(2, 256, 24, 24, generator=draw),
        torch.randn(256, 256, 3, 3, generator=draw),
    )
    plain = F.conv2d(x_nchw, kernel, padding=1)
    assert (convolve(x_nchw, kernel) - plain).abs().max() < 3e-5 * plain.abs().max()


def test_the_kernel_gets_a_gradient_even_if_the_input_needs_none():
    kernel = torch.randn(4, 3, 3, 3, requires_grad=True)
    convolve(torch.randn(1, 3, 8, 8), kernel).sum().backward()
    assert kernel.grad is not None and kernel.grad.shape == kernel.shape


def test_an_encoder_has_the_same_features_with_and_without_winograd():
    torch.manual_seed(3)
    encoder = ResNet(ResNetConfig(widths=(8, 128, 128, 128), depths=(1, 1, 1, 1))).eval()
    frames, names = torch.rand(2, 3, 32, 48), list(encoder.state_dict())
    plain = encoder(frames)
    assert encoder.use_winograd(True)
    torch.testing.assert_close(encoder(frames), plain, atol=1e-4, rtol=1e-3)
    assert not torch.equal(encoder(frames), plain), "both ways were the direct one"
    assert list(encoder.state_dict()) == names
    assert not encoder.use_winograd(False)
    torch.testing.assert_close(encoder(frames), plain, atol=0, rtol=0)
    assert not ResNet(ResNetConfig(widths=(8, 16, 32, 32), depths=(1, 1, 1, 1))).use_winograd(
        True
    ), "narrow ones stay as they are"
