"""VIP (video instance-level parsing): propagates 19 parts of people, as classes (`vip`, mean IoU)
or as instances of each class (`vip-instances`, AP^r).

Zhou et al., "Adaptive temporal encoding network for video instance-level human parsing", ACM MM
2018, and the evaluation code of its release (ATEN). The downloaded folder `VIP_Fine` has
`lists/val_videos.txt`, `Images/VIDEO/NAME.jpg` (one frame in 25),
`Annotations/Category_ids/VIDEO/NAME.png`, and `Annotations/Instance_ids/VIDEO/NAME.png` with
`NAME.txt`, whose lines begin with an instance's number and its class. Labels are propagated from
the first frame, as UVC and CRW do. The first frame is scored although it is given, as in their
evaluation.

- `vip`: `mIoU` is the mean over 20 classes (including the background) of intersection over union,
  both summed over all pixels of all videos. A class that occurs neither in the truth nor in the
  predictions is left out.
- `vip-instances`: a predicted instance of a class is a hit at t if its IoU with any true instance
  of that class in the same frame is more than t, even if other predictions also hit the same true
  instance. `AP^r@t` is the average precision of a class over all frames, averaged over those of the
  19 classes that the truth has; `AP^r` is the mean over t = 0.1 .. 0.9. Propagated labels have no
  confidence, so all are equally confident, and a class's average precision is its precision times
  its recall. Recall is limited to 1, since several hits may be of one true instance.

Shapes: h w pixels, c classes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corrflow.benchmarks.benchmark import (
    InitialLabels,
    PictureSequence,
    Scores,
    check_size,
    read_frames,
)
from corrflow.benchmarks.folders import PICTURES, listed, missing_path_error, numbered_files
from corrflow.benchmarks.masks import MaskBenchmark
from corrflow.benchmarks.tables import write_figures
from corrflow.benchmarks.texts import read_text
from corrflow.errors import InputError
from corrflow.metrics import average_precision, class_areas, instance_overlaps, mean, mean_iou
from corrflow.pictures import Pixels, read_labels

CLASSES = (
    "background", "hat", "hair", "gloves", "sun-glasses", "upper-clothes", "dress", "coat",
    "socks", "pants", "torso-skin",
    "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg", "right-leg", "left-shoe",
    "right-shoe",
)  # fmt: skip
OVERLAPS = tuple(round(0.1 * step, 1) for step in range(1, 10))


@dataclass(frozen=True)
class VipSequence(PictureSequence):
    """A video and its labels, one file per frame."""

    labels: tuple[Path, ...]


class Vip(MaskBenchmark):
    """The VIP benchmark with parts as classes."""

    name = "vip"
    folder = "Category_ids"
    headline: tuple[str, ...] = ("mIoU",)
    curves: tuple[str, ...] = ("IoU",)
    note = (
        "Mean IoU over 20 classes, including the background, of the pixels of all videos together. "
        "The first frame is scored, as in CRW."
    )

    def read(self, root: Path) -> list[VipSequence]:
        """The videos of `lists/val_videos.txt`, in `root` or in its folder `VIP_Fine`."""
        base = root / "VIP_Fine" if (root / "VIP_Fine").is_dir() else root
        labels = (
            base / "Annotations" / self.folder
            if (base / "Annotations").is_dir()
            else base / self.folder
        )
        names = base / "lists" / "val_videos.txt"
        for path in (base / "Images", labels, names):
            if not path.exists():
                raise missing_path_error(
                    path,
                    f"VIP_Fine with Images, Annotations/{self.folder} and lists",
                    root,
                    self.name,
                )
        if not (videos := [Path(word).name for word in listed(names)]):  # some hold paths
            raise InputError(f"{names}: names no video")
        return [read_video(base / "Images" / video, labels / video) for video in videos]

    def frames(self, sequence: VipSequence) -> Iterator[Pixels]:
        """RGB frames; InputError if one differs in size from the first labels."""
        return read_frames(sequence.paths, read_labels(sequence.labels[0]).shape)

    def initial_labels(self, sequence: VipSequence) -> dict[int, InitialLabels]:
        """The labels of the first frame; InputError if it has no part."""
        labels_hw = read_labels(sequence.labels[0])
        if not labels_hw.any():
            raise InputError(f"mask {sequence.labels[0]}: holds no part: nothing to track")
        return {0: labels_hw}

    def score(self, sequence: VipSequence, predicted: list[Pixels]) -> dict[str, Scores]:
        """Count the pixels of each class in each frame: those in both truth and prediction, and
        those in either."""
        areas_t2c = np.array(
            [
                class_areas(pred_hw, true_hw, len(CLASSES))
                for pred_hw, true_hw in paired(sequence, predicted)
            ]
        )
        scores = {}
        for number, part in enumerate(CLASSES):
            both_t, either_t = areas_t2c[:, 0, number], areas_t2c[:, 1, number]
            if either_t.any():
                iou_t = np.where(either_t > 0, both_t / np.maximum(either_t, 1), np.nan)
                scores[f"{sequence.name}_{part}"] = {
                    "IoU": iou_t.tolist(),
                    "intersection": both_t.tolist(),
                    "union": either_t.tolist(),
                }
        return scores

    def figures(self, scores: Mapping[str, Scores]) -> dict[str, float]:
        """`mIoU`, and the IoU of each class."""
        areas = {
            part: [sums(scores, part, measure) for measure in ("intersection", "union")]
            for part in CLASSES
        }
        parts = {
            f"IoU-{part}": mean_iou(*([area] for area in pair)) for part, pair in areas.items()
        }
        return {"mIoU": mean_iou(*zip(*areas.values(), strict=True)), **parts} if scores else {}

    def write_tables(
        self, sequences: Iterable[Any], scores: Mapping[str, Scores], out: Path
    ) -> None:
        """Write `global_results.csv` and `per-sequence_results.csv`."""
        write_figures(self.figures, scores, out)


class VipInstances(Vip):
    """The VIP benchmark with parts as instances."""

    name = "vip-instances"
    folder = "Instance_ids"
    headline = ("AP^r", "AP^r@0.5")
    curves = ("found",)
    note = (
        "AP^r: mean of average precision at IoU 0.1 .. 0.9 over the classes of parts. Labels have "
        "no confidence, so this is precision times recall."
    )

    def initial_labels(self, sequence: VipSequence) -> dict[int, InitialLabels]:
        """As in `vip`; InputError names an instance whose class is not listed."""
        given = super().initial_labels(sequence)
        classes_of(sequence.labels[0], given[0])
        return given

    def score(self, sequence: VipSequence, predicted: list[Pixels]) -> dict[str, Scores]:
        """For each class and frame, the number of true and predicted instances, and of hits at each
        overlap."""
        pairs = list(paired(sequence, predicted))
        classes = [
            classes_of(path, true) for path, (_, true) in zip(sequence.labels, pairs, strict=True)
        ]
        scores: dict[str, Scores] = {}
        for number, part in enumerate(CLASSES[1:], start=1):
            of_class = [instances_of_class(true, number) for true in classes]
            first = instances_of_class(classes[0], number)
            frames = [
                count_instances(pred, true, first, there)
                for (pred, true), there in zip(pairs, of_class, strict=True)
            ]
            if any(frame["true"] or frame["predicted"] for frame in frames):
                scores[f"{sequence.name}_{part}"] = {
                    measure: [frame[measure] for frame in frames] for measure in frames[0]
                }
        return scores

    def figures(self, scores: Mapping[str, Scores]) -> dict[str, float]:
        """`AP^r`, and `AP^r@t` at each overlap."""
        at = {
            overlap: mean([precision_of(scores, part, f"hits@{overlap}") for part in CLASSES[1:]])
            for overlap in OVERLAPS
        }
        return (
            {
                "AP^r": mean(list(at.values())),
                **{f"AP^r@{overlap}": value for overlap, value in at.items()},
            }
            if scores
            else {}
        )

    def write_predictions(self, sequence: VipSequence, predicted: list[Pixels], out: Path) -> None:
        """As in `vip`; also write the list that the release's evaluation reads beside each PNG
        (both in `VIDEO/instance_part`): class and confidence of each instance number from 1 on."""
        super().write_predictions(sequence, predicted, out)
        classes = read_classes(sequence.labels[0].with_suffix(".txt"))
        lines = "".join(
            f"{classes.get(number, 0)} 1\n" for number in range(1, max(classes, default=0) + 1)
        )
        for name in self.frame_names(sequence):
            (out / "masks" / sequence.name / f"{name}.txt").write_text(lines)


def paired(sequence: VipSequence, predicted: list[Pixels]) -> Iterator[tuple[Pixels, Pixels]]:
    """Yield predicted and true labels of each frame; InputError names labels of another size."""
    for path, pred_hw in zip(sequence.labels, predicted, strict=True):
        true_hw = read_labels(path)
        check_size(f"mask {path}", true_hw, pred_hw.shape)
        yield pred_hw, true_hw


def instances_of_class(classes: Mapping[int, int], number: int) -> list[int]:
    """The instances of a class."""
    return [instance for instance, part in classes.items() if part == number]


def count_instances(
    pred_hw: Pixels, true_hw: Pixels, pred_ids: list[int], true_ids: list[int]
) -> dict[str, float]:
    """Count the instances of one class in one frame; `found`, which the report draws, is the number
    of hits at 0.5 over the number of true instances."""
    pred, true = (
        [map_hw == i for i in ids if (map_hw == i).any()]
        for map_hw, ids in ((pred_hw, pred_ids), (true_hw, true_ids))
    )
    overlap_p = instance_overlaps(pred, true)
    hits = {f"hits@{overlap}": float(np.count_nonzero(overlap_p > overlap)) for overlap in OVERLAPS}
    recall = hits["hits@0.5"] / len(true) if true else float("nan")
    return {"found": recall, "true": float(len(true)), "predicted": float(len(pred)), **hits}


def sums(scores: Mapping[str, Scores], part: str, measure: str) -> float:
    """Sum a measure of one class over all frames of all videos."""
    return sum(sum(score[measure]) for name, score in scores.items() if name.endswith(f"_{part}"))


def precision_of(scores: Mapping[str, Scores], part: str, hits: str) -> float:
    """The average precision of one class; NaN if the truth does not have it."""
    return average_precision(
        *(sums(scores, part, measure) for measure in (hits, "predicted", "true"))
    )


def read_video(images: Path, labels: Path) -> VipSequence:
    """Find the files of one video; InputError names a frame without labels, or labels without a
    frame."""
    frames, masks = (
        numbered_files(images, PICTURES, gaps=True),
        numbered_files(labels, (".png",), gaps=True),
    )
    by_name = {path.stem: path for path in masks}
    for frame in frames:
        if frame.stem not in by_name:
            raise InputError(
                f"sequence {images.name}: frame {frame.name} has no labels {frame.stem}.png in "
                f"{labels}"
            )
    if strange := sorted(set(by_name) - {frame.stem for frame in frames}):
        raise InputError(f"{images}: frame {strange[0]} is missing, but {labels} has its labels")
    return VipSequence(
        images.name, len(frames), tuple(frames), tuple(by_name[frame.stem] for frame in frames)
    )


def classes_of(path: Path, labels_hw: Pixels) -> dict[int, int]:
    """Read the class of each instance from the list beside these labels; InputError names an
    instance in the labels without a valid class."""
    classes = read_classes(path.with_suffix(".txt"))
    for instance in np.unique(labels_hw[labels_hw > 0]).tolist():
        if classes.get(instance) not in range(1, len(CLASSES)):
            problem = (
                f"is of class {classes[instance]}" if instance in classes else "is not in the list"
            )
            raise InputError(
                f"instances {path.with_suffix('.txt')}: {instance}, which {path.name} holds, "
                f"{problem}: expected 1 to {len(CLASSES) - 1}"
            )
    return classes


def read_classes(path: Path) -> dict[int, int]:
    """Read the class of each instance from lines `INSTANCE CLASS ...`; InputError if a line is
    malformed."""
    lines = read_text(path).splitlines()
    try:
        rows = [[int(word) for word in line.split()[:2]] for line in lines if line.strip()]
        return {row[0]: row[1] for row in rows}
    except (ValueError, IndexError):
        raise InputError(
            f"instances {path}: expected lines of an instance's number and its class"
        ) from None
