"""Runs a benchmark: tracks the given labels of each sequence, writes predictions and overlays,
scores them, and writes the results.

There are three steps, each of which may be killed and started again. `plan.prepare` writes down
what is evaluated. `run_sequences` evaluates sequences, in this process or in many jobs at once.
`finish` merges the results; `results.py` defines their files. The same weights and settings give
the same figures, however the sequences are divided among jobs.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from corrflow.adaptation import adapt
from corrflow.benchmarks.benchmark import Benchmark, Sequence
from corrflow.benchmarks.plan import Evaluation, EvaluationPlan, SequenceRecord, missing, prepare
from corrflow.benchmarks.results import Result, SequenceResult, write_metrics, write_speed
from corrflow.drawing import Dots
from corrflow.errors import InputError
from corrflow.memory import peak_bytes
from corrflow.model import CorrFlow, weights_digest
from corrflow.pictures import overlay, write_jpeg
from corrflow.progress import progress_bar
from corrflow.propagation import Protocol, stream, stream_points_together, stream_together
from corrflow.scale import Scale

Model = CorrFlow | None
LANES = 8  # sequences tracked at the same time on CUDA
LANES_BYTES = 16 << 30  # memory that they may take
# per pixel of a lane, counted: the encoder's largest feature maps, and 21 references of 64
# channels, twice while they are compared
PIXEL_BYTES = 5000


def evaluate(
    benchmark: str, root: Path, model: Model, protocol: Protocol, out: Path, name: str
) -> Result:
    """Do all three steps in this process for a loaded model; finished sequences are not evaluated
    again.

    Raises:
        InputError: a frame or mask can't be read or differs in size from the others; `out` holds
            another evaluation.
    """
    weights, device, attention = "", "auto", "auto"
    if model:
        weights, device, attention = weights_digest(model), model.device.type, model.attention
    plan = prepare(
        Evaluation(
            benchmark,
            str(root.absolute()),
            name,
            protocol,
            weights,
            device=device,
            attention=attention,
        ),
        out,
    )
    with progress_bar(total=plan.frames, unit="frame", desc=name) as bar:
        run_sequences(plan, plan.sequences, model, bar.update)
    return finish(plan)


def run_sequences(
    plan: EvaluationPlan,
    sequences: Iterable[Sequence],
    model: Model,
    on_frames: Callable[[int], object] = lambda _: None,
) -> None:
    """Evaluate those of `sequences` that are not finished.

    Args:
        plan: the evaluation that they belong to.
        sequences: all sequences, or one job's share.
        model: the plan's model; None if its protocol needs none.
        on_frames: called with the number of frames finished since the last call, including those of
            an earlier attempt.

    Raises:
        InputError: a frame or mask that can't be read, or of another size than the others.
    """
    left = []
    for sequence in sequences:
        if done := plan.result(sequence):
            on_frames(done.frames)
        else:
            left.append(sequence)
    alone = plan.evaluation.reset_gap or plan.evaluation.adapt
    together = device_of(model).type == "cuda" and not alone
    for group in groups(plan.benchmark, left, lanes=LANES if together else 1):
        run_group(plan, group, model, on_frames)


def groups(benchmark: Benchmark, sequences: list[Sequence], lanes: int) -> list[list[Sequence]]:
    """Group sequences that can be tracked at the same time, at most `lanes` each: they have the
    same size, labels given in the same frames, and similar lengths."""
    if lanes == 1:
        return [[sequence] for sequence in sequences]
    alike: dict[Any, list[Sequence]] = {}
    for sequence in sorted(sequences, key=lambda sequence: -sequence.length):
        size = next(benchmark.frames(sequence)).shape[:2]
        given = tuple(benchmark.initial_labels(sequence))
        alike.setdefault((size, given), []).append(sequence)
    groups = []
    for ((height, width), _), members in alike.items():
        most = max(1, min(lanes, LANES_BYTES // (PIXEL_BYTES * height * width)))
        groups += [members[first : first + most] for first in range(0, len(members), most)]
    return groups


def run_group(
    plan: EvaluationPlan, group: list[Sequence], model: Model, on_frames: Callable[[int], object]
) -> None:
    """Track and score a group of sequences at the same time; writes predictions and overlays."""
    benchmark, begun = plan.benchmark, time.perf_counter()
    if model and plan.evaluation.adapt:
        model = adapt(model, scaled_frames(plan, group[0]), plan.evaluation.adapt)
    predicted: list[list[Any]] = [[] for _ in group]
    for outputs in (
        track_with_resets(plan, group[0], model)
        if plan.evaluation.reset_gap
        else track(plan, group, model)
    ):
        for lane, output in outputs.items():
            predicted[lane].append(output)
        on_frames(len(outputs))
    seconds = (time.perf_counter() - begun) / sum(map(len, predicted))
    for sequence, mine in zip(group, predicted, strict=True):
        benchmark.write_predictions(sequence, mine, plan.out)
        write_overlays(plan, sequence, mine)
        scores = benchmark.score(sequence, mine)
        record = SequenceRecord(
            plan.digest_of(sequence),
            scores,
            frames=len(mine),
            seconds=seconds * len(mine),
            peak_bytes=peak_bytes(device_of(model)),
            threads=torch.get_num_threads(),
            computed=describe(model),
        )
        plan.keep(sequence, record)


def track(plan: EvaluationPlan, group: list[Sequence], model: Model) -> Iterator[dict[int, Any]]:
    """Yield the predictions of each frame by index in the group: labels uint8 `[H, W]`, or
    `TrackedPoints`."""
    benchmark, protocol = plan.benchmark, plan.evaluation.protocol
    scale = scale_of(plan, group[0])
    frames = [scaled_frames(plan, sequence) for sequence in group]
    to_tracked = scale.points if benchmark.kind == "points" else scale.mask
    given = [
        {
            number: torch.from_numpy(to_tracked(what))
            for number, what in benchmark.initial_labels(sequence).items()
        }
        for sequence in group
    ]
    if benchmark.kind == "points":
        for points in stream_points_together(model, frames, given, protocol):
            yield {
                lane: located._replace(xy=torch.from_numpy(scale.points_back(located.xy.numpy())))
                for lane, located in points.items()
            }
    else:
        for outputs in stream_together(model, frames, given, protocol):
            yield {lane: scale.mask_back(labels_hw.numpy()) for lane, labels_hw in outputs.items()}


def scale_of(plan: EvaluationPlan, sequence: Sequence) -> Scale:
    """The scale between the size of a sequence's frames and the size at which it is tracked."""
    height, width = next(plan.benchmark.frames(sequence)).shape[:2]
    return Scale.of(width, height, plan.evaluation.size)


