"""What ends a run early (bad losses, full disks, unreadable data), and how all ranks end
together."""

import math
import statistics
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from corrflow.training.distributed import DistributedContext

WINDOW = 100  # number of losses that a new one is compared with
MIN_LOSSES = 20  # number of losses before the first may be called a spike


class RecurringError(RuntimeError):
    """Training stopped for a reason that would recur if the run were resumed unchanged."""


class NonFiniteError(RecurringError):
    """A loss or gradient is not finite; the weights are those before the step."""


class LossSpikeError(RecurringError):
    """A loss is far above those before it. Checkpoints are from before the spike; the weights in
    memory are not."""


class WriteError(RuntimeError):
    """A checkpoint or the log can't be written; earlier files are intact."""


class OtherRankError(RuntimeError):
    """Another rank failed and reports the error itself."""


class ErrorSync:
    """Holds an error of this rank until the next collective, in which all ranks learn of it."""

    def __init__(
        self, context: DistributedContext, log: Callable[[str], None] | None = None
    ) -> None:
        """`log` is called with each warning while the run goes on; without it, warnings go to
        stderr."""
        self.context = context
        self.log = log or to_stderr
        self.error: Exception | None = None

    def warn(self, text: str) -> None:
        """Report a problem that does not end the run."""
        self.log(f"rank {self.context.rank}: warning: {text}")

    @contextmanager
    def capture(self, writing: str = "") -> Iterator[None]:
        """Hold an error that is raised in the block, which must contain no collective; `writing`
        names what the block writes, if anything."""
        try:
            yield
        except Exception as error:
            # it is raised in `raise_on_all_ranks`; raised here, it would leave the other ranks
            # waiting
            disk = disk_error(error) if writing else None
            self.error = self.error or (
                WriteError(f"{writing} can't be written: {disk.strerror}") if disk else error
            )

    def raise_on_all_ranks(self, stop: bool = False) -> bool:
        """Return whether any rank wants to stop. A collective.

        Raises:
            Exception: on a rank that failed, its error; on the others, OtherRankError.
        """
        worst = self.context.all_reduce_max(2 if self.error else int(stop))
        if worst == 2:
            raise self.error or OtherRankError("another rank failed")
        return worst == 1


def disk_error(error: BaseException | None) -> OSError | None:
    """The OSError that caused an error, since torch.save raises another error on top of it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def to_stderr(text: str) -> None:
    """Print to stderr on a new line, so as not to run into a progress bar."""
    print(f"\n{text}", file=sys.stderr, flush=True)


class SpikeDetector:
    """Compares each loss with the median of those before it. Losses are means over ranks, so all
    ranks decide alike."""

    def __init__(self, factor: float, losses: list[float], context: DistributedContext) -> None:
        """Start after `losses`, which rank 0 has in its log, so that a resumed run decides as an
        uninterrupted one would. A collective."""
        self.factor = factor
        before = torch.full((WINDOW,), math.nan, dtype=torch.float64)
        if losses:
            before[-len(losses[-WINDOW:]) :] = torch.tensor(losses[-WINDOW:], dtype=torch.float64)
        context.broadcast(before)
        # NaN: no loss yet
        self.losses = deque((loss for loss in before.tolist() if loss == loss), maxlen=WINDOW)

    def median_below(self, loss: float) -> float | None:
        """Add `loss`; return the median of those before it if `loss` is a spike, else None."""
        median = (
            statistics.median(self.losses)
            if self.factor and len(self.losses) >= MIN_LOSSES
            else None
        )
        self.losses.append(loss)
        return median if median is not None and loss > self.factor * median else None
