"""Measures variants of one work side by side: each in a process of its own, so that its memory is
its own, and by turns, so that whatever else the machine does falls on all alike.
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

from corrflow.speed.machine import synchronize

Work = Callable[[], None]
MIB = 1 << 20
CUDA_SECONDS = 0.2
BASELINE = "released"  # the variant that the others are compared with


class Need(NamedTuple):
    """What a work needs at least."""

    items: int
    """Frames or clips that one call serves."""
    flops: int
    """Operations."""
    bytes: int
    """Inputs read once and outputs written once; 0 where they are not counted."""


class Variant(NamedTuple):
    """One way to do a work."""

    name: str
    """Of the work."""
    variant: str
    """Of the way."""
    build: Callable[[], Work]
    """Makes what the work needs and returns it; called in a new process, so a function of a module,
    or a `partial` of one."""
    need: Need
    """What the work needs, however it is done."""


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
    """Median over the rounds of the baseline's seconds over this variant's, of the same round; None
    without a baseline."""
    peak_mib: float | None
    """Most memory beyond what was held before the first call, when inputs and weights were in
    place; None where nobody tells."""
    held_mib: float | None
    """What was held then; on the CPU with the interpreter and torch itself."""
    need: Need


class Measured(NamedTuple):
    """What came of a measurement."""

    rows: list[Row]
    failures: list[str]
    """A line for each variant that could not run; the others go on without it."""


def measure(
    variants: list[Variant],
    device: torch.device,
    repeats: int,
    on_round: Callable[[], object] = lambda: None,
) -> Measured:
    """Run each variant `repeats` times by turns, after a round that is not counted."""
    context = multiprocessing.get_context("spawn")
    runners = []
    try:
        for variant in variants:
            ours, theirs = context.Pipe()
            process = context.Process(
                target=serve, args=(theirs, variant.build, str(device)), daemon=True
            )
            process.start()
            theirs.close()
            runners.append(Runner(variant, ours, process))
        for runner in runners:
            runner.prepare()
        for _ in range(repeats + 1):
            for runner in runners:
                runner.go()
            on_round()
    finally:
        for runner in runners:
            runner.dismiss()
    working = [runner for runner in runners if not runner.failure]
    return Measured(
        [row_of(runner, working) for runner in working],
        [runner.failure for runner in runners if runner.failure],
    )


class Runner:
    """A variant at work in its own process, seen from here."""

    def __init__(self, variant: Variant, pipe: Connection, process: SpawnProcess) -> None:
        self.variant, self.pipe, self.process = variant, pipe, process
        self.held: float | None = None
        self.seconds: list[float] = []
        self.peaks: list[float] = []
        self.failure = ""

    def prepare(self) -> None:
        """Wait until it has made what the work needs."""
        if answer := self.answer():
            self.held = answer[1]

    def go(self) -> None:
        """One round."""
        if self.failure:
            return
        with contextlib.suppress(OSError):  # what is wrong with it is seen when it should answer
            self.pipe.send(True)
        if answer := self.answer():
            self.seconds.append(answer[0])
            self.peaks += [] if answer[1] is None else [answer[1]]

    def answer(self) -> tuple[float, float | None] | None:
        """(seconds, bytes), or None after a failure."""
        try:
            outcome: tuple[float, float | None] | str = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(timeout=5)
            outcome = (
                f"its process died (exit code {self.process.exitcode}): out of memory, perhaps"
            )
        if isinstance(outcome, str):
            self.failure = f"{self.variant.name}, {self.variant.variant}: {outcome}"
            return None
        return outcome

    def dismiss(self) -> None:
        """End it: by its own way out, or by force if it is in the middle of something."""
        with contextlib.suppress(OSError):
            self.pipe.send(False)
        self.process.join(timeout=5)
        self.process.terminate()
        self.process.join()


def row_of(runner: Runner, runners: list[Runner]) -> Row:
    """The figures of a runner; the first round, in which things are compiled and cached, does not
    count."""
    name, variant, seconds = runner.variant.name, runner.variant.variant, runner.seconds[1:]
    base = next(
        (r.seconds[1:] for r in runners if (r.variant.name, r.variant.variant) == (name, BASELINE)),
        None,
    )
    speedup = (
        None
        if base is None
        else statistics.median(b / s for b, s in zip(base, seconds, strict=True))
    )
    peak, held = (
        None if x is None else x / MIB for x in (max(runner.peaks[1:], default=None), runner.held)
    )
    return Row(
        name,
        variant,
        statistics.median(seconds),
        min(seconds),
        max(seconds),
        speedup,
        peak,
        held,
        runner.variant.need,
    )


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
            followed = forget_peak(device)
            seconds = time_calls(work, device)
            peak = peak_bytes(device) if followed else None
            pipe.send((seconds, None if peak is None or before is None else peak - before))
            if device.type == "cuda":
                torch.cuda.empty_cache()  # the next one's turn
    # the end of a process: whatever it is, the others go on and the user is told
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def time_calls(work: Work, device: torch.device) -> float:
    """Seconds of a call. On CUDA of as many, one after the other, as fill a fifth of a second,
    after one that fills the allocator's cache: alone, a short one would be the time of its launch,
    and a step would not overlap with the next as in training."""
    if device.type != "cuda":
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun
    work()
    synchronize(device)
    count, begun = 0, time.perf_counter()
    while count < 3 or time.perf_counter() - begun < CUDA_SECONDS:
        work()
        count += 1
        if count % 16 == 0:
            synchronize(device)  # lest thousands of launches queue before the clock is looked at
    synchronize(device)
    return (time.perf_counter() - begun) / count


def held_bytes(device: torch.device) -> float | None:
    """Memory held now: allocated on CUDA, resident on the CPU."""
    return (
        float(torch.cuda.memory_allocated(device))
        if device.type == "cuda"
        else status_bytes("VmRSS")
    )


def peak_bytes(device: torch.device) -> float | None:
    """The most memory held since `forget_peak`."""
    return (
        float(torch.cuda.max_memory_allocated(device))
        if device.type == "cuda"
        else status_bytes("VmHWM")
    )


def forget_peak(device: torch.device) -> bool:
    """Begin to look for the most memory anew; False where the system can't."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")  # 5: the peak of the resident memory
    except OSError:
        return False
    return True


def status_bytes(field: str) -> float | None:
    """A size that Linux tells of this process; None elsewhere."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    sizes = (
        float(line.split()[1]) * 1024
        for line in status.read_text().splitlines()
        if line.startswith(f"{field}:")
    )
    return next(sizes, None)
