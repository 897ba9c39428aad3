"""Measures features without drift, for the six figures of docs/ablations.md: J after propagating a
true mask over a gap of 1 or 5 frames, from that frame alone, with three protocols.

`python scripts/reset_gap.py DAVIS CHECKPOINT ...` (or `base`, `fast`), with DAVIS as `--benchmark
davis2016` takes it. It starts from every fourth frame, at size 240, and averages over frames, then
over sequences. Five sequences with 222 frames take less than three minutes on one core.
"""

import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from corrflow import load_model
from corrflow.benchmarks.davis import Davis
from corrflow.encoders import Encoder
from corrflow.metrics import region_similarity
from corrflow.model import CorrFlow
from corrflow.propagation import Protocol, stream
from corrflow.scale import Scale

SIZE, EVERY = 240, 4
# the radius is in pixels at SIZE, half of that at 480
MEMORY = Protocol("memory", radius=24, top_k=10, temperature=0.05, hardening=0.0)
WAYS = (Protocol("paper", radius=12), MEMORY, replace(MEMORY, name="whitened", whitening=0.2))
GAPS = (1, 5)


class CachedEncoder(Encoder):
    """Encodes each frame only once, identified by its bytes, though each of the six figures needs
    it."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.stride, self.channels, self.config = encoder.stride, encoder.channels, encoder.config
        self.cache: dict[bytes, Tensor] = {}

    def forward(self, frames_n3hw: Tensor) -> Tensor:
        """The features, computed or from the cache."""
        key = frames_n3hw.numpy().tobytes()
        if key not in self.cache:
            self.cache[key] = self.encoder(frames_n3hw)
        return self.cache[key]


@torch.inference_mode()
def measure(model: CorrFlow, root: Path) -> list[float]:
    """The mean J for each gap and protocol."""
    davis = Davis(2016)
    found: dict[tuple[int, str], list[float]] = {
        (gap, way.name): [] for gap in GAPS for way in WAYS
    }
    for sequence in davis.read(root):
        truth, frames = davis.ground_truth(sequence), list(davis.frames(sequence))
        height, width = truth[0].shape
        scale = Scale.of(width, height, SIZE)
        small = [torch.from_numpy(scale.frame(frame_hw3)).movedim(-1, 0) for frame_hw3 in frames]
        once = CorrFlow(model.config, encoder=CachedEncoder(model.encoder)).eval()
        for gap in GAPS:
            for way in WAYS:
                scores = []
                for first in range(0, len(frames) - gap, EVERY):
                    given_hw = torch.from_numpy(scale.mask(truth[first]))
                    *_, labels_hw = stream(once, [small[first], small[first + gap]], given_hw, way)
                    scores.append(
                        region_similarity(
                            scale.mask_back(labels_hw.numpy()) == 1, truth[first + gap] == 1
                        )
                    )
                found[gap, way.name].append(fmean(scores))
    return [fmean(scores) for scores in found.values()]


if __name__ == "__main__":
    print("checkpoint  " + "  ".join(f"{gap} {way.name}" for gap in GAPS for way in WAYS))
    for checkpoint in sys.argv[2:]:
        model = load_model(checkpoint)
        print(
            checkpoint,
            *(f"{figure:.3f}" for figure in measure(model, Path(sys.argv[1]))),
            sep="  ",
            flush=True,
        )
