"""The HTML elements that the page consists of; knows nothing about benchmarks."""

import html
import math
from dataclasses import dataclass

from corrflow.report.comparison import number, signed

escape = html.escape


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what is shown, and the value to sort by."""

    shown: str
    """HTML."""
    value: float | str = ""
    bar: float | None = None
    """Length of a bar under the text: 0 to 1, from the left; if `signed`, -1 to 1, from the
    middle."""
    signed: bool = False
    marked: bool = False
    """Mark the cell as the best."""


@dataclass(frozen=True)
class Table:
    """A table of at least one row; the first cell of each row is its heading."""

    caption: str
    """Text, for screen readers."""
    head: list[str]
    """Text."""
    rows: list[list[Cell]]
    spans: list[tuple[str, int]] | None = None
    """Headings that span several columns, from the second column on, with their numbers of columns;
    a heading may be empty."""
    emphasised: frozenset[int] = frozenset()
    """Indices of rows to highlight."""


def words(text: str) -> Cell:
    """A cell of plain text."""
    return Cell(escape(text), text)


def figure_cell(value: float, scale: float | None = None, marked: bool = False) -> Cell:
    """A cell with a figure; with a `scale`, over a bar that is full at that value."""
    bar = None if scale is None or math.isnan(value) else min(max(value / scale, 0.0), 1.0)
    return Cell(number(value), value, bar, marked=marked)


def difference_cell(value: float, scale: float) -> Cell:
    """A cell with a signed difference, over a bar to the left or right."""
    if math.isnan(value):
        return Cell("–", value)
    return Cell(signed(value), value, value / scale if scale else 0.0, signed=True)


def table(content: Table) -> str:
    """The HTML of a table, which scrolls by itself on a narrow screen."""
    kind = ' class="sortable"' if len(content.rows) > 1 else ""
    spans = (
        f"<tr><td></td>{''.join(span_markup(*span) for span in content.spans)}</tr>"
        if content.spans
        else ""
    )
    head = "".join(
        head_markup(name, cell) for name, cell in zip(content.head, content.rows[0], strict=True)
    )
    rows = "".join(
        row_markup(row, index in content.emphasised) for index, row in enumerate(content.rows)
    )
    caption = escape(content.caption)
    return (
        '<div class="scroll" tabindex="0" role="group" '
        f'aria-label="{caption}"><table{kind}><caption>{caption}</caption>'
        f'<thead>{spans}<tr class="names">{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def span_markup(text: str, columns: int) -> str:
    """A heading over several columns, or an empty cell."""
    if not text:
        return f'<td colspan="{columns}"></td>'
    return f'<th colspan="{columns}" scope="colgroup">{escape(text)}</th>'


def head_markup(name: str, below: Cell) -> str:
    """A column's heading, aligned like its cells."""
    return (
        "<th "
        f'scope="col"{" class=text" if isinstance(below.value, str) else ""}>{escape(name)}</th>'
    )


def row_markup(row: list[Cell], emphasised: bool) -> str:
    """A row, with its first cell as heading."""
    first, *rest = row
    name = f'<th scope="row"{sort_value(first)}>{first.shown}</th>'
    return f"<tr{' class=ours' if emphasised else ''}>{name}{''.join(map(cell_markup, rest))}</tr>"


def cell_markup(cell: Cell) -> str:
    """A cell; the best is marked by text as well as by style."""
    shown = (
        f'<b class="best">{cell.shown}<span class="unseen"> best</span></b>'
        if cell.marked
        else cell.shown
    )
    if cell.bar is None:
        kind = " class=text" if isinstance(cell.value, str) else ""
        return f"<td{kind}{sort_value(cell)}>{shown}</td>"
    kind = "signed " + ("more" if cell.bar >= 0 else "less") if cell.signed else "bar"
    return f'<td class="{kind}"{sort_value(cell)} style="--share:{abs(cell.bar):.3f}">{shown}</td>'


def sort_value(cell: Cell) -> str:
    """The attribute that the script sorts by; empty for a cell without value, which goes last."""
    if isinstance(cell.value, str):
        return f' data-value="{escape(cell.value)}"' if cell.value else ""
    return "" if math.isnan(cell.value) else f' data-value="{cell.value:.6g}"'


def section(level: int, title: str, key: str, *content: str) -> str:
    """A section with a heading."""
    return f'<section id="{key}"><h{level}>{escape(title)}</h{level}>{"".join(content)}</section>'


def note(text: str, kind: str = "note") -> str:
    """A line of explanation; the kind `warning` is highlighted."""
    return f'<p class="{kind}">{escape(text)}</p>'
