"""The files that sum an evaluation up: tables as CSV, and the archive that is handed in."""

import csv
import io
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from corrflow.benchmarks.benchmark import Scores
from corrflow.files import atomic_file

Figures = Callable[[Mapping[str, Scores]], dict[str, float]]


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Rows, the columns' names first; numbers with six decimals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def write_figures(figures: Figures, scores: Mapping[str, Scores], out: Path) -> None:
    """`global_results.csv` of all objects, and `per-sequence_results.csv`; an object's name is
    `SEQUENCE_OBJECT`."""
    if not (overall := figures(scores)):
        return
    write_csv(out / "global_results.csv", [overall, overall.values()])
    rows = ([name, *figures(part).values()] for name, part in by_sequence(scores).items())
    write_csv(out / "per-sequence_results.csv", [["Sequence", *overall], *rows])


def by_sequence(scores: Mapping[str, Scores]) -> dict[str, dict[str, Scores]]:
    """Objects `SEQUENCE_OBJECT` by their sequence, in order."""
    parts: dict[str, dict[str, Scores]] = {}
    for name, score in scores.items():
        parts.setdefault(name.rpartition("_")[0], {})[name] = score
    return parts


def write_archive(path: Path, files: Mapping[str, Path]) -> None:
    """A zip of `files`, by the name that each has in it; pictures are compressed already, and are
    stored."""
    with atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name in sorted(files):
            # ZipInfo's own date is always the same: the same predictions make the same bytes
            archive.writestr(zipfile.ZipInfo(name), files[name].read_bytes())
