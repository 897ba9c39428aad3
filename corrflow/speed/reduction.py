"""Measures all-reduce among processes (a flag, the gradients, four times the gradients), and the
bytes that it sends over the loopback interface."""

import os
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from corrflow.encoders.resnet import ResNetConfig
from corrflow.speed import cost
from corrflow.speed.machine import synchronize
from corrflow.training.distributed import DistributedContext

COUNTERS = Path("/proc/net/dev")  # Linux's counters of bytes sent by each interface


class Reduction(NamedTuple):
    """The measurement of all-reduces of one size."""

    bytes: int
    seconds: float
    """The median."""
    fastest: float
    sent: float | None
    """Bytes that all ranks together sent per all-reduce; None unless all are on this machine and
    its kernel counts them."""


def measure_reduction(context: DistributedContext, repeats: int) -> list[Reduction]:
    """Measure all-reduces of a flag on the CPU and of float32 gradients on the device; every rank
    must call it."""
    gradient = cost.gradient_bytes(ResNetConfig())
    sizes = [
        (4, torch.device("cpu")),
        (gradient, context.device),
        (4 * gradient, context.device),
    ]
    return [measure_size(torch.zeros(size // 4, device=device), repeats) for size, device in sizes]


def measure_size(numbers: torch.Tensor, repeats: int) -> Reduction:
    """Measure `repeats` all-reduces, after one that is not counted."""
    dist.all_reduce(numbers)
    dist.barrier()
    before, times = loopback_bytes(numbers.device), []
    for _ in range(repeats):
        synchronize(numbers.device)
        begun = time.perf_counter()
        dist.all_reduce(numbers)
        synchronize(numbers.device)
        times.append(time.perf_counter() - begun)
    dist.barrier()
    after = loopback_bytes(numbers.device)
    sent = None if before is None or after is None else (after - before) / repeats
    return Reduction(4 * numbers.numel(), statistics.median(times), min(times), sent)


def loopback_bytes(device: torch.device) -> int | None:
    """Bytes sent over the loopback interface since the machine was started; None if the all-reduce
    does not use it."""
    together = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    if device.type == "cuda" or not together or not COUNTERS.exists():
        return None
    lines = [
        line.split() for line in COUNTERS.read_text().splitlines() if line.strip().startswith("lo:")
    ]
    return int(lines[0][9]) if lines else None


def reduction_table(rows: list[Reduction], ranks: int) -> str:
    """A text table with a line per size: times, the rate at which a rank sent, and the bytes sent,
    as counted and by the formula of a ring."""
    lines = [
        f"{ranks} processes\n{'bytes':>12} {'median ms':>10} {'fastest':>10} {'GB/s a rank':>12} "
        f"{'sent, counted':>14} {'by formula':>12}"
    ]
    for row in rows:
        formula = 2 * (ranks - 1) * row.bytes
        counted = "-" if row.sent is None else f"{row.sent:.0f}"
        rate = formula / ranks / row.seconds / 1e9
        lines.append(
            f"{row.bytes:12} {row.seconds * 1e3:10.3f} {row.fastest * 1e3:10.3f} {rate:12.3f} "
            f"{counted:>14} {formula:12}"
        )
    return "\n".join(lines)
