"""Curves over time as inline SVG, one figure for each sequence.

Lines alone are SVG, stretched to the width that there is; words are HTML, so that they keep their
size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from corrflow.metrics import mean, mean_over
from corrflow.report.comparison import Comparison, Run, number, scale_of
from corrflow.report.markup import escape

WIDTH, HEIGHT = 600, 100  # of the viewBox
POINTS = 300  # of a line, at most: more than a chart has pixels for
THIN_RUNS = 2  # at most so many show each object: more would be a tangle
COLORS = 8  # of the style sheet

Values = NDArray[np.float64]


@dataclass(frozen=True)
class LineStyle:
    """How a line is drawn."""

    label: str
    color: int
    """Its number."""
    thin: bool = True
    """With thin lines behind it, of each object."""


@dataclass(frozen=True)
class Line:
    """Of a chart."""

    look: LineStyle
    values: Values
    each: tuple[Values, ...] = ()
    """The objects' own."""


def charts(comparison: Comparison) -> str:
    """A figure for each sequence. One run: its measures in one chart. Several: a chart for each
    measure, with all runs in it."""
    drawn = "".join(sequence_figure(comparison, name) for name in comparison.sequences)
    return f'<div class="charts">{drawn}</div>' if drawn else ""


def sequence_figure(comparison: Comparison, sequence: str) -> str:
    """The charts of one sequence; nothing where it has no scores."""
    measures, runs = comparison.benchmark.curves, comparison.runs
    if len(runs) == 1:
        panels = {
            "": [
                measure_line(runs[0], sequence, measure, LineStyle(measure, i))
                for i, measure in enumerate(measures)
            ]
        }
    else:
        panels = {
            m: [
                measure_line(
                    run, sequence, m, LineStyle(run.label, run.number, len(runs) <= THIN_RUNS)
                )
                for run in runs
            ]
            for m in measures
        }
    lines = {
        measure: [line for line in panel_lines if line] for measure, panel_lines in panels.items()
    }
    drawn = "".join(
        panel(f"{sequence} {measure}".strip(), measure, panel_lines)
        for measure, panel_lines in lines.items()
        if panel_lines
    )
    return (
        f'<article class="chart"><h4>{escape(sequence)}</h4><div '
        f'class="panels">{drawn}</div></article>'
        if drawn
        else ""
    )


def measure_line(run: Run, sequence: str, measure: str, look: LineStyle) -> Line | None:
    """A measure's mean over the objects of a sequence, and each of them; None where it has none."""
    each = [
        np.asarray(scores[measure], np.float64)
        for scores in run.scores(sequence).values()
        if scores.get(measure)
    ]
    if not each:
        return None
    length = max(map(len, each))
    # what enters late ends with the others
    rows = [np.concatenate([np.full(length - len(values), np.nan), values]) for values in each]
    return Line(look, mean_over(np.stack(rows)), tuple(rows) if look.thin and len(rows) > 1 else ())


def panel(
    name: str,
    measure: str,
    lines: list[Line],
    top: float | None = None,
    shown: Callable[[Values], float] = mean,
) -> str:
    """One chart with its key.

    Args:
        name: of what is drawn, for those who hear the page.
        measure: a heading, or nothing.
        lines: at least one.
        top: where the scale ends; None: where that of shares or percents does.
        shown: the figure of a line that stands in the key.
    """
    top = top or scale_of(
        value for line in lines for values in (line.values, *line.each) for value in values
    )
    length = max(len(line.values) for line in lines)
    description = escape(f"{name} over time: " + "; ".join(map(describe, lines)))
    thin = "".join(
        path(values, top, line.look.color, "each") for line in lines for values in line.each
    )
    drawn = thin + "".join(path(line.values, top, line.look.color, "mean") for line in lines)
    grid = "".join(f'<path class="grid" d="M0,{y}H{WIDTH}"/>' for y in (0, HEIGHT // 2, HEIGHT))
    key = "".join(
        f'<li class="c{line.look.color % COLORS}">{escape(line.look.label)} '
        f"{number(shown(line.values))}</li>"
        for line in lines
    )
    title = f'<span class="measure">{escape(measure)}</span>' if measure else ""
    return (
        f'<figure><figcaption>{title}<ul class="key">{key}</ul></figcaption><div class="plot">'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{description}">{grid}{drawn}</svg>'
        f'<span class="y">{top:g}</span><span class="y half">{top / 2:g}</span><span class="y '
        'zero">0</span>'
        f'<span class="x">1</span><span class="x last">{length}</span></div></figure>'
    )


def path(values: Values, top: float, color: int, kind: str) -> str:
    """A line, with a gap wherever the measure is not defined."""
    values = thinned(values)
    x = np.linspace(0, WIDTH, len(values)) if len(values) > 1 else np.array([WIDTH / 2])
    y = HEIGHT * (1 - values / top)
    places = [None if math.isnan(b) else f"{a:.0f},{b:.1f}" for a, b in zip(x, y, strict=True)]
    pieces = [
        list(piece)
        for defined, piece in groupby(places, key=lambda place: place is not None)
        if defined
    ]
    # a piece of one point is a line of no length, whose round ends are seen
    drawn = "".join(
        "M" + "L".join(map(str, piece)) + ("h0" if len(piece) == 1 else "") for piece in pieces
    )
    return f'<path class="c{color % COLORS} {kind}" d="{drawn}"/>'


def thinned(values: Values) -> Values:
    """Of a long line, means of neighbours."""
    if len(values) <= POINTS:
        return values
    return np.array([mean(part) for part in np.array_split(values, POINTS)])


def describe(line: Line) -> str:
    """In words."""
    defined = line.values[~np.isnan(line.values)]
    if not defined.size:
        return f"{line.look.label} not defined"
    return (
        f"{line.look.label} mean {number(mean(line.values))}, from {number(float(defined[0]))} to "
        f"{number(float(defined[-1]))}"
    )
