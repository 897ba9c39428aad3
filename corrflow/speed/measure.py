"""Measures variants of a work side by side: each in its own process, so that its memory can be
measured, and in turns, so that other load on the machine affects all alike."""

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
    """The least that a work needs."""

    items: int
    """Frames or clips per call."""
    flops: int
    """Floating-point operations per call."""
    bytes: int
    """Bytes of the inputs, read once, and of the outputs, written once; 0 if not counted."""


class Variant(NamedTuple):
    """One way of doing a work."""

    name: str
    """Name of the work."""
    variant: str
    """Name of this variant."""
    build: Callable[[], Work]
    """Prepares the inputs and returns the work. It is called in a new process, so it must be a
    function of a module, or a `partial` of one."""
    need: Need
    """The least that the work needs, the same for all variants."""


@dataclass(frozen=True)
class Row:
    """The measurements of one variant."""

    name: str
    variant: str
    seconds: float
    """Seconds per call, the median of the rounds."""
    fastest: float
    slowest: float
    speedup: float | None
    """Median over rounds of the baseline's seconds divided by this variant's in the same round;
    None without a baseline."""
    peak_mib: float | None
    """Peak memory beyond `held_mib`; None if the system does not report it."""
    held_mib: float | None
    """Memory held before the first call, with inputs and weights in place; on the CPU this includes
    the interpreter and torch itself."""
    need: Need


class Measured(NamedTuple):
    """The result of a measurement."""

    rows: list[Row]
    failures: list[str]
    """A line for each variant that could not run; the others are measured without it."""


def measure(
    variants: list[Variant],
    device: torch.device,
    repeats: int,
    on_round: Callable[[], object] = lambda: None,
) -> Measured:
    """Run each variant `repeats` times in turns, after a warm-up round that is not counted."""
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
            runner.shut_down()
    working = [runner for runner in runners if not runner.failure]
    return Measured(
        [row_of(runner, working) for runner in working],
        [runner.failure for runner in runners if runner.failure],
    )


class Runner:
    """The parent's side of a variant that runs in its own process."""

    def __init__(self, variant: Variant, pipe: Connection, process: SpawnProcess) -> None:
        self.variant, self.pipe, self.process = variant, pipe, process
        self.held: float | None = None
        self.seconds: list[float] = []
        self.peaks: list[float] = []
        self.failure = ""

    def prepare(self) -> None:
        """Wait until the process has built the work."""
        if answer := self.answer():
            self.held = answer[1]

    def go(self) -> None:
        """Run one round."""
        if self.failure:
            return
        with contextlib.suppress(OSError):  # the error is reported when the answer is missing
            self.pipe.send(True)
        if answer := self.answer():
            self.seconds.append(answer[0])
            self.peaks += [] if answer[1] is None else [answer[1]]

    def answer(self) -> tuple[float, float | None] | None:
        """Receive (seconds, bytes), or None after a failure."""
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

    def shut_down(self) -> None:
        """End the process: ask it to exit, and terminate it if it does not."""
        with contextlib.suppress(OSError):
            self.pipe.send(False)
        self.process.join(timeout=5)
        self.process.terminate()
        self.process.join()


def row_of(runner: Runner, runners: list[Runner]) -> Row:
    """The figures of a runner, without the first round, which compiles and fills caches."""
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
    """The child process of a runner: builds the work, then runs it each time it is asked to."""
    device = torch.device(device_name)
    try:
        work = build()
        gc.collect()
        synchronize(device)
        before = held_bytes(device)
        pipe.send((0.0, before))
        while pipe.recv():
            followed = reset_peak(device)
            seconds = time_calls(work, device)
            peak = peak_bytes(device) if followed else None
            pipe.send((seconds, None if peak is None or before is None else peak - before))
            if device.type == "cuda":
                torch.cuda.empty_cache()  # for the next process
    # whatever ends this process is reported to the user, and the others go on
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def time_calls(work: Work, device: torch.device) -> float:
    """Seconds per call. On the CPU one call is timed. On CUDA, after a call that fills the
    allocator's cache, calls are repeated for a fifth of a second: a single short call would measure
    the launch, and a single step would not overlap with the next one as in training."""
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
            synchronize(device)  # so that launches do not queue by thousands
    synchronize(device)
    return (time.perf_counter() - begun) / count


def held_bytes(device: torch.device) -> float | None:
    """Memory held now, in bytes: allocated on CUDA, resident on the CPU."""
    return (
        float(torch.cuda.memory_allocated(device))
        if device.type == "cuda"
        else status_bytes("VmRSS")
    )


def peak_bytes(device: torch.device) -> float | None:
    """Peak memory since `reset_peak`, in bytes."""
    return (
        float(torch.cuda.max_memory_allocated(device))
        if device.type == "cuda"
        else status_bytes("VmHWM")
    )


def reset_peak(device: torch.device) -> bool:
    """Reset the peak memory; False if the system does not support it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")  # 5: the peak of the resident memory
    except OSError:
        return False
    return True


def status_bytes(field: str) -> float | None:
    """A size that Linux reports for this process, in bytes; None on other systems."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    sizes = (
        float(line.split()[1]) * 1024
        for line in status.read_text().splitlines()
        if line.startswith(f"{field}:")
    )
    return next(sizes, None)
