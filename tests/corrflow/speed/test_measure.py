import time
from functools import partial

import pytest
import torch

from corrflow import InputError
from corrflow.speed.machine import measure_limits
from corrflow.speed.measure import Need, Variant, measure

CPU, NEED = torch.device("cpu"), Need(1, 100, 0)


def sleeper(seconds):
    return partial(time.sleep, seconds)


def allocator(mebibytes):
    def allocate():
        torch.ones(mebibytes << 18)

    return allocate


def broken():
    raise InputError("no such thing here")


def dying():
    import os

    return partial(os._exit, 9)


def test_speedups_are_relative_to_the_released_variant_of_the_same_work():
    variants = [
        Variant("nap", "released", partial(sleeper, 0.2), NEED),
        Variant("nap", "ours", partial(sleeper, 0.05), NEED),
        Variant("other", "ours", partial(sleeper, 0.01), NEED),
    ]
    rounds = []
    (theirs, ours, other), failures = measure(
        variants, CPU, repeats=3, on_round=lambda: rounds.append(1)
    )
    assert not failures
    assert len(rounds) == 4
    assert (ours.name, ours.variant, ours.need) == ("nap", "ours", NEED)
    assert theirs.speedup == 1.0
    assert 1 < ours.speedup <= 4.1  # 4, minus what a busy machine adds to the shorter sleep
    assert other.speedup is None
    assert ours.fastest <= ours.seconds <= ours.slowest


def test_peak_memory_is_that_of_the_work_alone():
    variants = [
        Variant("meal", "large", partial(allocator, 200), NEED),
        Variant("meal", "small", partial(allocator, 20), NEED),
    ]
    large, small = measure(variants, CPU, repeats=1).rows
    assert 190 < large.peak_mib < 240
    assert 15 < small.peak_mib < 60


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (broken, "meal, ours: InputError: no such thing here"),
        (dying, "meal, ours: its process died (exit code 9)"),
    ],
)
def test_a_variant_that_fails_is_named_and_the_others_are_measured(build, words):
    rows, failures = measure(
        [
            Variant("meal", "ours", build, NEED),
            Variant("meal", "other", partial(sleeper, 0.01), NEED),
        ],
        CPU,
        repeats=1,
    )
    assert [row.variant for row in rows] == ["other"]
    assert len(failures) == 1
    assert words in failures[0]


def test_the_limits_of_the_machine_have_a_plausible_magnitude():
    limits = measure_limits(CPU)
    assert limits.product > 1e9
    assert limits.convolution > 1e9
    assert limits.bandwidth > 1e8
