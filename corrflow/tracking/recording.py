"""All that is kept of a tracked video: `NAME.mp4` with the tracks drawn over it, `NAME.csv`,
`NAME.json`, of objects `NAME-masks/`, and annotations in the formats that are asked for."""

from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from corrflow.annotations import AnnotationWriter, TrackedShape
from corrflow.drawing import Dots, draw_boxes, mask_to_box
from corrflow.files import content_digest
from corrflow.pictures import Pixels, overlay, write_mask
from corrflow.propagation import TrackedPoints
from corrflow.tracking.mask_tracker import FrameMasks
from corrflow.tracking.plan import objects_of
from corrflow.tracking.review import FrameToReview, ReviewList
from corrflow.tracking.staging import StagedFiles, digests_below
from corrflow.tracking.tables import Cell, TrackTable
from corrflow.tracking.video_writer import Sound, VideoFormat, VideoWriter

Result = TypeVar("Result")
NOWHERE: list[Cell] = [None, None, None, None]


class FrameNames(Protocol):
    """What the frames of a video are called; places count from 0."""

    def number(self, place: int) -> int:
        """The number that a user knows a frame by."""

    def name(self, place: int) -> str:
        """What a file about the frame is called, without suffix."""


@dataclass(frozen=True)
class Recorded:
    """The video that is tracked."""

    video: str
    """Its name, for the tables."""
    names: FrameNames
    objects: Mapping[int, str] = field(default_factory=dict)
    """What each object or point is called, by its number; none where nobody named them."""
    annotations: Callable[[Path], Mapping[str, AnnotationWriter]] = lambda folder: {}
    """Opens what writes labels as tools read them, by format, into a folder."""
    review: int = 0
    """How many frames to name that a person should look at first."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """What decides the tracks, for the table: a later tracking sees by it what it can take over."""
    is_kept: Callable[[int], bool] = lambda place: False
    """Whether a frame's result is that of an earlier tracking, whose mask is there."""
    in_place: Mapping[str, str] = field(default_factory=dict)
    """Digests of the files that were there when the tracking was planned, by their paths beside
    the video."""
    disposable: Set[str] = frozenset()
    """Those that an earlier tracking wrote and that are taken away where they do not come again."""


class Recording(ABC, Generic[Result]):
    """Written frame by frame. What is finished has its names; what is left unfinished leaves what
    was there before."""

    columns: tuple[str, ...]

    def __init__(
        self, out: Path, video_format: VideoFormat, sound: Sound | None, about: Recorded
    ) -> None:
        self.out, self.tick, self.names, self.count = out, video_format.tick, about.names, 0
        self.object_names = about.objects
        self.in_place, self.disposable = about.in_place, about.disposable
        self.review_list, self.review_count = ReviewList(), about.review
        self.provenance, self.is_kept = about.provenance, about.is_kept
        first, *others = self.columns
        columns = (first, "name", *others) if self.object_names else self.columns
        head: dict[str, str | int | float] = {
            "video": about.video,
            "width": video_format.width,
            "height": video_format.height,
        }
        with ExitStack() as opened:
            self.staged = opened.enter_context(StagedFiles(out, about.in_place))
            stem = self.staged.out.with_suffix("")
            self.annotations = about.annotations(self.staged.folder)
            self.table = opened.enter_context(TrackTable(stem, columns, head))
            self.writer = opened.enter_context(VideoWriter(self.staged.out, video_format, sound))
            self.opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.opened.__exit__(kind, error, trace)

    def add(self, pixels_hw3: Pixels, stamp: int, result: Result) -> None:
        """The next frame and what was found in it."""
        number = self.names.number(self.count)
        self.table.add(number, float(stamp * self.tick), self.named_rows(result))
        self.writer.add(self.draw(pixels_hw3, result), stamp)
        self.review_list.add(self.confidence(result))
        if self.annotations:
            shapes = self.shapes(result)
            for writer in self.annotations.values():
                writer.add(self.count, pixels_hw3, shapes)
        self.count += 1

    def finish(self, *, whole: bool) -> None:
        """Give the files their names; `whole`: the video ends here."""
        self.writer.finish(whole=whole)
        for writer in self.annotations.values():
            writer.finish()
        written = {
            name: digests_below(self.staged.folder, writer.path)
            for name, writer in self.annotations.items()
        }
        frames = [
            {"frame": self.names.number(place), "confidence": round(confidence, 4)}
            for place, confidence in self.to_review
        ]
        tail: dict[str, Any] = {"review": frames} if self.review_count else {}
        facts = {
            **self.provenance,
            **self.mask_facts(),
            "annotations": written,
            "whole": whole,
            "frames": self.count,
        }
        self.table.finish({**tail, "provenance": facts})
        told = digests_by_path(self.out, facts).keys()
        self.staged.publish(told, self.disposable - told)

    def mask_facts(self) -> dict[str, Any]:
        """What the table tells of masks, if there are such."""
        return {}

    @property
    def to_review(self) -> list[FrameToReview]:
        """The frames that a person should look at first."""
        return self.review_list.choose(self.review_count)

    def named_rows(self, result: Result) -> list[list[Cell]]:
        """Those of the table, with the objects' names behind their numbers, if they have names."""
        rows = self.rows(result)
        if not self.object_names:
            return rows
        return [[number, self.object_names[int(number or 0)], *rest] for number, *rest in rows]

    @abstractmethod
    def draw(self, pixels_hw3: Pixels, result: Result) -> Pixels:
        """The frame of the video that is written."""

    @abstractmethod
    def rows(self, result: Result) -> list[list[Cell]]:
        """Those of the table: number and figures of each object or point."""

    @abstractmethod
    def confidence(self, result: Result) -> NDArray[np.float32]:
        """Of each object or point, `[n]`; 0 for those that are not there."""

    @abstractmethod
    def shapes(self, result: Result) -> list[TrackedShape]:
        """Those of the annotations: what is there."""


