"""What the caller did wrong, as one line. Our own bugs are any other exception."""

import math
import re

# of an error's text: its number, and the place in memory of what Pillow was to read
NOISE = re.compile(r"^\[Errno \d+\] | <_io\.BytesIO object at \w+>$")


class DataError(ValueError):
    """A mistake in what the user handed over; the message names value, limit and place."""


class StallError(RuntimeError):
    """Clips that did not come: the storage may be slow, or a worker stuck or killed."""


def check_range(group: str, config: object, names: str, low: float, high: float = math.inf) -> None:
    """Refuse numbers that are out of range.

    Args:
        group: what they are settings of.
        config: has them as attributes.
        names: of the settings, with spaces between; one that is None was not given, of one that is
            a tuple each number counts.
        low: the least that each may be.
        high: the most.

    Raises:
        DataError: one is less, more or not finite; names that one.
    """
    for name in names.split():
        value = getattr(config, name)
        numbers = value if isinstance(value, tuple) else (value,)
        given = [number for number in numbers if number is not None]
        if not all(low <= number <= high and math.isfinite(number) for number in given):
            limits = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
            raise DataError(f"{group}: {name} {value}: expected {limits}")


def check_positive(group: str, config: object, names: str) -> None:
    """As `check_range`, of numbers that must be above 0."""
    for name in names.split():
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise DataError(f"{group}: {name} {value}: expected more than 0")


def reason_of(error: Exception) -> str:
    """An error's text, the same each time."""
    return NOISE.sub("", str(error)) or type(error).__name__
