"""Draws the logged curves of runs: validation J&F and loss against the clips seen."""

from pathlib import Path
from statistics import fmean
from typing import Any

from corrflow.errors import InputError
from corrflow.files import atomic_file
from corrflow.plotting import check_matplotlib
from corrflow.training.monitor import METRICS, read_lines

POINTS = 60  # of a loss curve, each the mean of the steps around it
Curve = list[tuple[int, float]]  # clips seen, value


def read_curves(run: Path) -> tuple[Curve, Curve]:
    """Read the curves of a run: J&F of each validation (the untrained model has none), and the
    loss; InputError if nothing was logged, or the folder is not a run."""
    if not (run / METRICS).is_file():
        raise InputError(f"run {run}: has no {METRICS}: expected a folder of launch/train.py --run")
    lines = [line for line in read_lines(run / METRICS) if "clips" in line]
    if not lines:
        raise InputError(
            f"run {run}: no step with a count of clips in its {METRICS}: nothing to draw"
        )
    every = -(-len(lines) // POINTS)
    parts = [lines[first : first + every] for first in range(0, len(lines), every)]
    loss = [(part[-1]["clips"], fmean(line["loss"] for line in part)) for part in parts]
    return [
        (line["clips"], line["validation_jf"]) for line in lines if "validation_jf" in line
    ], loss


def draw_curves(runs: dict[str, tuple[Curve, Curve]], path: Path) -> None:
    """Write a PNG with J&F on the left and the loss on the right, a line for each run; InputError
    if matplotlib is not installed."""
    check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    panels: list[Any] = list(figure.subplots(1, 2))
    for name, curves in runs.items():
        for panel, curve, mark in zip(panels, curves, ("o", ""), strict=True):
            panel.plot(
                [clips for clips, _ in curve],
                [value for _, value in curve],
                marker=mark,
                markersize=4,
                label=name,
            )
    for panel, label in zip(panels, ("J&F", "loss"), strict=True):
        panel.set_xlabel("clips")
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
    panels[0].set_ylim(0, 1)  # else chance differences of 0.01 would fill the picture
    panels[0].legend(loc="lower right")
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
