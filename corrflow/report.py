"""What was measured, for people: a table for the terminal, and one self-contained HTML page of tables, curves and overlays."""

import base64
import html
import io
from pathlib import Path

import numpy as np
from PIL import Image

from corrflow.benchmarks.benchmark import Scores
from corrflow.benchmarks.davis import statistics
from corrflow.benchmarks.results import Result
from corrflow.files import atomic_file

STRIP_FRAMES = 5
STRIP_WIDTH = 240  # pixels of one frame of a strip
CHART = (320, 96)  # viewBox of a curve
STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1c1e21; --paper: #fff; --line: #d8dce0; --soft: #6a7178; --best: #0b6e4f; --j: #1f6feb; --f: #d9730d;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --paper: #15181b; --line: #363c42; --soft: #9aa3ab; --best: #4fd1a1; --j: #6cb0ff; --f: #ffab5e; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
body { margin: 0 auto; padding: 1.5rem; max-width: 76rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: .95rem; margin: .8rem 0 .3rem; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th { color: var(--soft); font-weight: 500; }
.best { color: var(--best); font-weight: 650; }
.strip { display: flex; gap: 4px; overflow-x: auto; } .strip img { border-radius: 3px; height: auto; flex: 0 0 auto; width: 240px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .6rem; margin-top: .5rem; }
svg { width: 100%; max-width: 24rem; display: block; } svg text { fill: var(--soft); font-size: 8px; }
.note { color: var(--soft); font-size: .9rem; }
"""


def text_table(results: list[Result]) -> str:
    """J, F and J&F of each result, in columns."""
    width = max(len(result.name) for result in results)
    lines = [f"{'':{width}}  {'J&F':>7} {'J':>7} {'F':>7}   frames/s"]
    for result in results:
        figures = " ".join(f"{result.overall[column]:7.4f}" for column in ("J&F-Mean", "J-Mean", "F-Mean"))
        lines.append(f"{result.name:{width}}  {figures}   {result.frames / result.seconds:8.1f}")
    return "\n".join(lines)


def write_report(path: Path, title: str, results: list[Result]) -> None:
    """One page on one or several results of the same sequences."""
    body = [
        f"<h1>{html.escape(title)}</h1>",
        overall_table(results),
        '<p class="note">J: region similarity. F: boundary accuracy. Means over objects; the first and the last frame do not count.</p>',
        *(sequence_section(name, results) for name in results[0].sequences),
        "<h2>Objects</h2>",
        object_table(results),
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )
    with atomic_file(path) as file:
        file.write(page.encode())


def table(head: list[str], rows: list[list[str]]) -> str:
    """An HTML table; cells are HTML."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def marked(values: list[float]) -> list[str]:
    """Numbers as cells, the highest marked where there are several."""
    best = np.nanmax(values) if len(values) > 1 else None
    return [f'<span class="best">{value:.3f}</span>' if value == best else f"{value:.3f}" for value in values]


def overall_table(results: list[Result]) -> str:
    """The benchmark's global figures and the speed, a row for each result."""
    columns = list(results[0].overall)
    values = {column: [result.overall[column] for result in results] for column in columns}
    # decay is not marked: what is lost from the start decays least
    cells = [[f"{v:.3f}" for v in values[column]] if column.endswith("Decay") else marked(values[column]) for column in columns]
    rows = [
        [html.escape(result.name), *(column[i] for column in cells), f"{result.frames / result.seconds:.1f}"]
        for i, result in enumerate(results)
    ]
    return table(["", *map(html.escape, columns), "frames/s"], rows)


def object_table(results: list[Result]) -> str:
    """Mean, recall and decay of J and F of each object, for each result."""
    rows = []
    for name in results[0].scores:
        for result in results:
            region, boundary = statistics(result.scores[name])
            label = name if len(results) == 1 else f"{name} · {result.name}"
            rows.append([html.escape(label), *(f"{value:.3f}" for value in (*region, *boundary))])
    return table(["", "J mean", "J recall", "J decay", "F mean", "F recall", "F decay"], rows)


def sequence_section(name: str, results: list[Result]) -> str:
    """Overlays and curves of one sequence."""
    parts = [f"<h2>{html.escape(name)}</h2>"]
    for result in results:
        parts.append(f"<h3>{html.escape(result.name)}</h3>" + strip(result.out / "overlays" / name))
        charts = [chart(key, score) for key, score in result.scores.items() if key == name or key.rpartition("_")[0] == name]
        parts.append(f'<div class="charts">{"".join(charts)}</div>')
    return "".join(parts)


def strip(folder: Path) -> str:
    """A few overlays of a sequence, evenly spread, embedded."""
    files = sorted(folder.iterdir())
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, min(STRIP_FRAMES, len(files))).round().astype(int)]
    images = []
    for path in chosen:
        with Image.open(path) as image:
            image.thumbnail((2 * STRIP_WIDTH, 2 * STRIP_WIDTH))
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=80)
        data = base64.b64encode(buffer.getvalue()).decode()
        images.append(f'<img alt="{html.escape(folder.name)}, frame {path.stem}" src="data:image/jpeg;base64,{data}">')
    return f'<div class="strip">{"".join(images)}</div>'


def chart(name: str, score: Scores) -> str:
    """J and F over the frames that count, as SVG."""
    width, height = CHART
    left, top, bottom = 18, 6, 18

    def curve(values: list[float], color: str) -> str:
        x = np.linspace(left, width - 2, len(values))
        y = (height - bottom) * (1 - np.asarray(values)) + top
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        return f'<polyline fill="none" stroke="var(--{color})" stroke-width="1.4" points="{points}"/>'

    grid = "".join(
        f'<line x1="{left}" x2="{width}" y1="{y}" y2="{y}" stroke="var(--line)" stroke-width=".6"/><text x="0" y="{y + 3}">{label}</text>'
        for label, y in (("1", top), ("0.5", top + (height - bottom) / 2), ("0", top + height - bottom))
    )
    legend = (
        f'<text x="{left + 4}" y="{height - 1}">{html.escape(name)}: '
        f'<tspan style="fill:var(--j)">J {summary(score["J"])}</tspan> '
        f'<tspan style="fill:var(--f)">F {summary(score["F"])}</tspan></text>'
    )
    curves = curve(score["J"], "j") + curve(score["F"], "f")
    return f'<svg viewBox="0 0 {width} {height + 3}" role="img" aria-label="J and F of {html.escape(name)}">{grid}{curves}{legend}</svg>'


def summary(values: list[float]) -> str:
    """The mean, for a legend."""
    return f"{np.mean(values):.3f}" if values else "no frames"
