"""Times the parts of a step: by the clock on the CPU, and by events on CUDA, without waiting for
the device within a step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._distributed_c10d import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

PARTS = ("data", "copy", "forward", "backward", "optimizer")
REDUCE = "allreduce"  # overlaps with backward, and is counted in its time, too


class Span(NamedTuple):
    """The begin and end of a part; a mark is a time in seconds on the CPU, a recorded event on
    CUDA."""

    part: str
    begin: Any
    end: Any


class StepTimer:
    """Times the parts of the steps since the last `restart`."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.spans: list[Span] = []
        self.since = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the block as part `name` of a step. `data`, the wait for the next batch, is timed by
        the clock, since the device is not involved."""
        mark = time.perf_counter if name == "data" else self.mark
        begin = mark()
        try:
            yield
        finally:
            self.spans.append(Span(name, begin, mark()))

    def mark(self) -> Any:
        """A mark for now; on CUDA, for the time when the device gets here."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def reduce(self, _: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        """A DDP communication hook: averages gradients as DDP does, and times it."""
        begin = self.mark()

        def finish(reduced: torch.futures.Future[Tensor]) -> Tensor:
            self.spans.append(Span(REDUCE, begin, self.mark()))
            return reduced.value()

        return allreduce_hook(None, bucket).then(finish)  # type: ignore[arg-type]

    @property
    def seconds(self) -> float:
        """Seconds since the last `restart`."""
        return time.perf_counter() - self.since

    def milliseconds(self, steps: int) -> dict[str, float]:
        """Mean milliseconds per step of each part, by `time_PART`; waits for the device.

        `time_other` is the rest of the elapsed time; it is 0 if the parts add up to more, as they
        do when the wait for data overlaps with the device's work. `time_allreduce` is the time in
        which any all-reduce was running.
        """
        if self.cuda:
            torch.cuda.synchronize()
        totals = {name: sum(self.length(s) for s in self.spans if s.part == name) for name in PARTS}
        totals["other"] = max(self.seconds - sum(totals.values()), 0.0)
        totals[REDUCE] = covered([self.interval(s) for s in self.spans if s.part == REDUCE])
        return {f"time_{name}": 1000 * seconds / steps for name, seconds in totals.items()}

    def length(self, span: Span) -> float:
        """The length of a span in seconds."""
        return between(span.begin, span.end)

    def interval(self, span: Span) -> tuple[float, float]:
        """Begin and end of a span in seconds, counted from the begin of the first span of the same
        part."""
        first = next(s.begin for s in self.spans if s.part == span.part)
        return between(first, span.begin), between(first, span.end)

    def restart(self) -> None:
        """Forget all spans, and start the clock again."""
        self.spans, self.since = [], time.perf_counter()


def between(begin: Any, end: Any) -> float:
    """Seconds from one mark to another."""
    return float(end - begin) if isinstance(begin, float) else float(begin.elapsed_time(end)) / 1000


def covered(intervals: list[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(end - max(begin, reached), 0.0)
        reached = max(reached, end)
    return total
