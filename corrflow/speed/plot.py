"""Plots how time and memory grow with a size."""

from pathlib import Path

from corrflow.files import atomic_file
from corrflow.plotting import check_matplotlib
from corrflow.speed.measure import Row


def draw_growth(series: dict[str, list[tuple[int, list[Row]]]], path: Path) -> None:
    """Plot seconds and extra memory against a size, in a pair of panels for each of `series`, to a
    PNG.

    Args:
        series: maps the label of the size to its values, each with the rows measured at it.
        path: where to write.

    Raises:
        InputError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(4.2 * len(series), 6.4), layout="constrained")
    panels = figure.subplots(2, len(series), squeeze=False, sharex="col")
    for column, (label, points) in enumerate(series.items()):
        values = [value for value, _ in points]
        for variant in dict.fromkeys(row.variant for _, rows in points for row in rows):
            # a variant is missing where it did not fit
            here = [
                (value, row) for value, rows in points for row in rows if row.variant == variant
            ]
            panels[0][column].plot(
                [value for value, _ in here],
                [row.seconds for _, row in here],
                marker="o",
                label=variant,
            )
            extra = [(value, row.peak_mib) for value, row in here if row.peak_mib]
            if extra:
                panels[1][column].plot(
                    [value for value, _ in extra],
                    [peak for _, peak in extra],
                    marker="o",
                    label=variant,
                )
        panels[0][column].set_ylabel("seconds")
        panels[1][column].set_ylabel("extra memory, MiB")
        panels[1][column].set_xlabel(label)
        for panel in (panel for panel in panels[:, column] if panel.lines):
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
            panel.set_xticks(values)
            panel.grid(alpha=0.3)
        panels[0][column].legend()
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
