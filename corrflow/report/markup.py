"""The few shapes of HTML that the page is made of. Knows nothing of benchmarks."""

import html
import math
from dataclasses import dataclass

from corrflow.report.comparison import number, signed

escape = html.escape


@dataclass(frozen=True)
class Cell:
    """Of a table: what is shown, and what it is sorted by."""

    shown: str
    """HTML."""
    value: float | str = ""
    bar: float | None = None
    """A bar under the text: 0 to 1 from the left, or from the middle where it is `signed`, -1 to
    1."""
    signed: bool = False
    marked: bool = False
    """As the best."""


@dataclass(frozen=True)
class Table:
    """Rows, one at least, whose first cell names them."""

    caption: str
    """Text; for those who hear the page."""
    head: list[str]
    """Text."""
    rows: list[list[Cell]]
    spans: list[tuple[str, int]] | None = None
    """Headings over several columns each, from the second on, with the number of columns; some may
    be empty."""
    emphasised: frozenset[int] = frozenset()
    """Rows that stand out."""


def words(text: str) -> Cell:
    """Plain text."""
    return Cell(escape(text), text)


def figure_cell(value: float, scale: float | None = None, marked: bool = False) -> Cell:
    """A figure; with a `scale`, over a bar that is full at its end."""
    bar = None if scale is None or math.isnan(value) else min(max(value / scale, 0.0), 1.0)
    return Cell(number(value), value, bar, marked=marked)


def difference_cell(value: float, scale: float) -> Cell:
    """A difference with its sign, over a bar to the left or to the right."""
    if math.isnan(value):
        return Cell("–", value)
    return Cell(signed(value), value, value / scale if scale else 0.0, signed=True)


def table(content: Table) -> str:
    """As HTML; it scrolls on its own where the screen is narrow."""
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
    """A heading over several columns, or none."""
    if not text:
        return f'<td colspan="{columns}"></td>'
    return f'<th colspan="{columns}" scope="colgroup">{escape(text)}</th>'


def head_markup(name: str, below: Cell) -> str:
    """A column's name, where its cells are."""
    return (
        "<th "
        f'scope="col"{" class=text" if isinstance(below.value, str) else ""}>{escape(name)}</th>'
    )


def row_markup(row: list[Cell], emphasised: bool) -> str:
    """A row, its first cell as its heading."""
    first, *rest = row
    name = f'<th scope="row"{sort_value(first)}>{first.shown}</th>'
    return f"<tr{' class=ours' if emphasised else ''}>{name}{''.join(map(cell_markup, rest))}</tr>"


def cell_markup(cell: Cell) -> str:
    """A cell, marked not by colour alone."""
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
    """What the script sorts by; nothing for what has no value, which goes last."""
    if isinstance(cell.value, str):
        return f' data-value="{escape(cell.value)}"' if cell.value else ""
    return "" if math.isnan(cell.value) else f' data-value="{cell.value:.6g}"'


def section(level: int, title: str, key: str, *content: str) -> str:
    """A section under a heading."""
    return f'<section id="{key}"><h{level}>{escape(title)}</h{level}>{"".join(content)}</section>'


def note(text: str, kind: str = "note") -> str:
    """A line of explanation; `kind` warning stands out."""
    return f'<p class="{kind}">{escape(text)}</p>'