def scaled_frames(plan: EvaluationPlan, sequence: Sequence) -> Iterator[torch.Tensor]:
    """The frames of a sequence at the size at which they are tracked, uint8 `[3, H, W]`."""
    scale = scale_of(plan, sequence)
    for frame_hw3 in plan.benchmark.frames(sequence):
        yield torch.from_numpy(scale.frame(frame_hw3)).movedim(-1, 0)


def track_with_resets(
    plan: EvaluationPlan, sequence: Sequence, model: Model
) -> Iterator[dict[int, Any]]:
    """Yield the prediction of each frame from the true mask `reset_gap` frames before, or, in the
    first frames, from that of frame 0.

    Errors do not accumulate, so that the figures compare features, and not where a mask happened to
    drift.
    """
    truth, evaluation = plan.benchmark.ground_truth(sequence), plan.evaluation
    scale = scale_of(plan, sequence)
    held: deque[torch.Tensor] = deque(maxlen=evaluation.reset_gap + 1)
    for number, frame_3hw in enumerate(scaled_frames(plan, sequence)):
        held.append(frame_3hw)
        if not number:
            yield {0: truth[0]}
            continue
        given_hw = torch.from_numpy(scale.mask(truth[number + 1 - len(held)]))
        *_, labels_hw = stream(model, [held[0], held[-1]], given_hw, evaluation.protocol)
        yield {0: scale.mask_back(labels_hw.numpy())}


def device_of(model: Model) -> torch.device:
    """The device that the model is on; the CPU without a model."""
    return model.device if model else torch.device("cpu")


def describe(model: Model) -> str:
    """What the rounding of results may depend on."""
    if model is None:
        return "no model"
    return f"{model.describe_compute()}, torch {torch.__version__}"


def write_overlays(plan: EvaluationPlan, sequence: Sequence, predicted: list[Any]) -> None:
    """Write each frame with the predictions drawn over it."""
    benchmark, dots = plan.benchmark, Dots()
    for name, frame_hw3, what in zip(
        benchmark.frame_names(sequence), benchmark.frames(sequence), predicted, strict=True
    ):
        points = benchmark.kind == "points"
        drawn = (
            dots.draw(frame_hw3, what.xy.numpy(), what.visible.numpy())
            if points
            else overlay(frame_hw3, what)
        )
        write_jpeg(plan.out / "overlays" / sequence.name / f"{name}.jpg", drawn)


def finish(plan: EvaluationPlan) -> Result:
    """Merge the results, and write the benchmark's tables, `metrics.json` and `speed.json`.

    Raises:
        InputError: sequences are not finished (the message says which and why), or there is nothing
            to score.
    """
    result = merge(plan)
    for leftover in plan.out.rglob(".*.tmp"):  # left by a killed process
        leftover.unlink()
    plan.benchmark.write_tables(plan.sequences, result.scores, plan.out)
    write_metrics(result)
    write_speed(result, results(plan))
    return result


def merge(plan: EvaluationPlan) -> Result:
    """Merge the results of all sequences, in the benchmark's order; InputError as in `finish`."""
    if left := plan.left():
        raise InputError(missing(plan, left))
    evaluation, figures = plan.evaluation, plan.benchmark.figures
    done = dict(zip((sequence.name for sequence in plan.sequences), results(plan), strict=True))
    scores = {name: score for one in done.values() for name, score in one.scores.items()}
    parts = {
        name: SequenceResult(one.frames, one.seconds, one.scores, figures(one.scores))
        for name, one in done.items()
    }
    peak = max(one.peak_bytes for one in done.values())
    settings = (
        ("input scale", evaluation.input_scale),
        ("adapt", evaluation.adapt),
        ("size", evaluation.size),
        ("reset gap", evaluation.reset_gap),
    )
    way = ", ".join(
        (evaluation.protocol.name, *(f"{name} {value:g}" for name, value in settings if value))
    )
    return Result(
        name=evaluation.name,
        benchmark=evaluation.benchmark,
        protocol=way,
        out=plan.out,
        overall=figures(scores),
        sequences=parts,
        peak_bytes=peak,
        reset_gap=evaluation.reset_gap,
    )


def results(plan: EvaluationPlan) -> list[SequenceRecord]:
    """The records of the finished sequences."""
    return [done for sequence in plan.sequences if (done := plan.result(sequence))]
