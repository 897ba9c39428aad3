"""Our figures beside published ones, in percent, the best first; what is not ours says so in its row."""

import math

from corrflow.benchmarks.published import DATA_SETS, DataSet, Published
from corrflow.report.comparison import Comparison, Run, best_first, scale_of, short
from corrflow.report.markup import Cell, Table, escape, note, table


def published_section(comparison: Comparison) -> str:
    """The table with a note on what may be compared; nothing where nothing was published or nothing is scored."""
    data = DATA_SETS.get(comparison.benchmark.name)
    if not data or not data.published or not comparison.scored:
        return ""
    told = "Percent. Published figures are the papers' own unless marked; their training data, resolutions and protocols differ."
    return warning(comparison, data) + note(told) + published_table(comparison, data)


def warning(comparison: Comparison, data: DataSet) -> str:
    """Where we evaluated on less than they did, or on more: another list."""
    count = max(len(run.result.sequences) for run in comparison.runs)
    if count == data.sequences:
        return ""
    told = (
        f"{count} of {data.sequences} sequences"
        if count < data.sequences
        else f"{count} sequences, not the {data.sequences} of the papers,"
    )
    return note(f"{told} were evaluated here: these figures do not compare with the published ones.", "warning")


def published_table(comparison: Comparison, data: DataSet) -> str:
    """Ours and theirs, the best first."""
    known = list(dict.fromkeys(column for entry in data.published for column in entry.figures))
    columns = [comparison.column, *(column for column in known if column != comparison.column)]
    rows = [(our_name(run), percents(run.result.overall, columns)) for run in comparison.runs]
    rows += [(their_name(entry), [entry.figures.get(column, math.nan) for column in columns]) for entry in data.published]
    ranked = sorted(range(len(rows)), key=lambda index: best_first(rows[index][1][0]))
    cells = [[rows[index][0], *map(percent_cell, rows[index][1], [True] + [False] * len(columns[1:]))] for index in ranked]
    ours = frozenset(place for place, index in enumerate(ranked) if index < len(comparison.runs))
    return table(Table(f"Beside published results on {data.title}", ["method", *map(short, columns)], cells, emphasised=ours))


def our_name(run: Run) -> Cell:
    """One of the runs."""
    return named(run.label, '<span class="badge own">measured here</span>')


def their_name(entry: Published) -> Cell:
    """One of the papers' methods."""
    kind = "as reported in later papers" if entry.second_hand else "published"
    return named(entry.method, f'<span class="badge">{kind}</span> {escape(entry.paper)}')


def named(name: str, source: str) -> Cell:
    """A name over where its figures come from."""
    return Cell(f'{escape(name)} <span class="source">{source}</span>', name)


def percents(figures: dict[str, float], columns: list[str]) -> list[float]:
    """Our figures, of which some benchmarks' are shares."""
    found = [figures.get(column, math.nan) for column in columns]
    return [100 / scale_of(found) * value for value in found]


def percent_cell(value: float, barred: bool) -> Cell:
    """A figure in percent."""
    return Cell("–" if math.isnan(value) else f"{value:.1f}", value, value / 100 if barred and not math.isnan(value) else None)
