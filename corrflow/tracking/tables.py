"""Writes what was tracked as a CSV and a JSON, with a row for each object or point of each frame,
frame by frame."""

import csv
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Cell = int | float | bool | str | None


class TrackTable:
    """`STEM.csv` and `STEM.json`, which are complete after `finish`."""

    def __init__(
        self, stem: Path, columns: Sequence[str], head: dict[str, str | int | float]
    ) -> None:
        """Open the files.

        Args:
            stem: path without a suffix.
            columns: names of a row's cells, after `frame` and `seconds`; the first is what a row is
                about, `object` or `point`.
            head: entries at the beginning of the JSON, before `frames`, which holds the rows.
        """
        self.columns, self.opened = tuple(columns), ExitStack()
        stem.parent.mkdir(parents=True, exist_ok=True)
        paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".csv", ".json")]
        files = [
            self.opened.enter_context(path.open("w", newline="", encoding="utf-8"))
            for path in paths
        ]
        self.csv, self.json = csv.writer(files[0], lineterminator="\n"), files[1]
        self.csv.writerow(("frame", "seconds", *self.columns))
        self.json.write(json.dumps(head, ensure_ascii=False).removesuffix("}") + ', "frames": [')
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.opened.close()

    def add(self, number: int, seconds: float, rows: Sequence[Sequence[Cell]]) -> None:
        """Write the rows of the next frame, with its number and time; None is an empty cell."""
        for row in rows:
            self.csv.writerow(
                (number, round(seconds, 6), *("" if cell is None else plain(cell) for cell in row))
            )
        records = [dict(zip(self.columns, row, strict=True)) for row in rows]
        frame = json.dumps(
            {"frame": number, "seconds": round(seconds, 6), f"{self.columns[0]}s": records}
        )
        self.json.write(f"{',' if self.count else ''}\n{frame}")
        self.count += 1

    def finish(self, tail: Mapping[str, Any] | None = None) -> None:
        """Write the end.

        Args:
            tail: entries at the end of the JSON, after `frames`.
        """
        more = "".join(
            f",\n{json.dumps(name)}: {json.dumps(v)}" for name, v in (tail or {}).items()
        )
        self.json.write(f"\n]{more}}}\n")
        self.opened.close()


def plain(cell: Cell) -> str:
    """A cell as a spreadsheet reads it: True and False become 1 and 0."""
    return str(int(cell) if isinstance(cell, bool) else cell)
