import pytest

from corrflow import InputError
from corrflow.training.schedule import ScheduleConfig


def test_the_learning_rate_halves_at_the_papers_numbers_of_clips():
    schedule = ScheduleConfig()
    rates = [
        schedule.learning_rate_at(clips, 6)
        for clips in (0, 399_999, 400_000, 600_000, 800_000, 1_000_000, 9_000_000)
    ]
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4, 5e-5, 2.5e-5, 1.25e-5, 1.25e-5])


def test_the_learning_rate_grows_with_the_root_of_the_batch_size():
    assert ScheduleConfig().learning_rate_at(0, 6) == 2e-4
    assert ScheduleConfig().learning_rate_at(0, 24) == pytest.approx(4e-4)
    assert ScheduleConfig(batch_power=0.0).learning_rate_at(0, 24) == 2e-4
    assert ScheduleConfig(batch_power=1.0, base_batch=12).learning_rate_at(
        400_000, 6
    ) == pytest.approx(0.5e-4)


def test_the_warmup_is_measured_in_clips_at_any_batch_size():
    schedule = ScheduleConfig(
        learning_rate=1.0, batch_power=0.0, warmup_clips=100, halve_after=(200,)
    )
    assert [
        schedule.learning_rate_at(clips, 10) for clips in (0, 40, 90, 100, 199, 200)
    ] == pytest.approx([0.1, 0.5, 1, 1, 1, 0.5])
    assert schedule.learning_rate_at(0, 50) == pytest.approx(0.5)


def test_teacher_forcing_decreases_linearly_and_then_stays_constant():
    schedule = ScheduleConfig(teacher_forcing_clips=100)
    assert [schedule.teacher_forcing_at(clips) for clips in (0, 50, 100, 1000)] == pytest.approx(
        [0.9, 0.75, 0.6, 0.6]
    )


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.0},
        {"teacher_forcing_start": 1.5},
        {"teacher_forcing_clips": 0},
        {"base_batch": 0},
        {"batch_power": 2.0},
        {"warmup_clips": -1},
    ],
)
def test_impossible_schedules_are_refused(change):
    with pytest.raises(InputError, match="schedule"):
        ScheduleConfig(**change)
