"""Decodes the run lengths of COCO and CVAT to pixels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# a character of COCO's packed runs, less FIRST, holds five bits of a number, the lowest first, and
# a bit that says whether more follow; the highest bit of a number's last character is its sign
FIRST, BITS, MORE, SIGN = 48, 0x1F, 0x20, 0x10


def pixels_of_runs(runs: Sequence[int], count: int) -> NDArray[np.bool_]:
    """Pixels `[count]`: the first run is outside of the object, the second inside, and so on.

    Raises:
        ValueError: the runs do not add up to `count`, or one is below 0.
    """
    if min(runs, default=0) < 0 or sum(runs) != count:
        raise ValueError(f"run lengths of {sum(runs)} pixels: expected {count}, none below 0")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def unpack_runs(packed: str) -> list[int]:
    """Decode the runs of COCO's string. From the fourth run on, it holds the difference from the
    run two before.

    Raises:
        ValueError: the string is not COCO's.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in packed:
        bits = ord(letter) - FIRST
        if not 0 <= bits <= BITS + MORE:
            raise ValueError(f"run lengths: letter {letter!r}: expected COCO's")
        value |= (bits & BITS) << shift
        shift += 5
        if bits & MORE:
            continue
        if bits & SIGN:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("run lengths: end within a number")
    return runs
