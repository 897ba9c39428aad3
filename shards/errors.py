"""Errors that tell users of a mistake in one line. Any other exception is a bug of ours."""

import math
import re
from typing import Any, get_args

# parts of an error's text to drop: its number, and the memory address of a buffer that Pillow read
NOISE = re.compile(r"^\[Errno \d+\] | <_io\.BytesIO object at \w+>$")


class DataError(ValueError):
    """A mistake in the user's input; the message names value, limit and place."""


class StallError(RuntimeError):
    """Clips did not arrive: the storage may be slow, or a worker may be stuck or killed."""


def check_range(group: str, config: object, names: str, low: float, high: float = math.inf) -> None:
    """Check that numbers are in a range.

    Args:
        group: name of the group of settings, for messages.
        config: has the settings as attributes.
        names: of the settings, separated by spaces. A setting of None is skipped; of a tuple, each
            number is checked.
        low: the smallest allowed value.
        high: the largest allowed value.

    Raises:
        DataError: a setting is out of range or not finite; names it.
    """
    for name in names.split():
        value = getattr(config, name)
        numbers = value if isinstance(value, tuple) else (value,)
        given = [number for number in numbers if number is not None]
        if not all(low <= number <= high and math.isfinite(number) for number in given):
            limits = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
            raise DataError(f"{group}: {name} {value}: expected {limits}")


def check_positive(group: str, config: object, names: str) -> None:
    """Like `check_range`, for numbers that must be above 0."""
    for name in names.split():
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise DataError(f"{group}: {name} {value}: expected more than 0")


def reason_of(error: Exception) -> str:
    """An error's text without parts that vary from run to run."""
    return NOISE.sub("", str(error)) or type(error).__name__


def check_choice(what: str, value: object, choices: Any) -> None:
    """Refuse a value that a Literal type does not list; Python itself does not check it."""
    known = get_args(choices)
    if value not in known:
        raise DataError(f"{what} {value!r}: expected one of {', '.join(known)}")
