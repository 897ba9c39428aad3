"""DAVIS-2016 and DAVIS-2017: the tree as downloaded, the official scores, the official CSVs.

Perazzi et al., CVPR 2016; Pont-Tuset et al., arXiv 1704.00675. The first frame, whose mask is given, and the last do not count.
Shapes: h w pixels.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from corrflow.benchmarks.benchmark import Benchmark, Given, Scores, Sequence, check_size, read_frames
from corrflow.errors import InputError
from corrflow.files import atomic_file
from corrflow.metrics import Statistics, boundary_accuracy, region_similarity, summarise
from corrflow.pictures import Pixels, read_mask, write_mask

RESOLUTION = "480p"  # the name of the folder; pictures of any size may lie there
GLOBAL_COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
SEQUENCE_COLUMNS = ("Sequence", "J-Mean", "F-Mean")


@dataclass(frozen=True)
class DavisSequence(Sequence):
    """A video with a mask for each frame."""

    frames: tuple[Path, ...]
    masks: tuple[Path, ...]


class Davis(Benchmark):
    """Masks of one object (2016), or of several (2017), all given in the first frame."""

    kind: Literal["masks"] = "masks"
    headline = ("J&F-Mean", "J-Mean", "F-Mean")
    curves = ("J", "F")
    note = "J: region similarity. F: boundary accuracy. Means over objects; the first and the last frame do not count."

    def __init__(self, year: Literal[2016, 2017]) -> None:
        self.year, self.name = year, f"davis{year}"

    def read(self, root: Path) -> list[DavisSequence]:
        """Those of its validation list, or all that are annotated where it has no list."""
        return read_sequences(root, self.year)

    def frames(self, sequence: DavisSequence) -> Iterator[Pixels]:
        """RGB; all of the size of the first mask."""
        return read_frames(sequence.frames, read_mask(sequence.masks[0]).shape)

    def frame_names(self, sequence: DavisSequence) -> list[str]:
        """00000, 00001, ..."""
        return [path.stem for path in sequence.frames]

    def given(self, sequence: DavisSequence) -> dict[int, Given]:
        """The first mask."""
        return {0: self.labels(read_mask(sequence.masks[0]))}

    def truth(self, sequence: DavisSequence) -> list[Pixels]:
        """The true masks `[H, W]`; InputError names one of another size than the first."""
        masks = [read_mask(path) for path in sequence.masks]
        for path, labels_hw in zip(sequence.masks, masks, strict=True):
            check_size(f"mask {path}", labels_hw, masks[0].shape)
        return [self.labels(labels_hw) for labels_hw in masks]

    def labels(self, mask_hw: Pixels) -> Pixels:
        """Of 2016, all objects are one."""
        return (mask_hw > 0).astype(np.uint8) if self.year == 2016 else mask_hw

    def score(self, sequence: DavisSequence, predicted: list[Pixels]) -> dict[str, Scores]:
        """J and F of each object; of 2016 under the sequence's name, of 2017 with the object's number behind it."""
        true = self.truth(sequence)
        scores = score_sequence(predicted, true, objects_of(true[0], self.year))
        return {sequence.name if self.year == 2016 else f"{sequence.name}_{label}": score for label, score in scores.items()}

    def figures(self, scores: Mapping[str, Scores]) -> dict[str, float]:
        """Those of the official `global_results`."""
        return global_row(scores) if scores else {}

    def keep(self, sequence: DavisSequence, predicted: list[Pixels], out: Path) -> None:
        """Indexed PNGs with the data set's palette."""
        for name, labels_hw in zip(self.frame_names(sequence), predicted, strict=True):
            write_mask(out / "masks" / sequence.name / f"{name}.png", labels_hw)

    def write_tables(self, scores: Mapping[str, Scores], out: Path) -> None:
        """`global_results-val.csv` and `per-sequence_results-val.csv`; InputError if there is nothing to score."""
        if not scores:
            raise InputError(f"{out}: no object in any first mask: nothing to score")
        for name, text in (("global_results-val.csv", global_csv(scores)), ("per-sequence_results-val.csv", sequence_csv(scores))):
            with atomic_file(out / name) as file:
                file.write(text.encode())


def read_sequences(root: Path, year: int) -> list[DavisSequence]:
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


def read_sequence(root: Path, name: str) -> DavisSequence:
    """The files of one sequence, checked to be whole."""
    frames = numbered_files(root / "JPEGImages" / RESOLUTION / name, (".jpg", ".jpeg", ".png"))
    masks = {path.stem: path for path in numbered_files(root / "Annotations" / RESOLUTION / name, (".png",))}
    for frame in frames:
        if frame.stem not in masks:
            raise InputError(f"sequence {name}: frame {frame.name} has no mask {frame.stem}.png in Annotations/{RESOLUTION}/{name}")
    return DavisSequence(name, len(frames), tuple(frames), tuple(masks[frame.stem] for frame in frames))


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


def objects_of(first_mask_hw: Pixels, year: int) -> list[int]:
    """The labels that are scored: of 2016 one object, whatever its labels; of 2017 each label of the first mask."""
    return [1] if year == 2016 else [int(label) for label in np.unique(first_mask_hw) if 0 < label < 255]


def score_sequence(predicted: Iterable[Pixels], true: Iterable[Pixels], objects: list[int]) -> dict[int, Scores]:
    """J and F of each object over all frames but the first and the last; masks are labels `[H, W]`, one for each frame."""
    pairs = list(zip(predicted, true, strict=True))[1:-1]
    return {
        label: {
            "J": [region_similarity(p == label, t == label) for p, t in pairs],
            "F": [boundary_accuracy(p == label, t == label) for p, t in pairs],
        }
        for label in objects
    }


def statistics(score: Scores) -> tuple[Statistics, Statistics]:
    """Mean, recall and decay of J and of F of one object."""
    return summarise(score["J"]), summarise(score["F"])


def global_row(scores: Mapping[str, Scores]) -> dict[str, float]:
    """The official overall figures: means over objects."""
    region, boundary = (np.array(side) for side in zip(*map(statistics, scores.values()), strict=True))
    numbers = [*np.nanmean(region, axis=0), *np.nanmean(boundary, axis=0)]
    values = [(numbers[0] + numbers[3]) / 2, *numbers]
    return {column: float(value) for column, value in zip(GLOBAL_COLUMNS, values, strict=True)}


def global_csv(scores: Mapping[str, Scores]) -> str:
    """`global_results-val.csv`."""
    row = global_row(scores)
    return ",".join(GLOBAL_COLUMNS) + "\n" + ",".join(f"{row[column]:.6f}" for column in GLOBAL_COLUMNS) + "\n"


def sequence_csv(scores: Mapping[str, Scores]) -> str:
    """`per-sequence_results-val.csv`."""
    lines = [",".join(SEQUENCE_COLUMNS)]
    for name, score in scores.items():
        region, boundary = statistics(score)
        lines.append(f"{name},{region.mean:.6f},{boundary.mean:.6f}")
    return "\n".join(lines) + "\n"
