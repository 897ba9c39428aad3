"""Measures how well an object's confidence tells where its mask is wrong: docs/tracking.md.

`python scripts/confidence.py DAVIS [SIZE]`, with DAVIS as `--benchmark davis2016` takes it, prints
for each sequence the mean J, the rank correlation of J with the confidence over its frames, and the
mean J of the five frames that would be named for review. It uses the pretrained model with the
memory protocol.
"""

import sys
from pathlib import Path
from statistics import fmean

import torch
from scipy.stats import spearmanr

from corrflow import load_model
from corrflow.benchmarks.davis import Davis, DavisSequence
from corrflow.metrics import region_similarity
from corrflow.model import CorrFlow
from corrflow.propagation import stream_masks
from corrflow.scale import Scale
from corrflow.tracking.review import frames_to_review

REVIEWED = 5


def measure(
    model: CorrFlow, davis: Davis, sequence: DavisSequence, size: int
) -> tuple[float, float, float]:
    """Mean J, rank correlation, and mean J of the frames to review."""
    truth = davis.ground_truth(sequence)
    height, width = truth[0].shape
    scale = Scale.of(width, height, size)
    small = (
        torch.from_numpy(scale.frame(frame_hw3)).movedim(-1, 0)
        for frame_hw3 in davis.frames(sequence)
    )
    given_hw = torch.from_numpy(scale.mask(truth[0]))
    tracked = list(stream_masks(model, small, given_hw, "memory"))
    confidence = [float(masks.confidence[1]) for masks in tracked]
    scores = [
        region_similarity(scale.mask_back(masks.labels.numpy()) == 1, truth_hw == 1)
        for masks, truth_hw in zip(tracked, truth, strict=True)
    ]
    review = [scores[frame.frame_index] for frame in frames_to_review(confidence, REVIEWED)]
    return fmean(scores), float(spearmanr(confidence[1:], scores[1:])[0]), fmean(review)


if __name__ == "__main__":
    model, davis = load_model().accelerate(), Davis(2016)
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 240
    rows = []
    print("sequence  J  correlation  J-of-review")
    for sequence in davis.read(Path(sys.argv[1])):
        rows.append(measure(model, davis, sequence, size))
        print(sequence.name, *(f"{figure:.3f}" for figure in rows[-1]), sep="  ", flush=True)
    print("mean", *(f"{fmean(column):.3f}" for column in zip(*rows, strict=True)), sep="  ")
