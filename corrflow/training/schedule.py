"""Learning rate and scheduled sampling as pure functions of the clips seen, so that resuming needs
only their count."""

from dataclasses import dataclass

from corrflow.errors import check_positive, check_range


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate and teacher forcing over the clips seen, independent of batch size and number
    of steps."""

    learning_rate: float = 2e-4
    """Adam's learning rate at a global batch of base_batch clips (paper, section 4.1)."""
    base_batch: int = 6
    """The global batch that learning_rate is meant for, in clips."""
    batch_power: float = 0.5
    """At another batch the learning rate is learning_rate * (batch / base_batch) ** batch_power.
    0.5 suits Adam, which divides by the gradient's standard deviation, since that falls with the
    square root of the batch. 1 suits SGD; 0 uses one rate for all batches."""
    warmup_clips: int = 0
    """Clips over which the learning rate rises linearly from 0; 0, as released, means no
    warm-up."""
    halve_after: tuple[int, ...] = (400_000, 600_000, 800_000, 1_000_000)
    """The learning rate is halved after each of these numbers of clips."""
    teacher_forcing_start: float = 0.9
    """Probability of teacher forcing at the start of training. With teacher forcing a hop copies
    the true colours of its reference frame, not the model's own copy (scheduled sampling; paper,
    section 3.3)."""
    teacher_forcing_end: float = 0.6
    """Probability of teacher forcing at the end."""
    teacher_forcing_clips: int = 1_000_000
    """Clips over which the probability changes linearly, usually the planned length of the
    training."""

    def __post_init__(self) -> None:
        check_positive("schedule", self, "learning_rate")
        check_range("schedule", self, "teacher_forcing_clips base_batch", 1)
        check_range("schedule", self, "teacher_forcing_start teacher_forcing_end", 0, 1)
        check_range("schedule", self, "warmup_clips", 0)
        check_range("schedule", self, "batch_power", 0, 1)

    def learning_rate_at(self, clips: int, batch: int) -> float:
        """The learning rate of a step on `batch` clips, after `clips` clips have been seen."""
        peak: float = self.learning_rate * (batch / self.base_batch) ** self.batch_power
        warm = min((clips + batch) / self.warmup_clips, 1.0) if self.warmup_clips else 1.0
        return peak * warm * 0.5 ** sum(clips >= mark for mark in self.halve_after)

    def teacher_forcing_at(self, clips: int) -> float:
        """The probability of teacher forcing after `clips` clips have been seen."""
        done = min(clips / self.teacher_forcing_clips, 1.0)
        return (
            self.teacher_forcing_start
            + (self.teacher_forcing_end - self.teacher_forcing_start) * done
        )
