"""The tables of figures: overall, per sequence, per object, and speed. The table with published
results is in `published_table.py`."""

import math
from collections.abc import Iterable

from corrflow.report.comparison import (
    Comparison,
    Run,
    best_of,
    between,
    memory,
    rate,
    scale_of,
    short,
)
from corrflow.report.markup import Cell, Table, difference_cell, figure_cell, table, words

WIDEST = 12  # most columns of figures in the table of objects, for several runs
LONGEST = 200  # most objects in a table that is not folded


def overall_table(comparison: Comparison) -> str:
    """The benchmark's global figures, a row for each run, the best of each column marked."""
    columns = list(
        dict.fromkeys(column for run in comparison.runs for column in run.result.overall)
    )
    rows: list[list[Cell]] = [[words(run.label)] for run in comparison.runs]
    for column in columns:
        values = [run.result.overall.get(column, math.nan) for run in comparison.runs]
        best = best_of(column, values)
        is_scaled = column == comparison.column and len(rows) > 1
        scale = scale_of(values) if is_scaled else None
        for index, value in enumerate(values):
            rows[index].append(figure_cell(value, scale, index in best))
    head = ["run", *map(short, columns)]
    intervals = [comparison.interval(run) for run in comparison.runs]
    if any(intervals):
        head.append(f"{short(comparison.column)}: 95 % over sequences")
        for row, interval in zip(rows, intervals, strict=True):
            row.append(words(between(interval)))
    return table(Table("Overall figures of each run", head, rows))


def sequence_table(comparison: Comparison) -> str:
    """A row for each sequence: the headline figures of a single run, or the first headline figure
    of several runs side by side."""
    return (
        compared_sequences(comparison)
        if len(comparison.runs) > 1 and comparison.scored
        else listed_sequences(comparison)
    )


def listed_sequences(comparison: Comparison) -> str:
    """The headline figures of each sequence; only its length if it is not scored."""
    run, columns = comparison.runs[0], comparison.benchmark.headline if comparison.scored else ()
    scales = [
        scale_of(run.figure(name, column) for name in comparison.sequences) for column in columns
    ]
    rows = [
        [
            *sequence_cells(comparison, name),
            *(
                figure_cell(run.figure(name, c), scale)
                for c, scale in zip(columns, scales, strict=True)
            ),
        ]
        for name in comparison.sequences
    ]
    return table(Table("Each sequence", ["sequence", "frames", *map(short, columns)], rows))


def compared_sequences(comparison: Comparison) -> str:
    """The first headline figure of each run, the best marked, and each run's difference to the
    first."""
    column = comparison.column
    ends = difference_scale(comparison)
    rows = []
    for name in comparison.sequences:
        values = [run.figure(name, column) for run in comparison.runs]
        figures = [
            figure_cell(value, marked=i in best_of(column, values))
            for i, value in enumerate(values)
        ]
        rows.append(
            [
                *sequence_cells(comparison, name),
                *figures,
                *(difference_cell(value - values[0], ends) for value in values[1:]),
            ]
        )
    names = [run.label for run in comparison.runs]
    spans = [("", 1), (short(column), len(names)), (f"minus {names[0]}", len(names) - 1)]
    return table(
        Table(
            f"{short(column)} of each sequence",
            ["sequence", "frames", *names, *names[1:]],
            rows,
            spans,
        )
    )


def difference_scale(comparison: Comparison) -> float:
    """The largest difference to the first run, at which a bar is full."""
    first, *others = comparison.runs
    pairs = [
        (run.figure(name, comparison.column), first.figure(name, comparison.column))
        for run in others
        for name in comparison.shared
    ]
    return max(
        (abs(one - other) for one, other in pairs if not math.isnan(one - other)), default=0.0
    )


def sequence_cells(comparison: Comparison, sequence: str) -> list[Cell]:
    """The cells with a sequence's name and length."""
    frames = next(
        run.result.sequences[sequence].frames
        for run in comparison.runs
        if sequence in run.result.sequences
    )
    return [words(sequence), Cell(str(frames), frames)]


def object_table(comparison: Comparison) -> str:
    """The figures of each object; empty if each sequence has only one, since the table of sequences
    then shows them."""
    objects = list(
        dict.fromkeys(
            name
            for seq in comparison.sequences
            for run in comparison.runs
            for name in run.scores(seq)
        )
    )
    if len(objects) <= len(comparison.sequences):
        return ""
    by_run = [object_figures(comparison, run) for run in comparison.runs]
    columns = object_columns(comparison, by_run)
    rows = [
        [
            words(name),
            *(
                figure_cell(figures.get(name, {}).get(column, math.nan))
                for figures in by_run
                for column in columns
            ),
        ]
        for name in objects
    ]
    spans = [(run.label, len(columns)) for run in comparison.runs] if len(by_run) > 1 else None
    drawn = table(
        Table(
            "Each object",
            ["object", *(short(column) for _ in by_run for column in columns)],
            rows,
            spans,
        )
    )
    return (
        f"<details><summary>All {len(rows):,} objects</summary>{drawn}</details>"
        if len(rows) > LONGEST
        else drawn
    )


def object_figures(comparison: Comparison, run: Run) -> dict[str, dict[str, float]]:
    """The benchmark's figures of each object alone, by object."""
    return {
        name: comparison.benchmark.figures({name: scores})
        for sequence in comparison.sequences
        for name, scores in run.scores(sequence).items()
    }


def object_columns(comparison: Comparison, by_run: list[dict[str, dict[str, float]]]) -> list[str]:
    """The columns of the table of objects: for one run all that are defined; for several runs the
    headline ones, or only the first of them if there are too many."""
    if len(by_run) == 1:
        return list(
            dict.fromkeys(
                name
                for figures in by_run[0].values()
                for name, value in figures.items()
                if not math.isnan(value)
            )
        )
    headline = list(comparison.benchmark.headline)
    return headline if len(headline) * len(by_run) <= WIDEST else headline[:1]


def speed_table(comparisons: Iterable[Comparison]) -> str:
    """Frames per second and memory of each run, by benchmark and protocol."""
    head = [
        "run",
        "benchmark",
        "protocol",
        "sequences",
        "frames",
        "seconds",
        "frames/s",
        "peak memory",
    ]
    rows = [speed_row(comparison, run) for comparison in comparisons for run in comparison.runs]
    return table(Table("Speed and memory of each run", head, rows))


def speed_row(comparison: Comparison, run: Run) -> list[Cell]:
    """The row of one run."""
    result = run.result
    sizes = [Cell(f"{value:,}", value) for value in (len(result.sequences), result.frames)]
    seconds = Cell(f"{result.seconds:,.{0 if result.seconds >= 10 else 1}f}", result.seconds)
    held = Cell(memory(result.peak_bytes), float(result.peak_bytes) or math.nan)
    return [
        words(run.label),
        words(comparison.benchmark.name),
        words(result.protocol),
        *sizes,
        seconds,
        Cell(rate(run.speed), run.speed),
        held,
    ]
