"""What mask benchmarks have in common: written masks, objects that enter late, J and F over time.

Shapes: h w pixels.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from corrflow.benchmarks.benchmark import Benchmark, Scores, few
from corrflow.errors import InputError
from corrflow.metrics import boundary_accuracy, region_similarity
from corrflow.pictures import Pixels, write_mask


class MaskBenchmark(Benchmark):
    """A benchmark whose initial labels and predictions are masks."""

    kind: Literal["masks"] = "masks"

    def write_predictions(self, sequence: Any, predicted: list[Pixels], out: Path) -> None:
        """Write indexed PNGs with the data set's palette to `masks/SEQ/NAME.png`."""
        for path, labels_hw in zip(self.mask_paths(sequence, out), predicted, strict=True):
            write_mask(path, labels_hw)

    def mask_paths(self, sequence: Any, out: Path) -> list[Path]:
        """The paths of a sequence's masks."""
        folder = out / "masks" / sequence.name
        return [folder / f"{name}.png" for name in self.frame_names(sequence)]

    def written(self, sequences: Iterable[Any], out: Path) -> list[Path]:
        """The written masks of these sequences.

        Raises:
            InputError: masks are missing; the message says which, and how to write them again.
        """
        masks = [path for sequence in sequences for path in self.mask_paths(sequence, out)]
        if gone := [path for path in masks if not path.exists()]:
            places = [f"{path.parent.name}/{path.name}" for path in gone]
            notes = dict.fromkeys(f"{out}/sequences/{path.parent.name}.json" for path in gone)
            raise InputError(
                f"{out / 'masks'}: {len(gone)} of {len(masks)} masks are missing ({few(places)}): "
                f"remove {few(list(notes))} and run the same command again, or take a new --out"
            )
        return masks


def mask_scores(predicted: Sequence[Pixels], true: Sequence[Pixels], label: int) -> Scores:
    """J and F of one object in each of these frames."""
    pairs = [
        (pred_hw == label, true_hw == label)
        for pred_hw, true_hw in zip(predicted, true, strict=True)
    ]
    return {
        "J": [region_similarity(*pair) for pair in pairs],
        "F": [boundary_accuracy(*pair) for pair in pairs],
    }


def entries(masks: Iterable[tuple[int, Pixels]]) -> dict[int, Pixels]:
    """For each mask that has new objects, by frame number, a mask of the objects that appear in it
    for the first time."""
    seen: set[int] = {0}
    given = {}
    for frame, labels_hw in masks:
        new = set(np.unique(labels_hw).tolist()) - seen
        if new:
            given[frame] = np.where(np.isin(labels_hw, list(new)), labels_hw, 0).astype(np.uint8)
        seen |= new
    return given
