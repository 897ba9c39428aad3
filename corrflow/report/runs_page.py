"""A page of training runs: a table of their states, and curves of what they logged. Like the report
it needs no network, and its script only sorts the table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corrflow.files import atomic_file
from corrflow.report.charts import Line, LineStyle, panel
from corrflow.report.markup import Table, escape, note, section, table, words
from corrflow.report.page import document

Values = NDArray[np.float64]


@dataclass(frozen=True)
class RunSummary:
    """One run."""

    cells: Sequence[str]
    """The run's row of the table; the first cell is its name."""
    curves: Mapping[str, Values]
    """Curves by name, with a value for each logged step; empty curves are left out."""


def write_runs_page(
    path: Path, title: str, heads: Sequence[str], runs: Sequence[RunSummary]
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        title: the page's title, plain text.
        heads: headings of the table's columns.
        runs: each gets a row of the table and a group of charts.
    """
    body = f"<header><h1>{escape(title)}</h1></header><main>"
    if runs:
        rows = [[words(cell) for cell in run.cells] for run in runs]
        body += table(Table("State of each run", list(heads), rows))
        drawn = "".join(map(run_charts, runs))
        body += section(2, "Curves", "curves", f'<div class="charts">{drawn}</div>')
    else:
        body += note("There are no runs.", "warning")
    with atomic_file(path) as file:
        file.write(document(title, body + "</main>").encode())


def run_charts(run: RunSummary) -> str:
    """A chart for each curve of a run."""
    panels = "".join(
        panel(
            f"{run.cells[0]}: {name}",
            "",
            [Line(LineStyle(f"{name}, now", color), values)],
            top=curve_top(values),
            shown=lambda line: float(line[-1]),
        )
        for color, (name, values) in enumerate(run.curves.items())
        if len(values)
    )
    if not panels:
        panels = note("has logged nothing yet")
    name = escape(run.cells[0])
    return f'<article class="chart"><h4>{name}</h4><div class="panels">{panels}</div></article>'


def curve_top(values: Values) -> float:
    """The end of a curve's scale: the next 1, 2 or 5 times a power of ten that is not below its
    highest value."""
    highest = float(np.nanmax(values)) or 1.0
    power = 10.0 ** np.floor(np.log10(highest)) if highest > 0 else 1.0
    return float(next(power * step for step in (1, 2, 5, 10) if power * step >= highest))
