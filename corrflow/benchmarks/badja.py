"""BADJA: tracks 20 joints of animals; PCK at 0.2 of the square root of the animal's area.

The measure is that of Biggs et al., "Creatures great and SMAL", ACCV 2018. The tracking protocol is
that of PIPs (Harley et al., ECCV 2022, section 4.3, and their `test_on_badja`):

- frames are those from the first to the last labelled one, each resized to 512 x 320 pixels; about
  every fifth has labels;
- the joints that are visible in the first labelled frame are given there, and are scored in each
  later labelled frame in which they are visible;
- a joint is a hit if its distance to the truth is less than 0.2 times the square root of the number
  of labelled pixels in that frame's segmentation, at 512 x 320;
- PCK of a video is the share of hits; the benchmark's figure is the mean over videos.

There are two deviations. PIPs also scores joints that are hidden in the first frame, as tracks that
begin at (0, 0); here they are not scored, since no position is given. The area of PIPs counts only
objects whose palette colour has red in it; here it counts all objects. Besides, PIPs leaves out the
videos that are not from DAVIS; here they are read if they are in `extra_videos` (tiger and cat_jump
are not distributed). Shapes: t frames, k joints, h w pixels.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from corrflow.benchmarks.benchmark import InitialLabels, PictureSequence, Scores, read_frames
from corrflow.benchmarks.folders import (
    PICTURES,
    find,
    missing_path_error,
    number_of,
    numbered_files,
)
from corrflow.benchmarks.points import (
    Floats,
    PointBenchmark,
    inside,
    known,
    named_scores,
    pooled,
    positions,
    require_points,
)
from corrflow.benchmarks.tables import by_sequence
from corrflow.benchmarks.texts import read_text
from corrflow.errors import InputError
from corrflow.metrics import keypoint_hits, mean
from corrflow.pictures import Pixels, read_frame, read_labels

# indices of the annotated joints among the 37 of a label, with the names of the data set's
# joint_catalog.py
JOINTS = {
    8: "upper-right-1", 9: "upper-right-2", 10: "upper-right-3", 12: "upper-left-1",
    13: "upper-left-2", 14: "upper-left-3",
    15: "neck", 18: "lower-right-1", 19: "lower-right-2", 20: "lower-right-3", 22: "lower-left-1",
    23: "lower-left-2",
    24: "lower-left-3", 25: "tail-0", 28: "tail-3", 31: "tail-6", 32: "jaw", 33: "nose",
    35: "right-ear", 36: "left-ear",
}  # fmt: skip
ALL_JOINTS = 37
SIZE = (512, 320)  # width and height
SHARE = 0.2  # of the square root of the area
MEASURE = "PCK@0.2"


@dataclass(frozen=True)
class Label:
    """A labelled frame."""

    frame: int
    """Index of the frame, from 0."""
    segmentation: Path
    xy_k2: NDArray[np.float32]
    """Joint positions in pixels at 512 x 320; NaN where a joint is hidden."""


@dataclass(frozen=True)
class BadjaSequence(PictureSequence):
    """A video and its labels."""

    labels: tuple[Label, ...] = field(compare=False, repr=False)


class Badja(PointBenchmark):
    """The BADJA benchmark: joints of animals."""

    name = "badja"
    headline = (MEASURE,)
    curves = (MEASURE,)
    note = (
        "PCK@0.2: joints within 0.2 of the square root of the animal's area; mean over videos. The "
        "first labelled frame is not scored."
    )

    def read(self, root: Path) -> list[BadjaSequence]:
        """The animals of `joint_annotations`, except those of `extra_videos` whose frames are
        missing."""
        folder = root / "joint_annotations"
        if not folder.is_dir():
            raise missing_path_error(
                folder,
                "BADJA with joint_annotations/ANIMAL.json and DAVIS/ or extra_videos/ beside it",
                root,
                self.name,
            )
        read = (read_animal(root, path) for path in find(folder, "*.json"))
        if not (sequences := [sequence for sequence in read if sequence]):
            raise InputError(f"{folder}: no ANIMAL.json there whose frames are in {root}")
        return sequences

    def frames(self, sequence: BadjaSequence) -> Iterator[Pixels]:
        """RGB frames, resized; InputError if one differs in size from the first before that."""
        frames = read_frames(sequence.paths, read_frame(sequence.paths[0]).shape)
        return (
            np.array(Image.fromarray(frame_hw3).resize(SIZE, Image.Resampling.BILINEAR))
            for frame_hw3 in frames
        )

    def initial_labels(self, sequence: BadjaSequence) -> dict[int, InitialLabels]:
        """The joints that are visible in the first frame and lie within the picture; InputError if
        there are none."""
        label = sequence.labels[0]
        return {
            0: require_points(
                inside(label.xy_k2, *SIZE),
                f"labels of {sequence.name}: {sequence.paths[label.frame].name}",
            )
        }

    def score(self, sequence: BadjaSequence, predicted: list[Any]) -> dict[str, Scores]:
        """Score each given joint in the labelled frames after the first."""
        first_k2, later = self.initial_labels(sequence)[0], sequence.labels[1:]
        given_k = known(first_k2)
        pred_tk2 = positions(predicted)[[label.frame for label in later]]
        true_tk2 = np.array(
            [np.where(given_k[:, None], label.xy_k2, np.nan) for label in later]
        ).reshape(-1, *first_k2.shape)
        limit_t = np.array([SHARE * np.sqrt(area(label.segmentation)) for label in later])
        hits = {MEASURE: keypoint_hits(pred_tk2, true_tk2, limit_t, strict=True)}
        return named_scores(sequence.name, list(JOINTS.values()), hits)

    def figures(self, scores: Mapping[str, Scores]) -> dict[str, float]:
        """PCK@0.2, the mean over videos."""
        return (
            {MEASURE: mean([pooled(of.values(), MEASURE) for of in by_sequence(scores).values()])}
            if scores
            else {}
        )


def area(path: Path) -> int:
    """The number of labelled pixels of a segmentation after resizing."""
    return int(
        np.count_nonzero(
            np.array(Image.fromarray(read_labels(path)).resize(SIZE, Image.Resampling.NEAREST))
        )
    )


def read_animal(root: Path, path: Path) -> BadjaSequence | None:
    """Read one video; None if it is one of `extra_videos` whose frames are missing. InputError
    names a file that is missing otherwise."""
    text = read_text(path)
    try:
        labels = sorted(json.loads(text), key=lambda label: str(label["image_path"]))
        places = [
            (root / label["image_path"], root / label["segmentation_path"]) for label in labels
        ]
        joints = [(label["joints"], label["visibility"]) for label in labels]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"labels {path}: expected a list of image_path, segmentation_path, joints and "
            f"visibility ({error!r})"
        ) from None
    if not labels:
        raise InputError(f"labels {path}: no labelled frame")
    for image, _ in places:
        if not image.stem[-1:].isdecimal():
            raise InputError(
                f"labels {path}: image_path {image}: expected a name that ends with the frame's "
                "number"
            )
    folder = places[0][0].parent
    if "extra_videos" in folder.parts and not folder.is_dir():
        return None
    for place in [place for pair in places for place in pair]:
        if not place.exists():
            raise InputError(f"sequence {path.stem}: {place}: no such file: {path.name} labels it")
    return BadjaSequence(path.stem, *frames_and_labels(path, folder, places, joints))


def frames_and_labels(
    path: Path, folder: Path, places: list[tuple[Path, Path]], joints: list[tuple[Any, Any]]
) -> tuple[int, tuple[Path, ...], tuple[Label, ...]]:
    """The number and the paths of the frames from the first to the last labelled one, and the
    labels."""
    first, last = number_of(places[0][0]), number_of(places[-1][0])
    frames = [
        frame
        for frame in numbered_files(folder, PICTURES, gaps=True)
        if first <= number_of(frame) <= last
    ]
    if len(frames) != last - first + 1:
        raise InputError(
            f"{folder}: {len(frames)} frames from {first} to {last}, which {path.name} labels: "
            f"expected {last - first + 1}"
        )
    height, width = read_frame(frames[0]).shape[:2]
    scale = np.array(SIZE) / (width, height)
    labels = tuple(
        Label(number_of(image) - first, segmentation, joints_of(path, *joint_arrays, scale))
        for (image, segmentation), joint_arrays in zip(places, joints, strict=True)
    )
    return len(frames), tuple(frames), labels


def joints_of(path: Path, joints: Any, visibility: Any, scale: Floats) -> NDArray[np.float32]:
    """Convert a label's joints, which are (row, column), to the annotated joints `[20, 2]` as x and
    y; NaN where hidden."""
    try:
        yx_k2, visible_k = np.asarray(joints, dtype=np.float64), np.asarray(visibility, dtype=bool)
    except (ValueError, TypeError) as error:  # rows of different lengths, or text
        raise InputError(
            f"labels {path}: expected joints as {ALL_JOINTS} rows of two numbers, and as many of "
            f"visibility ({error})"
        ) from None
    if yx_k2.shape != (ALL_JOINTS, 2) or visible_k.shape != (ALL_JOINTS,):
        raise InputError(
            f"labels {path}: {list(yx_k2.shape)} joints: expected [{ALL_JOINTS}, 2], and as many "
            "of visibility"
        )
    xy_k2 = (yx_k2[:, ::-1] + 0.5) * scale - 0.5  # centres of pixels stay centres
    return np.where(visible_k[:, None], xy_k2, np.nan)[list(JOINTS)].astype(np.float32)
