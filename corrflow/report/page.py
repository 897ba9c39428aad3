"""The report page: its sections and their order. It needs no network, and its script only sorts
tables."""

import math
from dataclasses import dataclass
from pathlib import Path

from corrflow.benchmarks.published import DATA_SETS
from corrflow.benchmarks.results import Result
from corrflow.files import atomic_file
from corrflow.report.charts import THIN_RUNS, charts
from corrflow.report.comparison import (
    Comparison,
    between,
    compare,
    memory,
    number,
    plural,
    rate,
    short,
)
from corrflow.report.markup import escape, note, section
from corrflow.report.overlays import extremes
from corrflow.report.published_table import published_section
from corrflow.report.tables import object_table, overall_table, sequence_table, speed_table

# forbid all requests, whatever a name in the data contains
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class Section:
    """A section about a benchmark."""

    key: str
    """The target of links."""
    title: str
    content: str
    """HTML."""


def write_report(path: Path, title: str, results: list[Result]) -> None:
    """Write a page on one or several results; results on the same benchmark are compared.

    Args:
        path: the HTML file.
        title: the page's title, plain text.
        results: the first result of each benchmark is the baseline of the others.

    Raises:
        InputError: an overlay that can't be read.
    """
    comparisons = compare(results)
    contents = [
        (comparison, [part for part in parts(comparison, 1 / len(comparisons)) if part.content])
        for comparison in comparisons
    ]
    sections = "".join(benchmark_section(comparison, inner) for comparison, inner in contents)
    body = header(title, contents) + f"<main>{sections}{speed_section(comparisons)}</main>"
    with atomic_file(path) as file:
        file.write(document(title, body).encode())


def document(title: str, body: str) -> str:
    """The whole HTML file."""
    style, script = (Path(__file__).with_name(name).read_text() for name in ("page.css", "sort.js"))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" '
        'href="data:,">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body>{body}<script>{script}</script></body></html>\n"
    )


def header(title: str, contents: list[tuple[Comparison, list[Section]]]) -> str:
    """The title, and links to the sections, or to the benchmarks if there are several."""
    links = [(comparison.benchmark.name, heading(comparison)) for comparison, _ in contents]
    if len(contents) == 1:
        links = [(part.key, part.title) for part in contents[0][1]]
    anchors = "".join(
        f'<a href="#{escape(key)}">{escape(name)}</a>' for key, name in [*links, ("speed", "Speed")]
    )
    return (
        f'<header><h1>{escape(title)}</h1><nav aria-label="Parts of this '
        f'page">{anchors}</nav></header>'
    )


def parts(comparison: Comparison, share: float) -> list[Section]:
    """The sections about a benchmark, in order; some may have no content. `share` is its share of
    the page's pictures."""
    key = comparison.benchmark.name
    return [
        Section(
            f"{key}-published", "Compared with published results", published_section(comparison)
        ),
        Section(
            f"{key}-overlays",
            "Best and worst sequences" if comparison.ranked else "Overlays",
            extremes(comparison, share),
        ),
        Section(
            f"{key}-sequences",
            "Sequence by sequence",
            differences(comparison) + sequence_table(comparison),
        ),
        Section(f"{key}-curves", "Over time", curves(comparison)),
        Section(f"{key}-objects", "Object by object", object_table(comparison)),
    ]


def benchmark_section(comparison: Comparison, inner: list[Section]) -> str:
    """An overview, and the other sections."""
    content = "".join(section(3, part.title, part.key, part.content) for part in inner)
    return section(2, heading(comparison), comparison.benchmark.name, overview(comparison), content)


def heading(comparison: Comparison) -> str:
    """The benchmark's title."""
    known = DATA_SETS.get(comparison.benchmark.name)
    return known.title if known else comparison.benchmark.name


def overview(comparison: Comparison) -> str:
    """What was evaluated, and its overall figures."""
    if not comparison.scored:
        warning = (
            "Nothing was scored: the truth is not available. The run's folder holds the files to "
            "submit."
        )
        return (
            scope(comparison)
            + note(warning, "warning")
            + one_run(comparison)
            + note(comparison.benchmark.note)
        )
    figures = overall_table(comparison) + note(comparison.benchmark.note)
    return scope(comparison) + uneven(comparison) + one_run(comparison) + figures


def scope(comparison: Comparison) -> str:
    """A line with runs, protocols, and numbers of sequences and frames."""
    results = [run.result for run in comparison.runs]
    protocols = list(dict.fromkeys(result.protocol for result in results))
    longest = max(results, key=lambda result: result.frames)
    facts = [
        plural(len(results), "run") if len(results) > 1 else comparison.runs[0].label,
        f"protocol{'s' if len(protocols) > 1 else ''} {', '.join(protocols)}",
        plural(len(longest.sequences), "sequence"),
        plural(longest.frames, "frame"),
    ]
    return note(" · ".join(facts), "scope")


def uneven(comparison: Comparison) -> str:
    """A warning if the runs have different sequences."""
    if len(comparison.shared) == len(comparison.sequences):
        return ""
    warning = (
        f"The runs share {len(comparison.shared)} of {len(comparison.sequences)} sequences: their "
        "overall figures are not comparable."
    )
    return note(warning, "warning")


def one_run(comparison: Comparison) -> str:
    """The main figures of a single run; empty for several runs, which the tables compare."""
    run, *others = comparison.runs
    if others:
        return ""
    columns = comparison.benchmark.headline if comparison.scored else ()
    pairs = [
        (short(column), number(run.result.overall.get(column, math.nan))) for column in columns
    ]
    if comparison.scored and (interval := comparison.interval(run)):
        pairs.insert(1, ("95 % interval over sequences", between(interval)))
    pairs += [
        ("frames per second", rate(run.speed)),
        ("peak memory", memory(run.result.peak_bytes)),
    ]
    return (
        '<dl class="tiles">'
        + "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in pairs)
        + "</dl>"
    )


def differences(comparison: Comparison) -> str:
    """A sentence for each run that compares it with the first."""
    return "".join(note(str(difference), "finding") for difference in comparison.differences)


def curves(comparison: Comparison) -> str:
    """The charts, with a note on what they show."""
    drawn = charts(comparison)
    several = any(
        len(run.scores(name)) > 1 for run in comparison.runs for name in comparison.sequences
    )
    each = " Thin lines: each object." if several and len(comparison.runs) <= THIN_RUNS else ""
    return drawn and note(f"Scored frames, from left to right; means over objects.{each}") + drawn


def speed_section(comparisons: list[Comparison]) -> str:
    """The section on speed and memory."""
    explanation = (
        "Seconds of tracking, including reading the frames, summed over all jobs. Peak memory of a "
        "process; on CUDA, of the device."
    )
    return section(2, "Speed", "speed", speed_table(comparisons), note(explanation))
