"""What the machine can do at most: the measured rates that a step is held against."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

ROUNDS = 5


class Limits(NamedTuple):
    """Measured on one device, the best of a few rounds."""

    product: float
    """Floating-point operations per second of a large matrix product; bfloat16 on CUDA, float32 on
    the CPU."""
    convolution: float
    """Of the encoder's commonest convolution, 3x3 of 256 channels, in the same precision."""
    bandwidth: float
    """Bytes per second of a large copy, those read and those written."""

    @property
    def arithmetic(self) -> float:
        """The higher rate of the two."""
        return max(self.product, self.convolution)

    def raised(self, other: "Limits") -> "Limits":
        """The higher of two measurements of each; a limit that was measured while the machine was
        busy is none."""
        return Limits(*(max(pair) for pair in zip(self, other, strict=True)))


def measure_limits(device: torch.device) -> Limits:
    """Measure; takes a few seconds."""
    cuda = device.type == "cuda"
    dtype, side, batch = (torch.bfloat16, 8192, 64) if cuda else (torch.float32, 1536, 2)
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    frames = torch.randn(batch, 256, 64, 64, device=device, dtype=dtype)
    kernel = torch.randn(256, 256, 3, 3, device=device, dtype=dtype)
    if cuda:
        frames, kernel = (x.to(memory_format=torch.channels_last) for x in (frames, kernel))
    # written once: the pages are there
    block, other = torch.ones(2, (1 << 30) if cuda else (1 << 27), device=device, dtype=torch.uint8)
    product, convolution = 2 * side**3, 2 * frames[:, 0].numel() * kernel.numel()
    with torch.inference_mode():
        return Limits(
            product / best_seconds(lambda: a @ b, device),
            convolution / best_seconds(lambda: F.conv2d(frames, kernel, padding=1), device),
            2 * block.numel() / best_seconds(lambda: other.copy_(block), device),
        )


def best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """The least time of a few rounds, the first left out."""
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
