"""Embeds a few frames of sequences, with the predictions drawn over them, in the page."""

import base64
import io
import math
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from corrflow.benchmarks.folders import find
from corrflow.errors import InputError
from corrflow.report.comparison import Comparison, Run, number, short
from corrflow.report.markup import escape, note

Item = TypeVar("Item")
EXTREMES = 3  # number of best sequences to show, and of worst ones
FRAMES = 5  # per sequence
PAGE_BYTES = 8e6  # for all pictures of a page, roughly
# bytes per pixel of a JPEG of quality 80 in base64; 0.28 was measured on overlays of five DAVIS
# sequences that show mostly foliage
PICTURE_BYTES = 0.3
WIDTHS = 160, 480  # smallest and largest width of a picture, in pixels


def extremes(comparison: Comparison, share: float) -> str:
    """The leading run's best and worst sequences, in all runs; without scores, a few sequences that
    are evenly spread.

    `share` is the share of the page's bytes for pictures that they may use, from 0 to 1.
    """
    groups = chosen(comparison)
    width = picture_width(sum(map(len, groups.values())) * len(comparison.runs) * FRAMES, share)
    several = len(comparison.runs) > 1 and comparison.ranked
    ranking = (
        note(f"Ranked by {short(comparison.column)} of {comparison.leader.label}.")
        if several
        else ""
    )
    return ranking + "".join(
        f"<h4>{title}</h4>" + "".join(card(comparison, name, width) for name in names)
        for title, names in groups.items()
        if names
    )


def chosen(comparison: Comparison) -> dict[str, list[str]]:
    """The sequences to show, by heading."""
    ranked = comparison.ranked
    if not ranked:
        return {"A few sequences": spread(comparison.sequences, 2 * EXTREMES)}
    if len(ranked) <= 2 * EXTREMES:
        return {"Best to worst": ranked}
    return {"Best": ranked[:EXTREMES], "Worst, the worst first": ranked[: -EXTREMES - 1 : -1]}


def picture_width(count: int, share: float) -> int:
    """The width of each of `count` pictures that fit into a share of a page, for pictures of about
    16:9."""
    pixels = PAGE_BYTES * share / max(count, 1) / PICTURE_BYTES
    return round(min(max(math.sqrt(pixels * 16 / 9), WIDTHS[0]), WIDTHS[1]))


def card(comparison: Comparison, sequence: str, width: int) -> str:
    """A sequence's name, and a strip of frames for each run that has it."""
    runs = [run for run in comparison.runs if sequence in run.result.sequences]
    strips = "".join(run_strip(comparison, run, sequence, width) for run in runs)
    return f'<article class="card"><h5>{escape(sequence)}</h5>{strips}</article>'


def run_strip(comparison: Comparison, run: Run, sequence: str, width: int) -> str:
    """One run's figures and frames."""
    figures = [(column, run.figure(sequence, column)) for column in comparison.benchmark.headline]
    scores = " · ".join(
        f"{short(column)} {number(value)}" for column, value in figures if not math.isnan(value)
    )
    name = f"<b>{escape(run.label)}</b> " if len(comparison.runs) > 1 else ""
    return f'<p class="caption">{name}{escape(scores)}</p>' + strip(
        run.result.out / "overlays" / sequence, f"{sequence}, {run.label}", width
    )


def strip(folder: Path, name: str, width: int) -> str:
    """Evenly spread frames, including the first and the last."""
    files = find(folder, "*.jpg")
    if not files:
        return note(f"No overlays in {folder}.")
    frames = "".join(frame(path, name, width) for path in spread(files, FRAMES))
    return (
        f'<div class="strip" tabindex="0" role="group" aria-label="{escape(name)}: '
        f'frames">{frames}</div>'
    )


def frame(path: Path, name: str, width: int) -> str:
    """One frame with its number below."""
    stem = escape(path.stem)
    return (
        f'<figure><img alt="{escape(name)}, frame {stem}" '
        f"{picture(path, width)}><figcaption>{stem}</figcaption></figure>"
    )


def spread(items: list[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spread."""
    return [
        items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    ]


def picture(path: Path, width: int) -> str:
    """The size and source attributes of an image: a smaller copy as a data URI; InputError names a
    picture that can't be read."""
    buffer = io.BytesIO()
    try:
        with Image.open(path) as image:
            image.thumbnail((width, 4 * width))
            image.convert("RGB").save(buffer, "JPEG", quality=80)
            size = image.size
    # Pillow raises any of these for a damaged file
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"overlay {path}: not a readable image ({error})") from None
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'width="{size[0]}" height="{size[1]}" src="data:image/jpeg;base64,{data}"'
