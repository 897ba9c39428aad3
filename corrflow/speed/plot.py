"""Draws how time and memory grow: one picture of measured rows."""

import itertools
from pathlib import Path

from corrflow.errors import InputError
from corrflow.files import atomic_file
from corrflow.speed.measure import Row

INSTALL = "pip install matplotlib"


def draw_growth(series: dict[str, list[tuple[int, list[Row]]]], path: Path) -> None:
    """Seconds and extra memory against what grows, a pair of panels for each of `series`; a PNG at `path`.

    Args:
        series: what grows (the label of the axis) -> its values, each with the rows measured there.
        path: where to write.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter
    except ImportError:
        raise InputError(f"plot: matplotlib is not installed: {INSTALL}") from None
    figure = Figure(figsize=(4.2 * len(series), 6.4), layout="constrained")
    panels = figure.subplots(2, len(series), squeeze=False, sharex="col")
    for column, (label, points) in enumerate(series.items()):
        values = [value for value, _ in points]
        for variant in dict.fromkeys(row.variant for row in itertools.chain.from_iterable(rows for _, rows in points)):
            rows = [next(row for row in found if row.variant == variant) for _, found in points]
            panels[0][column].plot(values, [row.seconds for row in rows], marker="o", label=variant)
            extra = [row.peak_mib for row in rows if row.peak_mib is not None]
            if len(extra) == len(rows):
                panels[1][column].plot(values, extra, marker="o", label=variant)
        panels[0][column].set_ylabel("seconds")
        panels[1][column].set_ylabel("extra memory, MiB")
        panels[1][column].set_xlabel(label)
        for panel in panels[:, column]:
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
            panel.set_xticks(values)
            panel.grid(alpha=0.3)
        panels[0][column].legend()
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
