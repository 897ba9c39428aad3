"""The time of a frame by each part of `memory` and by its alternatives, relative to `memory`:
docs/results.md and docs/ablations.md.

`python scripts/protocol_cost.py DAVIS CHECKPOINT SEQUENCE`, with DAVIS as `--benchmark davis2016`
takes it. The settings take turns frame by frame; the first 12 frames, in which references are still
missing, do not count.
"""

import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from corrflow import load_model
from corrflow.benchmarks.davis import Davis, read_sequences
from corrflow.memory import keep_freed_memory
from corrflow.propagation import find_protocol, stream
from corrflow.propagation.protocols import Protocol, override

FRAMES, SKIPPED = 25, 12


def settings() -> list[Protocol]:
    """The parts of `memory`, one added at a time; then its alternatives; `memory` last."""
    memory = find_protocol("memory")
    edges = override(memory, top_k=10, hardening=0.0)
    search = override(edges, guided_filter=0)
    wide = override(search, block=1)
    narrow = override(wide, radius=72)
    alternatives: list[dict[str, Any]] = [
        {"recent": (1,)},
        {"recent": tuple(range(1, 8))},
        {"anchors": ()},
        {"radius": 96},
        {"radius": 192},
        {"top_k": 3},
        {"top_k": 10},
        {"block": 1},
        {"guided_filter": 0},
    ]
    others = [override(memory, **settings) for settings in alternatives]
    return [find_protocol("paper"), narrow, wide, search, edges, *others, memory]


def main(root: Path, checkpoint: str, name: str) -> None:
    """Print the median of the ratios, and the seconds of `memory`."""
    keep_freed_memory()
    davis = Davis(2016)
    sequence = next(one for one in read_sequences(root, 2016) if one.name == name)
    frames = [torch.from_numpy(rgb).permute(2, 0, 1) for rgb in davis.frames(sequence)][:FRAMES]
    mask = torch.from_numpy(davis.labels(davis.ground_truth(sequence)[0]))
    model = load_model(checkpoint).accelerate()
    protocols = settings()
    tracking = [stream(model, iter(frames), mask, protocol) for protocol in protocols]
    rounds = []
    for _ in frames:
        seconds = []
        for one in tracking:
            begun = time.perf_counter()
            next(one)
            seconds.append(time.perf_counter() - begun)
        rounds.append(seconds)
    for row, protocol in enumerate(protocols):
        ratio = median(seconds[row] / seconds[-1] for seconds in rounds[SKIPPED:])
        print(f"{ratio:.2f}  {protocol.name}")
    print(f"{median(seconds[-1] for seconds in rounds[SKIPPED:]):.3f} s a frame by memory")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
