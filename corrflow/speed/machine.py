"""Measures the machine's limits, with which a step's speed is compared."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

ROUNDS = 5


class Limits(NamedTuple):
    """The limits of one device, the best of a few rounds."""

    product: float
    """Floating-point operations per second of a large matrix product; bfloat16 on CUDA, float32 on
    the CPU."""
    convolution: float
    """Operations per second of the encoder's most common convolution, 3x3 with 256 channels, in the
    same precision."""
    bandwidth: float
    """Bytes per second of a large copy, counting both reads and writes."""

    @property
    def arithmetic(self) -> float:
        """The higher of the two rates of arithmetic."""
        return max(self.product, self.convolution)

    def raised(self, other: "Limits") -> "Limits":
        """The higher of two measurements of each limit, since a measurement on a busy machine is
        too low."""
        return Limits(*(max(pair) for pair in zip(self, other, strict=True)))


def measure_limits(device: torch.device) -> Limits:
    """Measure the limits, which takes a few seconds."""
    cuda = device.type == "cuda"
    dtype, side, batch = (torch.bfloat16, 8192, 64) if cuda else (torch.float32, 1536, 2)
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    frames = torch.randn(batch, 256, 64, 64, device=device, dtype=dtype)
    kernel = torch.randn(256, 256, 3, 3, device=device, dtype=dtype)
    if cuda:
        frames, kernel = (x.to(memory_format=torch.channels_last) for x in (frames, kernel))
    # written once, so that the pages are already allocated
    block, other = torch.ones(2, (1 << 30) if cuda else (1 << 27), device=device, dtype=torch.uint8)
    product, convolution = 2 * side**3, 2 * frames[:, 0].numel() * kernel.numel()
    with torch.inference_mode():
        return Limits(
            product / best_seconds(lambda: a @ b, device),
            convolution / best_seconds(lambda: F.conv2d(frames, kernel, padding=1), device),
            2 * block.numel() / best_seconds(lambda: other.copy_(block), device),
        )


def best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """The shortest time of a few rounds, without the first."""
    times = []
    for _ in range(ROUNDS + 1):
        synchronize(device)
        begun = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
