"""Collects steps for the log: losses stay on the device until `synchronize`, the only place that
waits for the device.

`monitor.py` writes the log.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from corrflow.memory import peak_bytes
from corrflow.training.config import TrainerConfig
from corrflow.training.distributed import DistributedContext
from corrflow.training.failures import ErrorSync, LossSpikeError, NonFiniteError, SpikeDetector
from corrflow.training.monitor import Monitor
from corrflow.training.timing import StepTimer

OnStep = Callable[[dict[str, Any]], None]


class StepLog:
    """The steps since the last write to the log."""

    def __init__(
        self,
        config: TrainerConfig,
        context: DistributedContext,
        timer: StepTimer,
        errors: ErrorSync,
        monitor: Monitor | None,
        on_step: OnStep,
        terms: list[str],
    ) -> None:
        """`monitor` is the log, on rank 0 only; `terms` are the names of the loss terms in the
        order of their values. A collective."""
        self.terms = terms
        self.config, self.context, self.timer, self.errors = config, context, timer, errors
        self.monitor, self.on_step = monitor, on_step
        self.watch = SpikeDetector(config.spike_factor, monitor.losses if monitor else [], context)
        self.numbers: list[Tensor] = []
        self.keys: list[list[str]] = []
        self.lines: list[dict[str, Any]] = []
        """The lines of the steps in `numbers`, after those whose losses are known but not yet
        written."""

    def add(self, numbers: Tensor, line: dict[str, Any], keys: list[str]) -> None:
        """Add a step; `numbers` are its total loss, loss terms and gradient norm, still on the
        device."""
        self.numbers.append(numbers)
        self.lines.append(line)
        self.keys.append(keys)

    def synchronize(self) -> None:
        """Read and check the losses of the steps since the last call; all ranks must call it at the
        same step.

        Raises:
            NonFiniteError, LossSpikeError: on all ranks.
        """
        if not self.numbers:
            return
        table = self.context.all_reduce_mean(torch.stack(self.numbers)).tolist()
        passed = self.timer.seconds
        times = self.timer.milliseconds(len(table))
        speed = {
            "clips_per_second": len(table) * self.config.batch / passed,
            "data_wait": times["time_data"] * len(table) / 1000 / passed,
            "memory_gb": peak_bytes(self.context.device) / 1e9,
            **times,
        }
        keys, self.numbers, self.keys = self.keys, [], []
        before = len(self.lines) - len(table)
        for number, (total, *terms, norm) in enumerate(table):
            line = self.lines[before + number]
            line["loss"] = total
            line |= {f"{name}_loss": term for name, term in zip(self.terms, terms, strict=True)}
            line |= {"gradient_norm": norm, **speed}
            self.check_loss(before + number, ", ".join(keys[number]))
        self.timer.restart()

    def check_loss(self, number: int, keys: str) -> None:
        """Check a step's loss and gradient norm. The mean losses and the reduced gradient are the
        same on all ranks, so all come to the same verdict."""
        line = self.lines[number]
        step, loss, norm = line["step"], line["loss"], line["gradient_norm"]
        place = f"its clips on rank {self.context.rank}: {keys}"
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise NonFiniteError(f"step {step}: loss {loss}, gradient norm {norm}; {place}")
        median = self.watch.median_below(loss)
        if median is None:
            return
        message = (
            f"step {step}: loss {loss:.4g} is {loss / median:.1f} times the median {median:.4g} of "
            f"those before; {place}"
        )
        if self.config.on_spike == "warn":
            self.errors.warn(message)
            return
        self.lines = self.lines[: number + 1]
        self.write({})
        raise LossSpikeError(message)

    def write(self, more: dict[str, Any]) -> None:
        """Write the steps whose losses are known, and `more` with the last of them."""
        if self.monitor and self.lines:
            self.lines[-1] |= more
            with self.errors.capture(writing=str(self.monitor.path.parent)):
                self.monitor.steps(self.lines)
            self.on_step(self.lines[-1])
        self.lines = []

    def flush(self) -> None:
        """Synchronise, and write all steps."""
        self.synchronize()
        self.write({})
