"""Writes the summary files of an evaluation: CSV tables, and the archive for submission."""

import csv
import io
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from corrflow.benchmarks.benchmark import Scores
from corrflow.files import atomic_file

Figures = Callable[[Mapping[str, Scores]], dict[str, float]]


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write rows, the first of which are the columns' names; floats get six decimals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def write_figures(figures: Figures, scores: Mapping[str, Scores], out: Path) -> None:
    """Write `global_results.csv` and `per-sequence_results.csv`; objects are named
    `SEQUENCE_OBJECT`. Without figures, write nothing."""
    if not (overall := figures(scores)):
        return
    write_csv(out / "global_results.csv", [overall, overall.values()])
    rows = ([name, *figures(part).values()] for name, part in by_sequence(scores).items())
    write_csv(out / "per-sequence_results.csv", [["Sequence", *overall], *rows])


def by_sequence(scores: Mapping[str, Scores]) -> dict[str, dict[str, Scores]]:
    """Group objects `SEQUENCE_OBJECT` by their sequence, in order."""
    parts: dict[str, dict[str, Scores]] = {}
    for name, score in scores.items():
        parts.setdefault(name.rpartition("_")[0], {})[name] = score
    return parts


def write_archive(path: Path, files: Mapping[str, Path]) -> None:
    """Write a zip of `files`, given by their names in it; they are stored without compression,
    since pictures are already compressed."""
    with atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name in sorted(files):
            # ZipInfo's default date is constant, so the same predictions give the same bytes
            archive.writestr(zipfile.ZipInfo(name), files[name].read_bytes())
