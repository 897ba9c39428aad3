"""Runs a benchmark: propagates each sequence's first mask, keeps masks and overlays, scores, writes the results.

Shapes: h w pixels.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from corrflow.benchmarks import davis
from corrflow.benchmarks.davis import ObjectScores, Sequence
from corrflow.errors import InputError
from corrflow.files import atomic_file
from corrflow.model import CorrFlow
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
    """Of propagation alone, reading the frames included."""


def evaluate(sequences: list[Sequence], year: int, model: CorrFlow | None, protocol: Protocol, out: Path, name: str) -> Result:
    """Propagate and score all sequences; writes masks, overlays, CSVs and `metrics.json` under `out`.

    Raises:
        InputError: a frame or mask that can't be read, or of another size than the others.
    """
    out.mkdir(parents=True, exist_ok=True)
    scores: dict[str, ObjectScores] = {}
    seconds, frames = 0.0, 0
    with tqdm(total=sum(len(s.frames) for s in sequences), unit="frame", desc=name) as bar:
        for sequence in sequences:
            true = read_truth(sequence, year)
            begun = time.perf_counter()
            predicted = []
            for labels_hw in stream(model, read_frames(sequence, true[0]), torch.from_numpy(true[0]), protocol):
                predicted.append(labels_hw.numpy())
                bar.update()
            seconds += time.perf_counter() - begun
            frames += len(predicted)
            keep_pictures(sequence, predicted, out)
            for label, score in davis.score_sequence(predicted, true, davis.objects_of(true[0], year)).items():
                scores[sequence.name if year == 2016 else f"{sequence.name}_{label}"] = score
    if not scores:
        raise InputError(f"{sequences[0].masks[0].parents[1]}: no object in any first mask: nothing to score")
    result = Result(name, tuple(s.name for s in sequences), out, davis.global_row(scores), scores, frames, seconds)
    write_results(result)
    return result


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
    metrics = {
        "name": result.name,
        "overall": result.overall,
        "frames": result.frames,
        "seconds": round(result.seconds, 3),
        "objects": objects,
    }
    texts = {
        "global_results-val.csv": davis.global_csv(result.scores),
        "per-sequence_results-val.csv": davis.sequence_csv(result.scores),
        "metrics.json": json.dumps(metrics, indent=1) + "\n",
    }
    for name, text in texts.items():
        with atomic_file(result.out / name) as file:
            file.write(text.encode())
