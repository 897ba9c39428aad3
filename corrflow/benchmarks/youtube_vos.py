"""YouTube-VOS 2018 and 2019: several objects that may appear mid-video, of seen and unseen
categories.

Xu et al., arXiv 1809.03327. A downloaded split has `meta.json`, `JPEGImages/VIDEO/00000.jpg` and
`Annotations/VIDEO/00000.png`; frames are numbered in fives, or one by one if all were downloaded.
The validation split is scored by a server. The scores here are for splits whose truth is available
(the training split, or a private truth), and follow the same rules as far as they are public:

- each object is given in the frame in which it first appears; all later annotated frames are
  scored;
- J and F of an object are means over its frames, and each figure is a mean over objects: `J_seen`
  and `F_seen` over those of the 65 categories of the training split, `J_unseen` and `F_unseen` over
  the others; `Overall` is the mean of the four.

A split has its truth if every fifth frame from a video's first mask on has a mask. Frames that
`meta.json` names as the first of an object have masks in any split, so they are ignored in this
check. `submission.zip` is for the server and holds every fifth frame as
`Annotations/VIDEO/00005.png`. Shapes: h w pixels.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from corrflow.benchmarks.benchmark import (
    InitialLabels,
    PictureSequence,
    Scores,
    check_size,
    few,
    read_frames,
)
from corrflow.benchmarks.folders import PICTURES, missing_path_error, number_of, numbered_files
from corrflow.benchmarks.masks import MaskBenchmark, entries, mask_scores
from corrflow.benchmarks.tables import write_archive, write_figures
from corrflow.benchmarks.texts import read_text
from corrflow.errors import InputError
from corrflow.metrics import mean
from corrflow.pictures import Pixels, read_labels

SEEN_CATEGORIES = {  # the categories of train/meta.json
    "airplane", "ape", "bear", "bike", "bird", "boat", "bucket", "bus", "camel", "cat", "cow",
    "crocodile", "deer", "dog", "dolphin",
    "duck", "eagle", "earless_seal", "elephant", "fish", "fox", "frisbee", "frog", "giant_panda",
    "giraffe", "hand", "hat", "hedgehog",
    "horse", "knife", "leopard", "lion", "lizard", "monkey", "motorbike", "mouse", "others", "owl",
    "paddle", "parachute", "parrot",
    "penguin", "person", "plant", "rabbit", "raccoon", "sedan", "shark", "sheep", "sign",
    "skateboard", "snail", "snake", "snowboard",
    "squirrel", "surfboard", "tennis_racket", "tiger", "toilet", "train", "truck", "turtle",
    "umbrella", "whale", "zebra",
}  # fmt: skip
EVERY = 5  # frames whose number is a multiple of this are annotated


@dataclass(frozen=True)
class VosSequence(PictureSequence):
    """A video and its available masks."""

    masks: tuple[tuple[int, Path], ...]
    """Frame index, from 0, and path of each mask."""
    objects: tuple[tuple[int, str], ...]
    """Label and category of each object."""
    firsts: tuple[tuple[int, int], ...]
    """Label of each object and its first frame according to meta.json, from 0."""
    has_truth: bool = False
    """Whether the truth is available; the same for all videos of a split."""


class YouTubeVos(MaskBenchmark):
    """The YouTube-VOS benchmark: masks of objects that may enter at any time."""

    name = "youtube-vos"
    headline = ("Overall", "J_seen", "J_unseen", "F_seen", "F_unseen")
    curves = ("J", "F")
    note = (
        "J: region similarity. F: boundary accuracy. Seen and unseen: categories of the training "
        "split, and others. Overall: mean of the four."
    )

    def read(self, root: Path) -> list[VosSequence]:
        """The videos of `meta.json`, in `root` or in its folder `valid`."""
        split = (
            root
            if (root / "meta.json").exists() or not (root / "valid").is_dir()
            else root / "valid"
        )
        for path in (split / "meta.json", split / "JPEGImages", split / "Annotations"):
            if not path.exists():
                raise missing_path_error(
                    path,
                    "a split of YouTube-VOS with meta.json, JPEGImages/VIDEO and Annotations/VIDEO",
                    root,
                    self.name,
                )
        videos = [
            read_video(split, name, objects)
            for name, objects in read_meta(split / "meta.json").items()
        ]
        has_truth = has_ground_truth(split, videos)
        return [replace(video, has_truth=has_truth) for video in videos]

    def frames(self, sequence: VosSequence) -> Iterator[Pixels]:
        """RGB frames; InputError if one differs in size from the first mask."""
        return read_frames(sequence.paths, read_labels(sequence.masks[0][1]).shape)

    def initial_labels(self, sequence: VosSequence) -> dict[int, InitialLabels]:
        """Each object, given in the first mask that has it."""
        masks, paths = read_masks(sequence), dict(sequence.masks)
        for label, first in sequence.firsts:
            if not (masks[first] == label).any():
                raise InputError(
                    f"mask {paths[first]}: does not hold object {label}: meta.json says that it is "
                    "first there"
                )
        if not (given := entries(masks.items())):
            raise InputError(
                f"{sequence.masks[0][1].parent}: no mask holds an object: nothing to track"
            )
        return dict(given)

    def score(self, sequence: VosSequence, predicted: list[Pixels]) -> dict[str, Scores]:
        """J and F of each object; empty if the truth is not available."""
        if not sequence.has_truth:
            return {}
        masks, categories = read_masks(sequence), dict(sequence.objects)
        scores = {}
        for entry, labels_hw in entries(masks.items()).items():
            later = [frame for frame in masks if frame > entry]
            for label in np.unique(labels_hw[labels_hw > 0]).tolist():
                group = "seen" if categories[label] in SEEN_CATEGORIES else "unseen"
                pred, true = (
                    [predicted[frame] for frame in later],
                    [masks[frame] for frame in later],
                )
                scores[f"{sequence.name}_{label}-{group}"] = mask_scores(pred, true, label)
        return scores

    def figures(self, scores: Mapping[str, Scores]) -> dict[str, float]:
        """The figures that the server reports; NaN for a group without objects."""
        if not scores:
            return {}
        groups = {
            f"{measure}_{group}": mean(
                [
                    mean(score[measure])
                    for name, score in scores.items()
                    if name.endswith(f"-{group}")
                ]
            )
            for measure in ("J", "F")
            for group in ("seen", "unseen")
        }
        return {
            "Overall": mean(list(groups.values())),
            **{name: groups[name] for name in self.headline[1:]},
        }

    def write_tables(
        self, sequences: Iterable[Any], scores: Mapping[str, Scores], out: Path
    ) -> None:
        """Write `submission.zip` and, if there are scores, `global_results.csv` and
        `per-sequence_results.csv`."""
        write_figures(self.figures, scores, out)
        masks = [path for path in self.written(sequences, out) if number_of(path) % EVERY == 0]
        write_archive(
            out / "submission.zip",
            {f"Annotations/{path.parent.name}/{path.name}": path for path in masks},
        )


def read_masks(sequence: VosSequence) -> dict[int, Pixels]:
    """Read the masks by frame index; InputError names one that differs in size from the first, or
    has an object that meta.json lacks."""
    masks = {frame: read_labels(path) for frame, path in sequence.masks}
    known, shape = {0, *dict(sequence.objects)}, next(iter(masks.values())).shape
    for (frame, path), labels_hw in zip(sequence.masks, masks.values(), strict=True):
        check_size(f"mask {path}", labels_hw, shape)
        if strange := set(np.unique(masks[frame]).tolist()) - known:
            raise InputError(
                f"mask {path}: holds object {min(strange)}: meta.json has {sorted(known - {0})} of "
                f"{sequence.name}"
            )
    return masks


def read_meta(path: Path) -> dict[str, dict[str, Any]]:
    """Read the objects of each video; InputError if the file does not have the published layout."""
    text = read_text(path)
    try:
        return {
            str(name): dict(video["objects"])
            for name, video in sorted(json.loads(text)["videos"].items())
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: expected videos, each with objects by number ({error!r})"
        ) from None


def read_video(split: Path, name: str, objects: dict[str, Any]) -> VosSequence:
    """Find and check the files of one video; `has_truth` is set later, from all videos of the
    split."""
    frames = numbered_files(split / "JPEGImages" / name, PICTURES, gaps=True)
    masks = numbered_files(split / "Annotations" / name, (".png",), gaps=True)
    place = {path.stem: frame for frame, path in enumerate(frames)}
    try:
        wanted = {stem for entry in objects.values() for stem in entry["frames"]} | {
            path.stem for path in masks
        }
        categories = tuple((int(label), str(entry["category"])) for label, entry in objects.items())
        firsts = {int(label): min(entry["frames"], key=int) for label, entry in objects.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{split / 'meta.json'}: video {name}: expected objects with category and frames "
            f"({error!r})"
        ) from None
    if absent := sorted(wanted - set(place)):
        raise InputError(
            f"{split / 'JPEGImages' / name}: frame {absent[0]} is missing, which meta.json or a "
            "mask names"
        )
    for label, stem in firsts.items():
        if stem not in {path.stem for path in masks}:
            raise InputError(
                f"{masks[0].parent}: mask {stem}.png is missing: meta.json says that object "
                f"{label} is first there"
            )
    at = tuple((place[path.stem], path) for path in masks)
    return VosSequence(
        name,
        len(frames),
        tuple(frames),
        at,
        categories,
        tuple((label, place[stem]) for label, stem in firsts.items()),
    )


def has_ground_truth(split: Path, videos: list[VosSequence]) -> bool:
    """Whether the truth is available: every frame of `truth_frames` has a mask; InputError if
    only some have one."""
    telling = [(video, frame) for video in videos for frame in truth_frames(video)]
    missing = [
        f"{video.name}/{video.paths[frame].stem}.png"
        for video, frame in telling
        if frame not in dict(video.masks)
    ]
    if missing and len(missing) < len(telling):
        raise InputError(
            f"{split / 'Annotations'}: {len(missing)} of {len(telling)} masks after the first of "
            f"an object are missing ({few(missing)}): "
            "expected all, or none if the truth is not available"
        )
    return not missing


def truth_frames(video: VosSequence) -> list[int]:
    """The frames whose masks tell whether the truth is available: every fifth from the first mask
    on, except first frames of an object."""
    begin, firsts = video.masks[0][0], {first for _, first in video.firsts}
    return [
        frame
        for frame, path in enumerate(video.paths)
        if frame >= begin and number_of(path) % EVERY == 0 and frame not in firsts
    ]
