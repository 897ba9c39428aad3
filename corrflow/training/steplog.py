"""Steps on their way to the log: their numbers stay on the device until `synchronize`, the one
place where it is waited for.

What is written, and how, is in `monitor.py`.
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
    """Steps since the last look."""

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
        """`monitor`: on rank 0, where lines go, those of earlier tries among them; `terms`: the
        names of the loss's terms, in the order of their numbers. A collective."""
        self.terms = terms
        self.config, self.context, self.timer, self.errors = config, context, timer, errors
        self.monitor, self.on_step = monitor, on_step
        self.watch = SpikeDetector(config.spike_factor, monitor.losses if monitor else [], context)
        self.numbers: list[Tensor] = []
        self.keys: list[list[str]] = []
        self.lines: list[dict[str, Any]] = []
        """Those of `numbers`, and those that are known and not yet written."""

    def add(self, numbers: Tensor, line: dict[str, Any], keys: list[str]) -> None:
        """A step was done: its total loss, the terms of it and the gradient norm, still on the
        device."""
        self.numbers.append(numbers)
        self.lines.append(line)
        self.keys.append(keys)

    def synchronize(self) -> None:
        """Look at the losses of the steps since the last time; all ranks do so at the same step.

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
        """Look for what is wrong with a step. Mean losses and the reduced gradient are the same on
        all ranks: so is the verdict."""
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
        """Log the steps whose losses are known, `more` with the last of them."""
        if self.monitor and self.lines:
            self.lines[-1] |= more
            with self.errors.capture(writing=str(self.monitor.path.parent)):
                self.monitor.steps(self.lines)
            self.on_step(self.lines[-1])
        self.lines = []

    def flush(self) -> None:
        """Settle and write."""
        self.synchronize()
        self.write({})
