"""What came of an evaluation, and the files that hold it: `metrics.json`, and apart from it
`speed.json`, which differs each time."""

from dataclasses import dataclass
from pathlib import Path

from corrflow.benchmarks.benchmark import Scores, few
from corrflow.benchmarks.plan import RESULTS, SequenceRecord, read_settings
from corrflow.benchmarks.records import read_json, write_json
from corrflow.errors import InputError

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
    reset_gap: int = 0
    """Each frame was tracked from the truth of so many frames before; 0: as the benchmark has
    it."""

    @property
    def scores(self) -> dict[str, Scores]:
        """Of all objects."""
        return {
            name: score
            for sequence in self.sequences.values()
            for name, score in sequence.scores.items()
        }

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
    sequences = {
        name: {"frames": s.frames, "figures": s.figures, "objects": s.scores}
        for name, s in result.sequences.items()
    }
    about = {
        "name": result.name,
        "benchmark": result.benchmark,
        "protocol": result.protocol,
        "reset_gap": result.reset_gap,
    }
    write_json(
        result.out / METRICS,
        {**about, "overall": result.overall, "frames": result.frames, "sequences": sequences},
    )


def write_speed(result: Result, done: list[SequenceRecord]) -> None:
    """Seconds and memory of each sequence, and what computed it."""
    lines = {
        name: {
            "frames": d.frames,
            "seconds": d.seconds,
            "peak_bytes": d.peak_bytes,
            "threads": d.threads,
            "computed": d.computed,
        }
        for name, d in zip(result.sequences, done, strict=True)
    }
    write_json(result.out / SPEED, lines)


def read_result(out: Path) -> Result:
    """The result of a finished evaluation; the data need not be at hand.

    Raises:
        InputError: none was begun in `out`, it is not finished, or its files are damaged.
    """
    if not (out / METRICS).exists() or not (out / SPEED).exists():
        raise InputError(unfinished(out))
    metrics, speed = read_json(out / METRICS), read_json(out / SPEED)
    try:
        sequences = {
            name: SequenceResult(
                record["frames"],
                speed[name]["seconds"],
                dict(record["objects"]),
                dict(record["figures"]),
            )
            for name, record in metrics["sequences"].items()
        }
        return Result(
            name=metrics["name"],
            benchmark=metrics["benchmark"],
            protocol=metrics["protocol"],
            out=out,
            overall=dict(metrics["overall"]),
            sequences=sequences,
            peak_bytes=max(speed[name]["peak_bytes"] for name in sequences),
            reset_gap=metrics["reset_gap"],
        )
    # ValueError: no sequence, or words where pairs are
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{out}: its {METRICS} or {SPEED} is not what this version writes ({error!r})"
        ) from None


def unfinished(out: Path) -> str:
    """What an evaluation lacks; told from its own files. InputError if none was begun."""
    sequences = read_settings(out)[RESULTS]
    left = [name for name in sequences if not (out / RESULTS / f"{name}.json").exists()]
    lacks = (
        f"{len(left)} of {len(sequences)} sequences are not done ({few(left)})"
        if left
        else "all sequences are done, but it was not ended"
    )
    return f"{out}: is not finished: {lacks}: the same launch/eval.py command goes on"
