"""Errors of the user, as one-line messages. Any other exception is a bug of ours."""

import math
from typing import Any, get_args

LARGEST_SEED = 2**63 - 1  # the largest that torch takes


class InputError(ValueError):
    """A mistake in the user's input; the message names value, limit and place."""


def check_range(group: str, config: object, names: str, low: float, high: float = math.inf) -> None:
    """Refuse numbers that are out of range.

    Args:
        group: the group of settings, which the message begins with.
        config: the object whose attributes are checked.
        names: the settings' names, separated by spaces. None is accepted, and of a tuple each
            number is checked.
        low: the smallest value allowed.
        high: the largest value allowed.

    Raises:
        InputError: a value is out of range or not finite; the message names it.
    """
    for name in names.split():
        value = getattr(config, name)
        numbers = value if isinstance(value, tuple) else (value,)
        given = [number for number in numbers if number is not None]
        if not all(low <= number <= high and math.isfinite(number) for number in given):
            limits = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
            raise InputError(f"{group}: {name} {value}: expected {limits}")


def check_positive(group: str, config: object, names: str) -> None:
    """Refuse settings that are not positive and finite; arguments as for `check_range`."""
    for name in names.split():
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise InputError(f"{group}: {name} {value}: expected more than 0")


def check_choice(what: str, value: object, choices: Any) -> None:
    """Refuse a value that a Literal type does not list; Python itself does not check it."""
    known = get_args(choices)
    if value not in known:
        raise InputError(f"{what} {value!r}: expected one of {', '.join(known)}")
