"""A table of our figures and published ones, in percent, best first; each row says where its
figures are from."""

import math

from corrflow.benchmarks.published import DATA_SETS, DataSet, Published
from corrflow.report.comparison import Comparison, Run, best_first, scale_of, short
from corrflow.report.markup import Cell, Table, escape, note, table


def published_section(comparison: Comparison) -> str:
    """The table with a note on what may be compared.

    It is empty if there are no published figures, or no run evaluated the whole data set by the
    benchmark's rules.
    """
    data = DATA_SETS.get(comparison.benchmark.name)
    runs = [run for run in comparison.runs if data and is_comparable(run, data)]
    if not data or not data.published or not runs:
        return ""
    explanation = (
        "Percent. Published figures are the papers' own unless marked; their training data, "
        "resolutions and protocols differ."
    )
    return note(explanation) + published_table(comparison.column, runs, data)


def is_comparable(run: Run, data: DataSet) -> bool:
    """Whether a run's figures compare with published ones: it has the whole data set, and no
    `reset_gap`."""
    result = run.result
    return bool(result.overall) and not result.reset_gap and data.is_all(result.sequences)


def published_table(headline: str, runs: list[Run], data: DataSet) -> str:
    """Our rows and published ones, best first."""
    known = list(dict.fromkeys(column for entry in data.published for column in entry.figures))
    columns = [headline, *(column for column in known if column != headline)]
    rows = [(our_name(run), percents(run.result.overall, columns)) for run in runs]
    rows += [
        (their_name(entry), [entry.figures.get(column, math.nan) for column in columns])
        for entry in data.published
    ]
    ranked = sorted(range(len(rows)), key=lambda index: best_first(rows[index][1][0]))
    cells = [
        [rows[index][0], *map(percent_cell, rows[index][1], [True] + [False] * len(columns[1:]))]
        for index in ranked
    ]
    ours = frozenset(place for place, index in enumerate(ranked) if index < len(runs))
    return table(
        Table(
            f"Compared with published results on {data.title}",
            ["method", *map(short, columns)],
            cells,
            emphasised=ours,
        )
    )


def our_name(run: Run) -> Cell:
    """The name cell of one of our runs."""
    return named(run.label, '<span class="badge own">measured here</span>')


def their_name(entry: Published) -> Cell:
    """The name cell of a published method."""
    kind = "as reported in later papers" if entry.second_hand else "published"
    return named(entry.method, f'<span class="badge">{kind}</span> {escape(entry.paper)}')


def named(name: str, source: str) -> Cell:
    """A cell with a name and the source of its figures."""
    return Cell(f'{escape(name)} <span class="source">{source}</span>', name)


def percents(figures: dict[str, float], columns: list[str]) -> list[float]:
    """Our figures in percent; those of some benchmarks are shares."""
    shown = [figures.get(column, math.nan) for column in columns]
    return [100 / scale_of(shown) * value for value in shown]


def percent_cell(value: float, barred: bool) -> Cell:
    """A cell with a figure in percent."""
    return Cell(
        "–" if math.isnan(value) else f"{value:.1f}",
        value,
        value / 100 if barred and not math.isnan(value) else None,
    )
