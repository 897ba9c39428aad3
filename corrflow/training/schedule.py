"""Learning rate and scheduled sampling as pure functions of the clips seen, so that resuming needs
nothing but their count."""

from dataclasses import dataclass

from corrflow.errors import check_positive, check_range


@dataclass(frozen=True)
class ScheduleConfig:
    """Counted in clips, so that it means the same at any batch size and any number of steps."""

    learning_rate: float = 2e-4
    """Learning rate of Adam at a batch of base_batch clips (paper, section 4.1)."""
    base_batch: int = 6
    """Clips of the global batch that learning_rate is meant for."""
    batch_power: float = 0.5
    """At another batch the rate is learning_rate * (batch / base_batch) ** batch_power. 0.5, the
    square root, suits Adam, which divides by the gradient's deviation, and that falls with the root
    of the batch; 1 suits SGD; 0 keeps one rate for all batches."""
    warmup_clips: int = 0
    """Clips over which the rate rises linearly from 0; 0, as released, has no warm-up."""
    halve_after: tuple[int, ...] = (400_000, 600_000, 800_000, 1_000_000)
    """Numbers of clips after each of which the learning rate is halved."""
    teacher_forcing_start: float = 0.9
    """Probability of teacher forcing at the start of training: that a hop copies the true colours
    of its reference frame, not the model's own (scheduled sampling; paper, section 3.3)."""
    teacher_forcing_end: float = 0.6
    """Probability of teacher forcing at the end."""
    teacher_forcing_clips: int = 1_000_000
    """Clips over which the probability changes linearly: the planned length of the training."""

    def __post_init__(self) -> None:
        check_positive("schedule", self, "learning_rate")
        check_range("schedule", self, "teacher_forcing_clips base_batch", 1)
        check_range("schedule", self, "teacher_forcing_start teacher_forcing_end", 0, 1)
        check_range("schedule", self, "warmup_clips", 0)
        check_range("schedule", self, "batch_power", 0, 1)

    def learning_rate_at(self, clips: int, batch: int) -> float:
        """The learning rate of a step on `batch` clips after so many others."""
        peak: float = self.learning_rate * (batch / self.base_batch) ** self.batch_power
        warm = min((clips + batch) / self.warmup_clips, 1.0) if self.warmup_clips else 1.0
        return peak * warm * 0.5 ** sum(clips >= mark for mark in self.halve_after)

    def teacher_forcing_at(self, clips: int) -> float:
        """The probability of true colours after so many clips."""
        done = min(clips / self.teacher_forcing_clips, 1.0)
        return (
            self.teacher_forcing_start
            + (self.teacher_forcing_end - self.teacher_forcing_start) * done
        )
