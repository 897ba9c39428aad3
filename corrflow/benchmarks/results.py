"""What came of an evaluation, and the files that hold it: `metrics.json`, and apart from it `speed.json`, which differs each time."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corrflow.benchmarks.benchmark import Scores
from corrflow.benchmarks.plan import PLAN, Done
from corrflow.errors import InputError
from corrflow.files import atomic_file

METRICS, SPEED = "metrics.json", "speed.json"


@dataclass(frozen=True)
class SequenceResult:
    """One sequence of one method."""

    frames: int
    seconds: float
    """Of tracking alone, reading the frames included."""
    scores: dict[str, Scores]
    """Of each object; none where the truth is not public."""
    figures: dict[str, float]
    """The benchmark's, of these objects."""


@dataclass(frozen=True)
class Result:
    """One method on one benchmark."""

    name: str
    """What the tables call it."""
    benchmark: str
    protocol: str
    out: Path
    """Where its predictions, overlays and figures are."""
    overall: dict[str, float]
    """The benchmark's figures; none where nothing can be scored."""
    sequences: dict[str, SequenceResult]
    peak_bytes: int
    """Memory of a process at its most; on CUDA, the device's."""

    @property
    def scores(self) -> dict[str, Scores]:
        """Of all objects."""
        return {name: score for sequence in self.sequences.values() for name, score in sequence.scores.items()}

    @property
    def frames(self) -> int:
        """Of all sequences."""
        return sum(sequence.frames for sequence in self.sequences.values())

    @property
    def seconds(self) -> float:
        """Of all jobs together."""
        return sum(sequence.seconds for sequence in self.sequences.values())


def write_metrics(result: Result) -> None:
    """All figures, those of each frame too."""
    sequences = {name: {"frames": s.frames, "figures": s.figures, "objects": s.scores} for name, s in result.sequences.items()}
    about = {"name": result.name, "benchmark": result.benchmark, "protocol": result.protocol}
    write_json(result.out / METRICS, {**about, "overall": result.overall, "frames": result.frames, "sequences": sequences})


def write_speed(result: Result, done: list[Done]) -> None:
    """Seconds and memory of each sequence, and what computed it."""
    lines = {
        name: {"frames": d.frames, "seconds": d.seconds, "peak_bytes": d.peak_bytes, "threads": d.threads, "computed": d.computed}
        for name, d in zip(result.sequences, done, strict=True)
    }
    write_json(result.out / SPEED, lines)


def read_result(out: Path) -> Result:
    """The result of a finished evaluation; the data need not be at hand.

    Raises:
        InputError: none was begun in `out`, or it is not finished.
    """
    if not (out / PLAN).exists():
        raise InputError(f"{out}: no evaluation was begun there")
    if not (out / METRICS).exists() or not (out / SPEED).exists():
        raise InputError(f"{out}: the evaluation is not finished: the same launch/eval.py command goes on")
    metrics, speed = read_json(out / METRICS), read_json(out / SPEED)
    sequences = {
        name: SequenceResult(told["frames"], speed[name]["seconds"], told["objects"], told["figures"])
        for name, told in metrics["sequences"].items()
    }
    peak = max(line["peak_bytes"] for line in speed.values())
    return Result(metrics["name"], metrics["benchmark"], metrics["protocol"], out, metrics["overall"], sequences, peak)


def write_json(path: Path, told: Any) -> None:
    """As JSON, what is not defined as null, since JSON has no NaN."""
    with atomic_file(path) as file:
        file.write(json.dumps(replaced(told, float("nan"), None), indent=1, allow_nan=False).encode() + b"\n")


def read_json(path: Path) -> Any:
    """What `write_json` wrote."""
    return replaced(json.loads(path.read_text()), None, float("nan"))


def replaced(told: Any, old: float | None, new: float | None) -> Any:
    """A tree of plain types with `new` for `old`."""
    if isinstance(told, dict):
        return {key: replaced(value, old, new) for key, value in told.items()}
    if isinstance(told, list | tuple):
        return [replaced(value, old, new) for value in told]
    is_old = told is None if old is None else isinstance(told, float) and math.isnan(told)
    return new if is_old else told
