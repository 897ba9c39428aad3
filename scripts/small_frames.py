"""Measures J&F of small videos, tracked with `memory` at their own size and enlarged:
docs/results.md.

`python scripts/small_frames.py DAVIS CHECKPOINT ROWS TRACKED ...` (or `base`, `fast`), with DAVIS
as `--benchmark davis2016` takes it. Frames and masks are shrunk to ROWS rows, tracked at each of
the sizes TRACKED, and scored at ROWS.
"""

import sys
from pathlib import Path
from statistics import fmean

import torch

from corrflow import load_model
from corrflow.benchmarks.davis import Davis, DavisSequence
from corrflow.metrics import boundary_accuracy, region_similarity
from corrflow.model import CorrFlow
from corrflow.propagation import stream
from corrflow.scale import Scale


def score(model: CorrFlow, davis: Davis, sequence: DavisSequence, rows: int, tracked: int) -> float:
    """The mean J&F of all frames except the first and the last one."""
    true = davis.ground_truth(sequence)
    height, width = true[0].shape
    shrink = Scale.of(width, height, rows)
    small = [shrink.mask(labels_hw) for labels_hw in true]
    scale = Scale.of(*shrink.tracked, tracked)
    frames = (
        torch.from_numpy(scale.frame(shrink.frame(frame_hw3))).movedim(-1, 0)
        for frame_hw3 in davis.frames(sequence)
    )
    given_hw = torch.from_numpy(scale.mask(small[0]))
    found = [scale.mask_back(hw.numpy()) for hw in stream(model, frames, given_hw, "memory")]
    pairs = [(one == 1, other == 1) for one, other in zip(found, small, strict=True)][1:-1]
    return fmean((region_similarity(*pair) + boundary_accuracy(*pair)) / 2 for pair in pairs)


if __name__ == "__main__":
    root, checkpoint = Path(sys.argv[1]), load_model(sys.argv[2])
    rows, *sizes = map(int, sys.argv[3:])
    davis = Davis(2016)
    for size in sizes:
        scores = [score(checkpoint, davis, one, rows, size) for one in davis.read(root)]
        print(f"{rows} rows tracked at {size}: {fmean(scores):.3f}", flush=True)
