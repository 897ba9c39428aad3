"""DAVIS-2016 and DAVIS-2017: reads the folders as downloaded; computes the official scores; writes
the official CSVs and the submission for test-dev.

Perazzi et al., CVPR 2016; Pont-Tuset et al., arXiv 1704.00675. The first frame, whose mask is
given, and the last are not scored. In DAVIS-2016 every value but 0 is the object (255, and values
between, such as the border of a trimap), and nothing is void. In DAVIS-2017 255 is void, which is
taken for background, as in the official semi-supervised evaluation. Shapes: h w pixels.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from corrflow.benchmarks.benchmark import (
    Benchmark,
    InitialLabels,
    PictureSequence,
    Scores,
    check_size,
    read_frames,
)
from corrflow.benchmarks.folders import (
    DAVIS_SIZES,
    PICTURES,
    find,
    folders_in,
    listed,
    missing_path_error,
    numbered_files,
)
from corrflow.benchmarks.masks import MaskBenchmark, mask_scores
from corrflow.benchmarks.tables import write_archive, write_csv
from corrflow.errors import InputError
from corrflow.metrics import Statistics, mean, summarise
from corrflow.pictures import Pixels, read_labels

RESOLUTION = "480p"  # the folder's name; its pictures may have any size
VOID = 255
LAYOUT = "a DAVIS tree with JPEGImages/480p/SEQ and Annotations/480p/SEQ"
GLOBAL_COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
SEQUENCE_COLUMNS = ("Sequence", "J-Mean", "F-Mean")


@dataclass(frozen=True)
class DavisSequence(PictureSequence):
    """A video and its masks."""

    masks: tuple[Path, ...]
    """The mask of each frame; for test-dev only that of the first."""


class Davis(MaskBenchmark):
    """The DAVIS benchmarks: masks of one object (2016) or several (2017), all given in the first
    frame."""

    headline = ("J&F-Mean", "J-Mean", "F-Mean")
    curves = ("J", "F")
    note = (
        "J: region similarity. F: boundary accuracy. Means over objects. The first and the last "
        "frame are not scored."
    )

    def __init__(self, year: Literal[2016, 2017]) -> None:
        self.year, self.name = year, f"davis{year}"

    def read(self, root: Path) -> list[DavisSequence]:
        """The sequences of the validation list, or all annotated ones if there is no
        `ImageSets`."""
        return read_sequences(root, self.year)

    def frames(self, sequence: DavisSequence) -> Iterator[Pixels]:
        """RGB frames; InputError if one differs in size from the first mask."""
        return read_frames(sequence.paths, read_labels(sequence.masks[0]).shape)

    def initial_labels(self, sequence: DavisSequence) -> dict[int, InitialLabels]:
        """The first mask; InputError if it has no object."""
        raw_hw = read_labels(sequence.masks[0])
        labels_hw = self.labels(raw_hw)
        if not labels_hw.any():
            hint = (
                "; 255 is void in DAVIS-2017, the object in DAVIS-2016: --benchmark davis2016"
                if (raw_hw == VOID).any()
                else ""
            )
            raise InputError(f"mask {sequence.masks[0]}: holds no object: nothing to track{hint}")
        return {0: labels_hw}

    def ground_truth(self, sequence: DavisSequence) -> list[Pixels]:
        """The true masks `[H, W]`; InputError names one that differs in size from the first."""
        masks = [read_labels(path) for path in sequence.masks]
        for path, labels_hw in zip(sequence.masks, masks, strict=True):
            check_size(f"mask {path}", labels_hw, masks[0].shape)
        return [self.labels(labels_hw) for labels_hw in masks]

    def labels(self, mask_hw: Pixels) -> Pixels:
        """Convert a mask's values to labels: in 2016 all that is not 0 is one object; in 2017 void
        is background."""
        return (
            (mask_hw > 0).astype(np.uint8)
            if self.year == 2016
            else np.where(mask_hw == VOID, 0, mask_hw).astype(np.uint8)
        )

    def score(self, sequence: DavisSequence, predicted: list[Pixels]) -> dict[str, Scores]:
        """J and F of each object. Names are SEQUENCE in 2016, and SEQUENCE_NUMBER in 2017."""
        true = self.ground_truth(sequence)
        scores = score_sequence(predicted, true, objects_of(true[0], self.year))
        return {
            sequence.name if self.year == 2016 else f"{sequence.name}_{label}": score
            for label, score in scores.items()
        }

    def figures(self, scores: Mapping[str, Scores]) -> dict[str, float]:
        """The figures of the official `global_results`."""
        return global_row(scores) if scores else {}

    def write_tables(
        self, sequences: Iterable[Any], scores: Mapping[str, Scores], out: Path
    ) -> None:
        """Write `global_results-val.csv` and `per-sequence_results-val.csv`; InputError if there is
        nothing to score."""
        if not scores:
            raise InputError(f"{out}: no object in any first mask: nothing to score")
        overall = global_row(scores)
        write_csv(out / "global_results-val.csv", [overall, overall.values()])
        means = (
            [name, *(side.mean for side in statistics(score))] for name, score in scores.items()
        )
        write_csv(out / "per-sequence_results-val.csv", [SEQUENCE_COLUMNS, *means])


class DavisTest(Davis):
    """DAVIS-2017 test-dev, whose truth is not public: predictions are submitted to a server."""

    def __init__(self) -> None:
        super().__init__(2017)
        self.name = "davis2017-test"

    note = "The truth is not public: submission.zip is for the benchmark's server."

    def read(self, root: Path) -> list[DavisSequence]:
        """The sequences of `ImageSets/2017/test-dev.txt`, each with its first mask."""
        path = root / "ImageSets/2017/test-dev.txt"
        if not path.exists():
            raise missing_path_error(path, "the DAVIS-2017 test-dev tree", root, self.name)
        check_resolution(root, "DAVIS-2017-test-dev-480p.zip")
        return [read_sequence(root, name, truth=False) for name in listed(path)]

    def ground_truth(self, sequence: DavisSequence) -> list[Pixels]:
        """Raise InputError, since the truth is not public."""
        return Benchmark.ground_truth(self, sequence)

    def score(self, sequence: DavisSequence, predicted: list[Pixels]) -> dict[str, Scores]:
        """No scores, since the truth is not public."""
        return {}

    def write_tables(
        self, sequences: Iterable[Any], scores: Mapping[str, Scores], out: Path
    ) -> None:
        """Write `submission.zip` with masks `SEQ/00000.png`."""
        masks = self.written(sequences, out)
        write_archive(
            out / "submission.zip", {f"{path.parent.name}/{path.name}": path for path in masks}
        )


def read_sequences(root: Path, year: int) -> list[DavisSequence]:
    """The validation sequences of a DAVIS folder: those of its list, or all annotated ones if there
    is no `ImageSets`.

    Raises:
        InputError: a folder, list, frame or mask is missing, or a list is empty; the message names
            it.
    """
    annotations = root / "Annotations" / RESOLUTION
    check_resolution(root, "DAVIS-2017-trainval-480p.zip" if year == 2017 else "DAVIS-data.zip")
    for folder in (root / "JPEGImages" / RESOLUTION, annotations):
        if not folder.is_dir():
            raise missing_path_error(folder, LAYOUT, root, f"davis{year}")
    names = listed_sequences(root, year)
    if not (names := folders_in(annotations) if names is None else names):
        raise InputError(f"{annotations}: holds no sequences")
    return [read_sequence(root, name) for name in names]


def check_resolution(root: Path, release: str) -> None:
    """Raise InputError if only the full resolution is there, since official figures are at 480p;
    the message names the release to download instead."""
    for kind in ("JPEGImages", "Annotations"):
        others = [
            size for size in DAVIS_SIZES if size != RESOLUTION and (root / kind / size).is_dir()
        ]
        if others and not (root / kind / RESOLUTION).is_dir():
            raise InputError(
                f"{root / kind / RESOLUTION}: no such folder, only {' and '.join(others)}: "
                f"official figures are of {RESOLUTION}: expected the tree of {release}"
            )


def listed_sequences(root: Path, year: int) -> list[str] | None:
    """The sequence names in `ImageSets`, in the format of either year: names, or a pair of paths
    per frame. None if there is no such folder.

    If this year's list is missing, the other year's is read, since some releases have only one.
    """
    lists = root / "ImageSets"
    if not lists.is_dir():
        return None
    places = (
        lists / str(year) / "val.txt",
        lists / RESOLUTION / "val.txt",
        *find(lists, "20*/val.txt"),
    )
    path = next((path for path in places if path.exists()), None)
    if not path:
        raise missing_path_error(
            places[0],
            f"{LAYOUT}, and ImageSets with a list of those to evaluate, or no ImageSets, for all",
            root,
            f"davis{year}",
        )
    words = [word.strip("/") for word in listed(path)]
    if not words:
        raise InputError(f"{path}: names no sequence")
    return list(dict.fromkeys(word.split("/")[-2] if "/" in word else word for word in words))


def read_sequence(root: Path, name: str, *, truth: bool = True) -> DavisSequence:
    """Find and check the files of one sequence; with `truth=False`, only the first mask is
    needed."""
    frames = numbered_files(root / "JPEGImages" / RESOLUTION / name, PICTURES)
    masks = {
        path.stem: path
        for path in numbered_files(root / "Annotations" / RESOLUTION / name, (".png",))
    }
    for frame in frames if truth else frames[:1]:
        if frame.stem not in masks:
            raise InputError(
                f"sequence {name}: frame {frame.name} has no mask {frame.stem}.png in "
                f"Annotations/{RESOLUTION}/{name}"
            )
    return DavisSequence(
        name,
        len(frames),
        tuple(frames),
        tuple(masks[frame.stem] for frame in (frames if truth else frames[:1])),
    )


def objects_of(first_mask_hw: Pixels, year: int) -> list[int]:
    """The labels to score: in 2016 one object, whatever its values; in 2017 all up to the largest
    in the first mask, as in the official evaluation."""
    return (
        [1]
        if year == 2016
        else list(range(1, int(first_mask_hw[first_mask_hw < VOID].max(initial=0)) + 1))
    )


def score_sequence(
    predicted: Iterable[Pixels], true: Iterable[Pixels], objects: list[int]
) -> dict[int, Scores]:
    """J and F of each object over all frames but the first and the last; the masks are labels
    `[H, W]`, one per frame."""
    pred, there = list(predicted)[1:-1], list(true)[1:-1]
    return {label: mask_scores(pred, there, label) for label in objects}


def statistics(score: Scores) -> tuple[Statistics, Statistics]:
    """Mean, recall and decay of J and of F of one object."""
    return summarise(score["J"]), summarise(score["F"])


def global_row(scores: Mapping[str, Scores]) -> dict[str, float]:
    """The official overall figures: means over objects."""
    sides = zip(*map(statistics, scores.values()), strict=True)
    numbers = [
        mean([getattr(one, field) for one in side])
        for side in sides
        for field in Statistics._fields
    ]
    values = [(numbers[0] + numbers[3]) / 2, *numbers]
    return {column: float(value) for column, value in zip(GLOBAL_COLUMNS, values, strict=True)}
