"""The results of an evaluation and their files: `metrics.json`, and `speed.json`, which is separate
because it differs each time."""

from dataclasses import dataclass
from pathlib import Path

from corrflow.benchmarks.benchmark import Scores, few
from corrflow.benchmarks.plan import RESULTS, SequenceRecord, read_settings
from corrflow.benchmarks.records import read_json, write_json
from corrflow.errors import InputError

METRICS, SPEED = "metrics.json", "speed.json"


@dataclass(frozen=True)
class SequenceResult:
    """The result of one method on one sequence."""

    frames: int
    seconds: float
    """Time of tracking, including reading the frames."""
    scores: dict[str, Scores]
    """Scores of each object; empty if the truth is not public."""
    figures: dict[str, float]
    """The benchmark's figures of these objects."""


@dataclass(frozen=True)
class Result:
    """The result of one method on one benchmark."""

    name: str
    """The name in tables."""
    benchmark: str
    protocol: str
    out: Path
    """The folder of its predictions, overlays and figures."""
    overall: dict[str, float]
    """The benchmark's figures; empty if nothing can be scored."""
    sequences: dict[str, SequenceResult]
    peak_bytes: int
    """Peak memory of a process; on CUDA, of the device."""
    reset_gap: int = 0
    """Each frame was tracked from the true mask this many frames before; 0 for tracking as the
    benchmark defines."""

    @property
    def scores(self) -> dict[str, Scores]:
        """Scores of all objects, by name."""
        return {
            name: score
            for sequence in self.sequences.values()
            for name, score in sequence.scores.items()
        }

    @property
    def frames(self) -> int:
        """Number of frames in all sequences."""
        return sum(sequence.frames for sequence in self.sequences.values())

    @property
    def seconds(self) -> float:
        """Total time of all jobs."""
        return sum(sequence.seconds for sequence in self.sequences.values())


def write_metrics(result: Result) -> None:
    """Write `metrics.json`: all figures, including those of each frame."""
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
    """Write `speed.json`: seconds and memory of each sequence, and what computed it."""
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
    """Read the result of a finished evaluation; the data set is not needed.

    Raises:
        InputError: no evaluation was started in `out`, it is not finished, or its files are
            damaged.
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
    # ValueError: no sequence, or text instead of pairs
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{out}: its {METRICS} or {SPEED} is not what this version writes ({error!r})"
        ) from None


def unfinished(out: Path) -> str:
    """An error message: what an unfinished evaluation lacks, according to its own files. InputError
    if none was started."""
    sequences = read_settings(out)[RESULTS]
    left = [name for name in sequences if not (out / RESULTS / f"{name}.json").exists()]
    lacks = (
        f"{len(left)} of {len(sequences)} sequences are not done ({few(left)})"
        if left
        else "all sequences are done, but the results were not merged"
    )
    return f"{out}: is not finished: {lacks}: the same launch/eval.py command resumes it"
