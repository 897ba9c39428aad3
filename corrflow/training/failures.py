"""What ends a run before its time, and how all ranks end together: losses gone wrong, disks that
are full, data that does not come."""

import math
import statistics
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from corrflow.training.distributed import DistributedContext

WINDOW = 100  # losses that a new one is compared with
MIN_LOSSES = 20  # losses before any is called a spike


class RecurringError(RuntimeError):
    """Training stopped itself for a reason that would come again if the run went on as it is."""


class NonFiniteError(RecurringError):
    """A loss or gradient that is not a number; the weights are those before the step."""


class LossSpikeError(RecurringError):
    """A loss far above those before it. Checkpoints are from before; the weights in memory are
    not."""


class WriteError(RuntimeError):
    """A checkpoint or the log can't be written; what was written before is whole."""


class OtherRankError(RuntimeError):
    """Another rank failed, and reports it itself."""


class ErrorSync:
    """Keeps an error of this rank until the next collective, in which all ranks learn of it."""

    def __init__(
        self, context: DistributedContext, say: Callable[[str], None] | None = None
    ) -> None:
        """`say` is given a line when something is wrong and the run goes on; else it goes to
        stderr."""
        self.context = context
        self.say = say or to_stderr
        self.error: Exception | None = None

    def warn(self, text: str) -> None:
        """Tell of what does not end the run."""
        self.say(f"rank {self.context.rank}: warning: {text}")

    @contextmanager
    def capture(self, writing: str = "") -> Iterator[None]:
        """Keep what goes wrong in the block, in which there is no collective; `writing` names what
        it writes, if it does."""
        try:
            yield
        except Exception as error:
            # raised in `raise_on_all_ranks`: the other ranks would wait for this one for ever
            disk = disk_error(error) if writing else None
            self.error = self.error or (
                WriteError(f"{writing} can't be written: {disk.strerror}") if disk else error
            )

    def raise_on_all_ranks(self, stop: bool = False) -> bool:
        """Whether any rank is to stop. A collective.

        Raises:
            Exception: on a rank that failed, its error; on the others, OtherRankError.
        """
        worst = self.context.all_reduce_max(2 if self.error else int(stop))
        if worst == 2:
            raise self.error or OtherRankError("another rank failed")
        return worst == 1


def disk_error(error: BaseException | None) -> OSError | None:
    """The OSError behind an error: torch.save has one of its own follow it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def to_stderr(text: str) -> None:
    """A line of its own, below a progress bar too."""
    print(f"\n{text}", file=sys.stderr, flush=True)


class SpikeDetector:
    """Compares each loss with the median of those before it. The losses are means over ranks: all
    ranks decide alike."""

    def __init__(self, factor: float, losses: list[float], context: DistributedContext) -> None:
        """Go on after `losses`, as rank 0 has them in its log: a resumed run decides as one that
        was not cut. A collective."""
        self.factor = factor
        before = torch.full((WINDOW,), math.nan, dtype=torch.float64)
        if losses:
            before[-len(losses[-WINDOW:]) :] = torch.tensor(losses[-WINDOW:], dtype=torch.float64)
        context.broadcast(before)
        # NaN: no loss yet
        self.losses = deque((loss for loss in before.tolist() if loss == loss), maxlen=WINDOW)

    def median_below(self, loss: float) -> float | None:
        """The median, if `loss` is a spike above it."""
        median = (
            statistics.median(self.losses)
            if self.factor and len(self.losses) >= MIN_LOSSES
            else None
        )
        self.losses.append(loss)
        return median if median is not None and loss > self.factor * median else None
