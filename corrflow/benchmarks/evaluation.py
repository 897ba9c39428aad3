"""Runs a benchmark: propagates each sequence's first mask, keeps masks and overlays, scores, writes the results.

Three steps, each of which may be killed and begun again. `plan.prepare` writes down what is evaluated on what. `run_sequences` does
sequences, here or in many jobs at once. `finish` puts the results together. Same weights and settings, same figures, whoever did what.
Shapes: h w pixels.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from corrflow.benchmarks import davis
from corrflow.benchmarks.davis import ObjectScores, Sequence
from corrflow.benchmarks.plan import Done, Evaluation, Plan, missing, prepare
from corrflow.errors import InputError
from corrflow.files import atomic_file
from corrflow.model import CorrFlow, weights_digest
from corrflow.pictures import overlay, read_frame, read_mask, write_jpeg, write_mask
from corrflow.propagation import Protocol, stream


@dataclass(frozen=True)
class Result:
    """One method on one benchmark."""

    name: str
    """What the tables call it."""
    sequences: tuple[str, ...]
    out: Path
    """Where its masks, overlays and figures are."""
    overall: dict[str, float]
    """The benchmark's global figures."""
    scores: dict[str, ObjectScores]
    """For each object, by the benchmark's name for it."""
    frames: int
    seconds: float
    """Of propagation alone, reading the frames included; of all jobs together."""


def evaluate(benchmark: str, root: Path, model: CorrFlow | None, protocol: Protocol, out: Path, name: str) -> Result:
    """All three steps, in this process, of a model that is at hand; what was done before is not done again.

    Raises:
        InputError: a frame or mask that can't be read, or of another size than the others; `out` holds another evaluation.
    """
    weights, device = (weights_digest(model), next(model.parameters()).device.type) if model else ("", "auto")
    attention = model.attention if model else "auto"
    plan = prepare(Evaluation(benchmark, str(root.absolute()), name, protocol, weights, device=device, attention=attention), out)
    with progress(plan.frames, name) as bar:
        run_sequences(plan, plan.sequences, model, bar.update)
    return finish(plan)


def progress(frames: int, name: str, shown: bool = True) -> "tqdm[Any]":
    """A bar over frames; in a job's log, a line now and then."""
    return tqdm(total=frames, unit="frame", desc=name, disable=not shown, mininterval=0.1 if sys.stderr.isatty() else 10.0)


def run_sequences(
    plan: Plan, sequences: Iterable[Sequence], model: CorrFlow | None, on_frames: Callable[[int], object] = lambda _: None
) -> None:
    """Do those of `sequences` that are not done.

    Args:
        plan: of which they are.
        sequences: all, or one job's.
        model: that of the plan; None where its protocol needs none.
        on_frames: told how many frames were done since it was last told; those of an earlier try, too.

    Raises:
        InputError: a frame or mask that can't be read, or of another size than the others.
    """
    for sequence in sequences:
        if done := plan.result(sequence):
            on_frames(done.frames)
        else:
            plan.keep(sequence, run_sequence(plan, sequence, model, on_frames))


def run_sequence(plan: Plan, sequence: Sequence, model: CorrFlow | None, on_frames: Callable[[int], object]) -> Done:
    """Propagate and score one sequence; writes its masks and overlays."""
    year = plan.evaluation.year
    true = read_truth(sequence, year)
    begun = time.perf_counter()
    predicted = []
    for labels_hw in stream(model, read_frames(sequence, true[0]), torch.from_numpy(true[0]), plan.evaluation.protocol):
        predicted.append(labels_hw.numpy())
        on_frames(1)
    seconds = time.perf_counter() - begun
    keep_pictures(sequence, predicted, plan.out)
    scores = davis.score_sequence(predicted, true, davis.objects_of(true[0], year))
    named = {sequence.name if year == 2016 else f"{sequence.name}_{label}": score for label, score in scores.items()}
    return Done(plan.digest, named, len(predicted), seconds, torch.get_num_threads(), describe(model))


def describe(model: CorrFlow | None) -> str:
    """What rounding may depend on."""
    if model is None:
        return "no model"
    return f"{next(model.parameters()).device.type}, {model.attention} attention, torch {torch.__version__}"


