"""The figures of runs as a table for the terminal."""

import math

from corrflow.benchmarks.results import Result
from corrflow.report.comparison import Comparison, compare, memory, number, rate, short


def text_table(results: list[Result]) -> str:
    """The headline figures, speed and memory of each result, in columns; a table for each
    benchmark."""
    comparisons = compare(results)
    tables = [lines(comparison) for comparison in comparisons]
    if len(comparisons) > 1:
        tables = [
            [comparison.benchmark.name, *table]
            for comparison, table in zip(comparisons, tables, strict=True)
        ]
    return "\n\n".join("\n".join(table) for table in tables)


def lines(comparison: Comparison) -> list[str]:
    """A head, and a line for each run."""
    columns = comparison.benchmark.headline if comparison.scored else ()
    width = max(len(run.label) for run in comparison.runs)
    widths = [max(7, len(short(column))) for column in columns]
    head = [f"{short(column):>{w}}" for column, w in zip(columns, widths, strict=True)]
    table = ["  ".join([" " * width, *head, f"{'frames/s':>9}", f"{'memory':>10}"])]
    for run in comparison.runs:
        values = [run.result.overall.get(column, math.nan) for column in columns]
        figures = [f"{fine(value):>{w}}" for value, w in zip(values, widths, strict=True)]
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
    return table


def fine(value: float) -> str:
    """To four digits, which tell runs apart that are close."""
    return f"{value:.4f}" if abs(value) <= 1 else number(value)
