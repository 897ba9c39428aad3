"""Curves over time as inline SVG, one figure for each sequence.

Only the lines are SVG, stretched to the available width. Text is HTML, so that it keeps its size.
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
POINTS = 300  # of a line, at most; more would exceed a chart's pixels
THIN_RUNS = 2  # each object is drawn too with at most this many runs
COLORS = 8  # number of line colours in the style sheet

Values = NDArray[np.float64]


@dataclass(frozen=True)
class LineStyle:
    """How a line is drawn."""

    label: str
    color: int
    """Index of the colour."""
    thin: bool = True
    """Draw thin lines of each object behind it."""


@dataclass(frozen=True)
class Line:
    """A line of a chart."""

    look: LineStyle
    values: Values
    each: tuple[Values, ...] = ()
    """The lines of each object."""


def charts(comparison: Comparison) -> str:
    """A figure for each sequence: for one run, a chart with all measures; for several, a chart per
    measure with all runs."""
    drawn = "".join(sequence_figure(comparison, name) for name in comparison.sequences)
    return f'<div class="charts">{drawn}</div>' if drawn else ""


def sequence_figure(comparison: Comparison, sequence: str) -> str:
    """The charts of one sequence; empty if it has no scores."""
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
    """The line of a measure's mean over the objects of a sequence, and of each object; None without
    scores."""
    each = [
        np.asarray(scores[measure], np.float64)
        for scores in run.scores(sequence).values()
        if scores.get(measure)
    ]
    if not each:
        return None
    length = max(map(len, each))
    # objects that enter late are aligned at the end
    rows = [np.concatenate([np.full(length - len(values), np.nan), values]) for values in each]
    return Line(look, mean_over(np.stack(rows)), tuple(rows) if look.thin and len(rows) > 1 else ())


def panel(
    name: str,
    measure: str,
    lines: list[Line],
    top: float | None = None,
    shown: Callable[[Values], float] = mean,
) -> str:
    """One chart with its legend.

    Args:
        name: what is drawn, for screen readers.
        measure: a heading; may be empty.
        lines: at least one.
        top: the end of the scale; by default 1 for shares, and 100 for percents.
        shown: computes the figure of a line in the legend.
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
    """The SVG path of a line, with a gap wherever the measure is not defined."""
    values = thinned(values)
    x = np.linspace(0, WIDTH, len(values)) if len(values) > 1 else np.array([WIDTH / 2])
    y = HEIGHT * (1 - values / top)
    places = [None if math.isnan(b) else f"{a:.0f},{b:.1f}" for a, b in zip(x, y, strict=True)]
    pieces = [
        list(piece)
        for defined, piece in groupby(places, key=lambda place: place is not None)
        if defined
    ]
    # a piece of one point is a line of length 0, whose round caps are visible
    drawn = "".join(
        "M" + "L".join(map(str, piece)) + ("h0" if len(piece) == 1 else "") for piece in pieces
    )
    return f'<path class="c{color % COLORS} {kind}" d="{drawn}"/>'


def thinned(values: Values) -> Values:
    """Reduce a long line to means of neighbouring values."""
    if len(values) <= POINTS:
        return values
    return np.array([mean(part) for part in np.array_split(values, POINTS)])


def describe(line: Line) -> str:
    """Describe a line in words."""
    defined = line.values[~np.isnan(line.values)]
    if not defined.size:
        return f"{line.look.label} not defined"
    return (
        f"{line.look.label} mean {number(mean(line.values))}, from {number(float(defined[0]))} to "
        f"{number(float(defined[-1]))}"
    )
