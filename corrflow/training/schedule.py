"""Learning rate and scheduled sampling as pure functions of the clips seen, so that resuming needs nothing but the step."""

from dataclasses import dataclass

import torch

from corrflow.errors import InputError


@dataclass(frozen=True)
class ScheduleConfig:
    """Counted in clips, so that it means the same at any batch size and any number of steps."""

    learning_rate: float = 2e-4
    """Of Adam (paper, section 4.1)."""
    halve_after: tuple[int, ...] = (400_000, 600_000, 800_000, 1_000_000)
    """Clips after which the learning rate halves, again each time."""
    truth_first: float = 0.9
    """Probability, at the start, that a hop starts from true colours (paper, section 3.3)."""
    truth_last: float = 0.6
    """The same at the end."""
    truth_clips: int = 1_000_000
    """Clips over which it falls, linearly; the length of the training that is planned."""

    def __post_init__(self) -> None:
        shares = (self.truth_first, self.truth_last)
        if self.learning_rate <= 0 or self.truth_clips < 1 or min(shares) < 0 or max(shares) > 1:
            raise InputError(f"schedule: {self}: expected learning_rate > 0, truth_clips >= 1, probabilities from 0 to 1")

    def rate(self, clips: int) -> float:
        """The learning rate after so many clips."""
        return self.learning_rate * 0.5 ** sum(clips >= mark for mark in self.halve_after)

    def truth(self, clips: int) -> float:
        """The probability of true colours after so many clips: epsilon."""
        done = min(clips / self.truth_clips, 1.0)
        return self.truth_first + (self.truth_last - self.truth_first) * done


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random draws of one step, the same on every rank; a CPU generator."""
    generator = torch.Generator()
    generator.manual_seed((seed * 1_000_003 + step) % 2**63)
    return generator