def finish(plan: Plan) -> Result:
    """Put the results together, and write CSVs and `metrics.json`.

    Raises:
        InputError: sequences are missing, says which and why; or there is nothing to score.
    """
    result = merge(plan)
    for folder in ("masks", "overlays"):
        for leftover in (plan.out / folder).glob("*/.*.tmp"):  # of a process that was killed here
            leftover.unlink()
    write_results(result)
    write_speed(plan)
    return result


def merge(plan: Plan) -> Result:
    """The results of all sequences, in the benchmark's order; InputError as `finish`."""
    if left := plan.left():
        raise InputError(missing(plan, left))
    done = results(plan)
    scores = {name: score for one in done for name, score in one.scores.items()}
    if not scores:
        raise InputError(f"{plan.sequences[0].masks[0].parents[1]}: no object in any first mask: nothing to score")
    names, frames, seconds = tuple(s.name for s in plan.sequences), sum(one.frames for one in done), sum(one.seconds for one in done)
    return Result(plan.evaluation.name, names, plan.out, davis.global_row(scores), scores, frames, seconds)


def results(plan: Plan) -> list[Done]:
    """What came of the sequences that are done."""
    return [done for sequence in plan.sequences if (done := plan.result(sequence))]


def write_speed(plan: Plan) -> None:
    """`speed.json`: seconds, which differ each time, apart from the figures, which don't."""
    lines = {
        sequence.name: {"frames": done.frames, "seconds": done.seconds, "threads": done.threads, "computed": done.computed}
        for sequence, done in zip(plan.sequences, results(plan), strict=True)
    }
    with atomic_file(plan.out / "speed.json") as file:
        file.write(json.dumps(lines, indent=1).encode() + b"\n")


def read_truth(sequence: Sequence, year: int) -> list[NDArray[np.uint8]]:
    """The true masks `[H, W]`; of 2016, all objects as one. InputError names a mask of another size than the first."""
    masks = [read_mask(path) for path in sequence.masks]
    for path, labels_hw in zip(sequence.masks, masks, strict=True):
        check_size(f"mask {path}", labels_hw, masks[0])
    return [(labels_hw > 0).astype(np.uint8) for labels_hw in masks] if year == 2016 else masks


def read_frames(sequence: Sequence, mask_hw: NDArray[np.uint8]) -> Iterator[Tensor]:
    """The frames, uint8 `[3, H, W]`, one at a time; InputError names one of another size than the mask."""
    for path in sequence.frames:
        frame_hw3 = read_frame(path)
        check_size(f"frame {path}", frame_hw3, mask_hw)
        yield torch.from_numpy(frame_hw3).movedim(-1, 0)


def check_size(name: str, picture: NDArray[np.uint8], mask_hw: NDArray[np.uint8]) -> None:
    """InputError unless both have the same height and width."""
    if picture.shape[:2] != mask_hw.shape:
        found, wanted = (f"{shape[1]}x{shape[0]}" for shape in (picture.shape, mask_hw.shape))
        raise InputError(f"{name} is {found}: expected {wanted}, the size of its sequence's first mask")


def keep_pictures(sequence: Sequence, predicted: list[NDArray[np.uint8]], out: Path) -> None:
    """Masks in the benchmark's layout, and overlays."""
    for path, labels_hw in zip(sequence.frames, predicted, strict=True):
        write_mask(out / "masks" / sequence.name / f"{path.stem}.png", labels_hw)
        write_jpeg(out / "overlays" / sequence.name / f"{path.stem}.jpg", overlay(read_frame(path), labels_hw))


def write_results(result: Result) -> None:
    """`global_results-val.csv`, `per-sequence_results-val.csv` and `metrics.json`."""
    objects = {}
    for name, score in result.scores.items():
        region, boundary = score.statistics
        objects[name] = {"J": region._asdict(), "F": boundary._asdict(), "J_frames": score.region, "F_frames": score.boundary}
    metrics = {"name": result.name, "overall": result.overall, "frames": result.frames, "objects": objects}
    texts = {
        "global_results-val.csv": davis.global_csv(result.scores),
        "per-sequence_results-val.csv": davis.sequence_csv(result.scores),
        "metrics.json": json.dumps(metrics, indent=1) + "\n",
    }
    for name, text in texts.items():
        with atomic_file(result.out / name) as file:
            file.write(text.encode())
