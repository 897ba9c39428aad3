"""DAVIS-2016 and DAVIS-2017: the tree as downloaded, the official scores, the official CSVs.

Perazzi et al., CVPR 2016; Pont-Tuset et al., arXiv 1704.00675. The first frame, whose mask is given, and the last do not count.
Shapes: h w pixels.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corrflow.errors import InputError
from corrflow.metrics import Statistics, boundary_accuracy, region_similarity, summarise

RESOLUTION = "480p"  # the name of the folder; pictures of any size may lie there
GLOBAL_COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
SEQUENCE_COLUMNS = ("Sequence", "J-Mean", "F-Mean")


@dataclass(frozen=True)
class Sequence:
    """A video with a mask for each frame."""

    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]


class ObjectScores(NamedTuple):
    """J and F of one object in the frames that count, in order."""

    region: list[float]
    boundary: list[float]

    @property
    def statistics(self) -> tuple[Statistics, Statistics]:
        """Mean, recall and decay of J and of F."""
        return summarise(self.region), summarise(self.boundary)


def read_sequences(root: Path, year: int) -> list[Sequence]:
    """The validation sequences of a DAVIS tree: those of its list, or all that are annotated where it has no list.

    Raises:
        InputError: a folder, frame or mask that is missing; names it.
    """
    annotations = root / "Annotations" / RESOLUTION
    for folder in (root / "JPEGImages" / RESOLUTION, annotations):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder: expected a DAVIS tree with JPEGImages/480p/SEQ and Annotations/480p/SEQ")
    names = listed_sequences(root, year) or sorted(path.name for path in annotations.iterdir() if path.is_dir())
    if not names:
        raise InputError(f"{annotations}: holds no sequences")
    return [read_sequence(root, name) for name in names]


def listed_sequences(root: Path, year: int) -> list[str]:
    """The names in `ImageSets`; either years' form: names, or a pair of paths a frame."""
    for path in (root / "ImageSets" / str(year) / "val.txt", root / "ImageSets" / RESOLUTION / "val.txt"):
        if path.exists():
            words = [line.split()[0].strip("/") for line in path.read_text().splitlines() if line.strip()]
            return list(dict.fromkeys(word.split("/")[-2] if "/" in word else word for word in words))
    return []


def read_sequence(root: Path, name: str) -> Sequence:
    """The files of one sequence, checked to be whole."""
    frames = numbered_files(root / "JPEGImages" / RESOLUTION / name, (".jpg", ".jpeg", ".png"))
    masks = {path.stem: path for path in numbered_files(root / "Annotations" / RESOLUTION / name, (".png",))}
    for frame in frames:
        if frame.stem not in masks:
            raise InputError(f"sequence {name}: frame {frame.name} has no mask {frame.stem}.png in Annotations/{RESOLUTION}/{name}")
    return Sequence(name, tuple(frames), tuple(masks[frame.stem] for frame in frames))


def numbered_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The numbered pictures of a folder in order; InputError if there is none, or one is missing between two."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    pictures = [path for path in folder.iterdir() if path.suffix.lower() in suffixes]
    found = [(int(digits[0]), path) for path in pictures if (digits := re.findall(r"\d+$", path.stem))]
    if not found:
        raise InputError(f"{folder}: no numbered {' or '.join(suffixes)} files there")
    found.sort()
    for (number, path), (following, _) in pairwise(found):
        if following != number + 1:
            gap = f"frame {number + 1} is missing" if following > number else f"frame {number} comes twice"
            raise InputError(f"{folder}: {gap} after {path.name}")
    return [path for _, path in found]


def objects_of(first_mask_hw: NDArray[np.uint8], year: int) -> list[int]:
    """The labels that are scored: of 2016 one object, whatever its labels; of 2017 each label of the first mask."""
    return [1] if year == 2016 else [int(label) for label in np.unique(first_mask_hw) if 0 < label < 255]


def score_sequence(
    predicted: Iterable[NDArray[np.uint8]], true: Iterable[NDArray[np.uint8]], objects: list[int]
) -> dict[int, ObjectScores]:
    """J and F of each object over all frames but the first and the last; masks are labels `[H, W]`, one for each frame."""
    pairs = list(zip(predicted, true, strict=True))[1:-1]
    return {
        label: ObjectScores(
            [region_similarity(p == label, t == label) for p, t in pairs],
            [boundary_accuracy(p == label, t == label) for p, t in pairs],
        )
        for label in objects
    }


def global_row(scores: Mapping[str, ObjectScores]) -> dict[str, float]:
    """The official overall figures: means over objects."""
    region, boundary = (np.array(side) for side in zip(*(s.statistics for s in scores.values()), strict=True))
    numbers = [*np.nanmean(region, axis=0), *np.nanmean(boundary, axis=0)]
    values = [(numbers[0] + numbers[3]) / 2, *numbers]
    return {column: float(value) for column, value in zip(GLOBAL_COLUMNS, values, strict=True)}


def global_csv(scores: Mapping[str, ObjectScores]) -> str:
    """`global_results-val.csv`."""
    row = global_row(scores)
    return ",".join(GLOBAL_COLUMNS) + "\n" + ",".join(f"{row[column]:.6f}" for column in GLOBAL_COLUMNS) + "\n"


def sequence_csv(scores: Mapping[str, ObjectScores]) -> str:
    """`per-sequence_results-val.csv`."""
    lines = [",".join(SEQUENCE_COLUMNS)]
    for name, score in scores.items():
        region, boundary = score.statistics
        lines.append(f"{name},{region.mean:.6f},{boundary.mean:.6f}")
    return "\n".join(lines) + "\n"
