"""The figures of runs as a text table for the terminal, and their differences to the first run."""

import math

from corrflow.benchmarks.results import Result
from corrflow.report.comparison import Comparison, between, compare, memory, number, rate, short

INTERVAL = len("0.000 to 0.000")


def text_table(results: list[Result]) -> str:
    """A table for each benchmark: headline figures, speed and memory of each result in columns, and
    a line on each run's difference to the first."""
    comparisons = compare(results)
    tables = [lines(comparison) for comparison in comparisons]
    if len(comparisons) > 1:
        tables = [
            [comparison.benchmark.name, *table]
            for comparison, table in zip(comparisons, tables, strict=True)
        ]
    return "\n\n".join("\n".join(table) for table in tables)


def lines(comparison: Comparison) -> list[str]:
    """The lines of a table: a heading, a line per run, and the differences."""
    columns = comparison.benchmark.headline if comparison.scored else ()
    width = max(len(run.label) for run in comparison.runs)
    widths = [max(7, len(short(column))) for column in columns]
    head = [f"{short(column):>{w}}" for column, w in zip(columns, widths, strict=True)]
    intervals = [comparison.interval(run) for run in comparison.runs]
    if any(intervals):
        head.append(f"{'95 % interval':>{INTERVAL}}")
    table = ["  ".join([" " * width, *head, f"{'frames/s':>9}", f"{'memory':>10}"])]
    for run, interval in zip(comparison.runs, intervals, strict=True):
        values = [run.result.overall.get(column, math.nan) for column in columns]
        figures = [f"{fine(value):>{w}}" for value, w in zip(values, widths, strict=True)]
        if any(intervals):
            figures.append(f"{between(interval):>{INTERVAL}}")
        table.append(
            "  ".join(
                [
                    f"{run.label:{width}}",
                    *figures,
                    f"{rate(run.speed):>9}",
                    f"{memory(run.result.peak_bytes):>10}",
                ]
            )
        )
    return table + [str(difference) for difference in comparison.differences]


def fine(value: float) -> str:
    """Format a figure with four decimals, which distinguish runs that are close."""
    return f"{value:.4f}" if abs(value) <= 1 else number(value)