class MaskRecording(Recording[FrameMasks]):
    """Of objects."""

    columns = ("object", "area", "x0", "y0", "x1", "y1", "confidence")

    def __init__(
        self,
        out: Path,
        video_format: VideoFormat,
        sound: Sound | None,
        about: Recorded,
        objects: Sequence[int],
        *,
        boxes: bool,
    ) -> None:
        super().__init__(out, video_format, sound, about)
        self.objects, self.boxes = sorted(objects), boxes
        self.masks = masks_folder(self.staged.out)
        self.objects_at: list[dict[int, str]] = []

    def add(self, pixels_hw3: Pixels, stamp: int, result: FrameMasks) -> None:
        """The next frame and what was found in it."""
        if not self.is_kept(self.count):
            write_mask(self.masks / self.mask_name(self.count), result.labels)
        self.objects_at.append(objects_of(result.labels))
        super().add(pixels_hw3, stamp, result)

    def mask_name(self, place: int) -> str:
        """What the mask of a frame is called."""
        return f"{self.names.name(place)}.png"

    def draw(self, pixels_hw3: Pixels, result: FrameMasks) -> Pixels:
        """Its objects tinted, and boxed if boxes were given."""
        labels_hw = result.labels
        tinted = overlay(pixels_hw3, labels_hw)
        return (
            draw_boxes(
                tinted, {number: mask_to_box(labels_hw == number) for number in self.objects}
            )
            if self.boxes
            else tinted
        )

    def rows(self, result: FrameMasks) -> list[list[Cell]]:
        """One for each object; without area there is no box."""
        labels_hw = result.labels
        areas = np.bincount(labels_hw.reshape(-1), minlength=256)
        return [
            [
                number,
                int(areas[number]),
                *(mask_to_box(labels_hw == number) or NOWHERE),
                round(float(result.confidence[number]), 4),
            ]
            for number in self.objects
        ]

    def confidence(self, result: FrameMasks) -> NDArray[np.float32]:
        """Of each object."""
        return result.confidence[self.objects]

    def shapes(self, result: FrameMasks) -> list[TrackedShape]:
        """The objects that have an area."""
        labels_hw = result.labels
        return [
            TrackedShape(number, labels_hw == number, confidence=float(result.confidence[number]))
            for number in np.unique(labels_hw[labels_hw > 0]).tolist()
        ]

    def mask_facts(self) -> dict[str, Any]:
        """Digests of the files, and of what is in them. A kept one may have been painted since it
        was read: it is told as it was then."""
        digests = {}
        for place in range(self.count):
            path = self.masks / self.mask_name(place)
            digests[path.name] = (
                self.in_place[f"{self.masks.name}/{path.name}"]
                if self.is_kept(place)
                else content_digest(path)
            )
        return {"masks": digests, "shapes": self.objects_at}


class PointRecording(Recording[TrackedPoints]):
    """Of points; 0, 0 is the centre of the first pixel."""

    columns = ("point", "x", "y", "visible", "confidence")

    def __init__(
        self, out: Path, video_format: VideoFormat, sound: Sound | None, about: Recorded
    ) -> None:
        super().__init__(out, video_format, sound, about)
        self.dots = Dots()

    def draw(self, pixels_hw3: Pixels, result: TrackedPoints) -> Pixels:
        """Its points as dots with tails."""
        return self.dots.draw(pixels_hw3, result.xy.numpy(), result.visible.numpy())

    def rows(self, result: TrackedPoints) -> list[list[Cell]]:
        """One for each point; no place before its first frame."""
        points = zip(
            result.xy.tolist(), result.visible.tolist(), result.confidence.tolist(), strict=True
        )
        return [
            [number, None, None, False, 0.0]
            if np.isnan(x)
            else [number, round(x, 2), round(y, 2), visible, round(confidence, 4)]
            for number, ((x, y), visible, confidence) in enumerate(points, 1)
        ]

    def confidence(self, result: TrackedPoints) -> NDArray[np.float32]:
        """Of each point."""
        return result.confidence.numpy()

    def shapes(self, result: TrackedPoints) -> list[TrackedShape]:
        """The points that have been seen so far; annotations count from the first pixel's
        corner."""
        points = zip(
            result.xy.tolist(), result.visible.tolist(), result.confidence.tolist(), strict=True
        )
        return [
            TrackedShape(number, None, (x + 0.5, y + 0.5), not visible, confidence)
            for number, ((x, y), visible, confidence) in enumerate(points, 1)
            if not np.isnan(x)
        ]


def masks_folder(out: Path) -> Path:
    """Where the masks of a video go."""
    return out.with_name(f"{out.stem}-masks")


def digests_by_path(out: Path, facts: Mapping[str, Any]) -> dict[str, str]:
    """Of the masks and annotations that a table tells of, by their paths beside the video."""
    folder = masks_folder(out).name
    masks = {f"{folder}/{name}": digest for name, digest in facts.get("masks", {}).items()}
    return dict(ChainMap(masks, *facts["annotations"].values()))
