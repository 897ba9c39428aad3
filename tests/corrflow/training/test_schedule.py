import pytest
import torch

from corrflow import InputError
from corrflow.training.schedule import ScheduleConfig, step_generator


def test_the_learning_rate_halves_at_the_papers_marks():
    schedule = ScheduleConfig()
    rates = [schedule.rate(clips, 6) for clips in (0, 399_999, 400_000, 600_000, 800_000, 1_000_000, 9_000_000)]
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4, 5e-5, 2.5e-5, 1.25e-5, 1.25e-5])


def test_true_colours_become_rarer_linearly_and_stay():
    schedule = ScheduleConfig(truth_clips=100)
    assert [schedule.truth(clips) for clips in (0, 50, 100, 1000)] == pytest.approx([0.9, 0.75, 0.6, 0.6])


def test_a_steps_draws_depend_on_seed_and_step_alone():
    def draw(seed, step):
        return torch.rand(4, generator=step_generator(seed, step)).tolist()

    assert draw(0, 5) == draw(0, 5)
    assert len({tuple(draw(seed, step)) for seed in range(3) for step in range(3)}) == 9


@pytest.mark.parametrize("change", [{"learning_rate": 0.0}, {"truth_first": 1.5}, {"truth_clips": 0}])
def test_impossible_schedules_are_refused(change):
    with pytest.raises(InputError, match="schedule"):
        ScheduleConfig(**change)
