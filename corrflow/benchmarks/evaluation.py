"""Runs a benchmark: tracks what is given in each sequence, keeps what was predicted and overlays, scores, writes the results.

Three steps, each of which may be killed and begun again. `plan.prepare` writes down what is evaluated on what. `run_sequences` does
sequences, here or in many jobs at once. `finish` puts the results together; `results.py` says what those are. Same weights and settings,
same figures, whoever did what.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from corrflow.benchmarks.benchmark import Sequence
from corrflow.benchmarks.plan import Done, Evaluation, Plan, missing, prepare
from corrflow.benchmarks.results import Result, SequenceResult, write_metrics, write_speed
from corrflow.errors import InputError
from corrflow.memory import peak_bytes
from corrflow.model import CorrFlow, weights_digest
from corrflow.pictures import overlay, write_jpeg
from corrflow.propagation import Protocol, stream


def evaluate(benchmark: str, root: Path, model: CorrFlow | None, protocol: Protocol, out: Path, name: str) -> Result:
    """All three steps, in this process, of a model that is at hand; what was done before is not done again.

    Raises:
        InputError: a frame or mask that can't be read, or of another size than the others; `out` holds another evaluation.
    """
    weights, device = (weights_digest(model), device_of(model).type) if model else ("", "auto")
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
    """Track and score one sequence; writes what was predicted, and overlays."""
    benchmark = plan.benchmark
    given = {number: torch.from_numpy(what) for number, what in benchmark.given(sequence).items()}
    begun = time.perf_counter()
    predicted = []
    for labels_hw in stream(model, tensors(benchmark.frames(sequence)), given[0], plan.evaluation.protocol):
        predicted.append(labels_hw.numpy())
        on_frames(1)
    seconds = time.perf_counter() - begun
    benchmark.keep(sequence, predicted, plan.out)
    keep_overlays(plan, sequence, predicted)
    scores = benchmark.score(sequence, predicted)
    return Done(plan.digest, scores, len(predicted), seconds, peak_bytes(device_of(model)), torch.get_num_threads(), describe(model))


def tensors(frames: Iterator[Any]) -> Iterator[Tensor]:
    """`[H, W, 3]` to `[3, H, W]`."""
    return (torch.from_numpy(frame_hw3).movedim(-1, 0) for frame_hw3 in frames)


def device_of(model: CorrFlow | None) -> torch.device:
    """Where it computes."""
    return next(model.parameters()).device if model else torch.device("cpu")


def describe(model: CorrFlow | None) -> str:
    """What rounding may depend on."""
    if model is None:
        return "no model"
    return f"{device_of(model).type}, {model.attention} attention, torch {torch.__version__}"


def keep_overlays(plan: Plan, sequence: Sequence, predicted: list[Any]) -> None:
    """Each frame with what was predicted drawn over it."""
    benchmark = plan.benchmark
    for name, frame_hw3, what in zip(benchmark.frame_names(sequence), benchmark.frames(sequence), predicted, strict=True):
        write_jpeg(plan.out / "overlays" / sequence.name / f"{name}.jpg", overlay(frame_hw3, what))


def finish(plan: Plan) -> Result:
    """Put the results together, and write the benchmark's tables, `metrics.json` and `speed.json`.

    Raises:
        InputError: sequences are missing, says which and why; or there is nothing to score.
    """
    result = merge(plan)
    for leftover in plan.out.glob("*/*/.*.tmp"):  # of a process that was killed here
        leftover.unlink()
    plan.benchmark.write_tables(result.scores, plan.out)
    write_metrics(result)
    write_speed(result, results(plan))
    return result


def merge(plan: Plan) -> Result:
    """The results of all sequences, in the benchmark's order; InputError as `finish`."""
    if left := plan.left():
        raise InputError(missing(plan, left))
    evaluation, figures = plan.evaluation, plan.benchmark.figures
    done = dict(zip((sequence.name for sequence in plan.sequences), results(plan), strict=True))
    scores = {name: score for one in done.values() for name, score in one.scores.items()}
    parts = {name: SequenceResult(one.frames, one.seconds, one.scores, figures(one.scores)) for name, one in done.items()}
    peak = max(one.peak_bytes for one in done.values())
    return Result(evaluation.name, evaluation.benchmark, evaluation.protocol.name, plan.out, figures(scores), parts, peak)


def results(plan: Plan) -> list[Done]:
    """What came of the sequences that are done."""
    return [done for sequence in plan.sequences if (done := plan.result(sequence))]
