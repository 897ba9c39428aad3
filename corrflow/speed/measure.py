"""Measures variants of one work side by side: each in a process of its own, so that its memory is its own, and by turns, so that
whatever else the machine does falls on all alike.
"""

import contextlib
import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NamedTuple

import torch

from corrflow.errors import InputError
from corrflow.speed.machine import synchronize

Work = Callable[[], None]
MIB = 1 << 20
BASELINE = "released"  # the variant that the others are compared with


class Variant(NamedTuple):
    """One way to do a work."""

    name: str
    """Of the work."""
    variant: str
    """Of the way."""
    build: Callable[[], Work]
    """Makes what the work needs and returns it; called in a new process, so a function of a module, or a `partial` of one."""
    flops: int = 0
    """Operations that the work needs, 0 where they are not counted."""


@dataclass(frozen=True)
class Row:
    """What was measured of one variant."""

    name: str
    variant: str
    seconds: float
    """Median of the rounds."""
    fastest: float
    slowest: float
    speedup: float | None
    """Median over the rounds of the baseline's seconds over this variant's, of the same round; None without a baseline."""
    peak_mib: float | None
    """Most memory beyond what was held when inputs, weights and moments were in place; None where the system does not tell."""
    held_mib: float | None
    """What was held then; on the CPU with the interpreter and torch itself."""
    flops: int
    """Operations that the work needs, counted; 0 where they are not."""


def measure(variants: list[Variant], device: torch.device, repeats: int, on_round: Callable[[], object] = lambda: None) -> list[Row]:
    """Run each variant `repeats` times by turns, after a round that is not counted.

    Raises:
        InputError: a variant can't run here; says which and why.
    """
    context = multiprocessing.get_context("spawn")
    runners = []
    try:
        for variant in variants:
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, variant.build, str(device)), daemon=True)
            process.start()
            theirs.close()
            runners.append((variant, ours, process))
        held = [ask(variant, pipe) for variant, pipe, _ in runners]
        rounds = []
        for _ in range(repeats + 1):
            rounds.append([ask(variant, pipe, "go") for variant, pipe, _ in runners])
            on_round()
    finally:
        for _, pipe, process in runners:
            dismiss(pipe, process)
    return [row_of(variants, rounds[1:], held, i) for i in range(len(variants))]


def dismiss(pipe: Connection, process: SpawnProcess) -> None:
    """End a runner: by its own way out, or by force if it is in the middle of something."""
    with contextlib.suppress(OSError):
        pipe.send("")
    process.join(timeout=5)
    process.terminate()
    process.join()


def ask(variant: Variant, pipe: Connection, word: str = "") -> tuple[float, float | None]:
    """A runner's next answer: (seconds, bytes)."""
    try:
        if word:
            pipe.send(word)
        answer: tuple[float, float | None] | str = pipe.recv()
    except (EOFError, OSError):
        raise InputError(f"bench: {variant.name}, {variant.variant}: its process died: out of memory, perhaps") from None
    if isinstance(answer, str):
        raise InputError(f"bench: {variant.name}, {variant.variant}: {answer}")
    return answer


def row_of(variants: list[Variant], rounds: list[list[tuple[float, float | None]]], held: list[tuple[float, float | None]], i: int) -> Row:
    """The figures of variant `i`."""
    chosen = variants[i]
    seconds = [line[i][0] for line in rounds]
    peaks = [peak for _, peak in (line[i] for line in rounds) if peak is not None]
    base = next((j for j, v in enumerate(variants) if (v.name, v.variant) == (chosen.name, BASELINE)), None)
    speedup = None if base is None else statistics.median(line[base][0] / line[i][0] for line in rounds)
    middle = statistics.median(seconds)
    peak, before = (None if x is None else x / MIB for x in (max(peaks, default=None), held[i][1]))
    return Row(chosen.name, chosen.variant, middle, min(seconds), max(seconds), speedup, peak, before, chosen.flops)


def serve(pipe: Connection, build: Callable[[], Work], device_name: str) -> None:
    """A runner: builds, then does the work each time it is asked."""
    device = torch.device(device_name)
    try:
        work = build()
        gc.collect()
        synchronize(device)
        before = held_bytes(device)
        pipe.send((0.0, before))
        while pipe.recv():
            forget_peak(device)
            begun = time.perf_counter()
            work()
            synchronize(device)
            seconds = time.perf_counter() - begun
            peak = peak_bytes(device)
            pipe.send((seconds, None if peak is None or before is None else peak - before))
    except InputError as error:
        pipe.send(str(error))
    except (RuntimeError, torch.OutOfMemoryError) as error:
        pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0]}")


def held_bytes(device: torch.device) -> float | None:
    """Memory held now: allocated on CUDA, resident on the CPU."""
    return float(torch.cuda.memory_allocated(device)) if device.type == "cuda" else status_bytes("VmRSS")


def peak_bytes(device: torch.device) -> float | None:
    """The most memory held since `forget_peak`."""
    return float(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else status_bytes("VmHWM")


def forget_peak(device: torch.device) -> None:
    """Begin to look for the most memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # 5: the peak of the resident memory


def status_bytes(field: str) -> float | None:
    """A size that Linux tells of this process; None elsewhere."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
    return float(line.split()[1]) * 1024
