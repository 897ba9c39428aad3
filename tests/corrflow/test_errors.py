"""The checks of settings in `corrflow` and in `shards`, which do not import each other."""

import math
from types import SimpleNamespace
from typing import Literal

import pytest

import corrflow.errors
import shards.errors
from corrflow import ModelConfig, load_model
from shards.reading.clip import ClipConfig
from shards.reading.stream import StreamConfig


@pytest.fixture(
    params=[
        (corrflow.errors, corrflow.errors.InputError),
        (shards.errors, shards.errors.DataError),
    ],
    ids=["corrflow", "shards"],
)
def package(request):
    return request.param


CONFIG = SimpleNamespace(
    steps=-5, batch=8, share=1.5, sides=(3, 0), none=None, infinite=math.inf, odd=math.nan
)


@pytest.mark.parametrize(
    ("names", "limits", "words"),
    [
        ("batch steps", (0,), "steps -5: expected 0 or more"),
        ("batch share", (0, 1), "batch 8: expected 0 to 1"),
        ("share", (0.1, 1), "share 1.5: expected 0.1 to 1"),
        ("sides", (1,), "sides (3, 0): expected 1 or more"),
        ("infinite", (0,), "infinite inf: expected 0 or more"),
        ("odd", (0,), "odd nan: expected 0 or more"),
    ],
)
def test_only_the_setting_that_is_out_of_range_is_named(package, names, limits, words):
    module, error = package
    with pytest.raises(error) as raised:
        module.check_range("trainer", CONFIG, names, *limits)
    assert str(raised.value) == f"trainer: {words}"


def test_settings_that_are_in_range_or_none_are_accepted(package):
    module, _ = package
    module.check_range("trainer", CONFIG, "batch none sides", 0)
    module.check_range("trainer", CONFIG, "steps batch share", -5, 8)
    module.check_positive("trainer", CONFIG, "batch share")


@pytest.mark.parametrize("name", ["steps", "infinite", "odd"])
def test_a_setting_that_must_be_above_0_is_named_if_it_is_not(package, name):
    module, error = package
    with pytest.raises(error, match=rf"trainer: {name} \S+: expected more than 0"):
        module.check_positive("trainer", CONFIG, f"batch {name}")


def test_the_error_for_an_unknown_choice_lists_the_choices(package):
    module, error = package
    module.check_choice("model: input", "lab", Literal["rgb", "lab"])
    with pytest.raises(error, match="model: input 'RGB': expected one of rgb, lab"):
        module.check_choice("model: input", "RGB", Literal["rgb", "lab"])


def test_unknown_choices_are_refused_in_calls_from_python():
    for call, words in (
        (lambda: ModelConfig(input="RGB"), "input 'RGB': expected one of rgb, lab"),
        (lambda: load_model("fast", weights="best"), "weights 'best': expected one of auto, ema"),
        (
            lambda: load_model("fast").accelerate("float16"),
            "'float16': expected one of auto, float",
        ),
        (lambda: ClipConfig(fit="Crop"), "fit 'Crop': expected one of squash, crop"),
        (lambda: StreamConfig(decode="gpu"), "decode 'gpu': expected one of worker, device"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
