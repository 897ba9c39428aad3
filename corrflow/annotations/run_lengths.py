"""Run lengths, as COCO and CVAT have them, to pixels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# of a letter of COCO's packed runs: five bits of a number, the lowest first, and whether more
# follow; the highest of the last letter is the sign
FIRST, BITS, MORE, SIGN = 48, 0x1F, 0x20, 0x10


def pixels_of_runs(runs: Sequence[int], count: int) -> NDArray[np.bool_]:
    """Pixels `[count]`, of which the first run is outside, the second inside, and so on.

    Raises:
        ValueError: the runs are of another number of pixels.
    """
    if min(runs, default=0) < 0 or sum(runs) != count:
        raise ValueError(f"run lengths of {sum(runs)} pixels: expected {count}, none below 0")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def unpack_runs(packed: str) -> list[int]:
    """The runs of COCO's string, in which from the fourth on each is less the one before the last.

    Raises:
        ValueError: it is no such string.
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
