"""What point benchmarks have in common: written tracks, and PCK over sets of points.

Shapes: t frames, k points.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from corrflow.benchmarks.benchmark import Benchmark, Scores
from corrflow.benchmarks.tables import write_figures
from corrflow.errors import InputError
from corrflow.files import atomic_file
from corrflow.metrics import mean

Floats = NDArray[np.float64]


class PointBenchmark(Benchmark):
    """A benchmark whose initial labels are points and whose predictions are `TrackedPoints`."""

    kind: Literal["points"] = "points"

    def write_predictions(self, sequence: Any, predicted: list[Any], out: Path) -> None:
        """Write `points/SEQ.json`: for each frame, x and y of each point (null before it is given),
        and whether it is visible."""
        xy_tk2, visible_tk = positions(predicted), visibility(predicted)
        frames = [
            {
                "frame": name,
                "xy": [rounded(point) for point in xy_k2],
                "visible": visible_k.tolist(),
            }
            for name, xy_k2, visible_k in zip(
                self.frame_names(sequence), xy_tk2, visible_tk, strict=True
            )
        ]
        with atomic_file(out / "points" / f"{sequence.name}.json") as file:
            file.write(json.dumps(frames).encode() + b"\n")

    def write_tables(
        self, sequences: Iterable[Any], scores: Mapping[str, Scores], out: Path
    ) -> None:
        """Write `global_results.csv` and `per-sequence_results.csv`."""
        write_figures(self.figures, scores, out)


def rounded(point: Floats) -> list[float | None]:
    """Round to thousandths of a pixel; None for NaN."""
    return [None if np.isnan(value) else round(float(value), 3) for value in point]


def positions(predicted: list[Any]) -> Floats:
    """The positions of `TrackedPoints`, `[T, K, 2]`."""
    return np.stack([np.asarray(located.xy, dtype=np.float64) for located in predicted])


def visibility(predicted: list[Any]) -> NDArray[np.bool_]:
    """The visibility of `TrackedPoints`, `[T, K]`."""
    return np.stack([np.asarray(located.visible, dtype=bool) for located in predicted])


def pooled(scores: Iterable[Scores], measure: str) -> float:
    """Mean of a measure over all scored frames of all these points; NaN if there are none."""
    return mean([value for score in scores for value in score[measure]])


def known(points_k2: NDArray[Any]) -> NDArray[np.bool_]:
    """Which points are given."""
    return np.asarray(~np.isnan(points_k2.sum(axis=-1)))


def inside(points_k2: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """The points that lie within the picture; the others, which can't be tracked, become NaN."""
    out_k2 = (points_k2 < -0.5) | (points_k2 > (width - 0.5, height - 0.5))
    return np.where(out_k2.any(axis=-1, keepdims=True), np.float32(np.nan), points_k2)


def require_points(points_k2: NDArray[np.float32], place: str) -> NDArray[np.float32]:
    """Return the points; InputError if none is given."""
    if not known(points_k2).any():
        raise InputError(f"{place}: no point is visible in the picture: nothing to track")
    return points_k2


def named_scores(
    sequence: str, names: Sequence[str], measures: Mapping[str, Floats]
) -> dict[str, Scores]:
    """Scores by name of the points that are scored in some frame, or of all points if there are no
    frames; measures are `[T, K]`, NaN where a point is not scored."""
    counted = [
        k
        for k in range(len(names))
        if not all(len(of) and np.isnan(of[:, k]).all() for of in measures.values())
    ]
    return {
        f"{sequence}_{names[k]}": {key: of_tk[:, k].tolist() for key, of_tk in measures.items()}
        for k in counted
    }
