"""Writes the results for a tracked video: `NAME.mp4` with the tracks drawn in, `NAME.csv`,
`NAME.json`, `NAME-masks/` for objects, and annotations in the requested formats."""

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
NOWHERE: list[Cell] = [None, None, None, None]  # the box of an object without area


class FrameNames(Protocol):
    """The names of a video's frames, by frame index from 0."""

    def number(self, index: int) -> int:
        """The frame number that the user knows."""

    def name(self, index: int) -> str:
        """The name, without suffix, of files that belong to the frame."""


@dataclass(frozen=True)
class Recorded:
    """What a recording needs to know about the video and its tracking."""

    video: str
    """Name of the video, for the tables."""
    names: FrameNames
    objects: Mapping[int, str] = field(default_factory=dict)
    """Name of each object or point, by number; empty if they have no names."""
    annotations: Callable[[Path], Mapping[str, AnnotationWriter]] = lambda folder: {}
    """Opens the annotation writers, by format, for a folder."""
    review: int = 0
    """Number of frames to report that a person should look at first."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """What the result depends on; goes into the table, so that a later tracking can tell which
    frames it can reuse."""
    is_kept: Callable[[int], bool] = lambda index: False
    """Whether a frame keeps its earlier result, whose mask is in place already."""
    in_place: Mapping[str, str] = field(default_factory=dict)
    """Digests of the files that existed when the tracking was planned, by path relative to the
    output folder."""
    disposable: Set[str] = frozenset()
    """Files of an earlier tracking that are removed if they are not written again."""


class Recording(ABC, Generic[Result]):
    """The result files of one video, written frame by frame. They appear under their names when
    they are finished; until then the earlier files stay."""

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
        """Write the next frame and what was found in it."""
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
        """Complete the files and give them their names; `whole`: the video was read to its end."""
        self.writer.finish(whole=whole)
        for writer in self.annotations.values():
            writer.finish()
        written = {
            name: digests_below(self.staged.folder, writer.path)
            for name, writer in self.annotations.items()
        }
        frames = [
            {"frame": self.names.number(index), "confidence": round(confidence, 4)}
            for index, confidence in self.to_review
        ]
        tail: dict[str, Any] = {"review": frames} if self.review_count else {}
        facts = {
            **self.provenance,
            **self.mask_digests(),
            "annotations": written,
            "whole": whole,
            "frames": self.count,
        }
        self.table.finish({**tail, "provenance": facts})
        in_table = digests_by_path(self.out, facts).keys()
        self.staged.publish(in_table, self.disposable - in_table)

    def mask_digests(self) -> dict[str, Any]:
        """What the table says about the masks, if there are any."""
        return {}

    @property
    def to_review(self) -> list[FrameToReview]:
        """The frames that a person should look at first."""
        return self.review_list.choose(self.review_count)

    def named_rows(self, result: Result) -> list[list[Cell]]:
        """The rows of the table, with each object's name after its number if it has one."""
        rows = self.rows(result)
        if not self.object_names:
            return rows
        return [[number, self.object_names[int(number or 0)], *rest] for number, *rest in rows]

    @abstractmethod
    def draw(self, pixels_hw3: Pixels, result: Result) -> Pixels:
        """Draw the result on a frame."""

    @abstractmethod
    def rows(self, result: Result) -> list[list[Cell]]:
        """The rows of the table: number and values of each object or point."""

    @abstractmethod
    def confidence(self, result: Result) -> NDArray[np.float32]:
        """The confidence of each object or point, `[n]`; 0 for those that are not in the frame."""

    @abstractmethod
    def shapes(self, result: Result) -> list[TrackedShape]:
        """The shapes to annotate: the objects or points that are in the frame."""


class MaskRecording(Recording[FrameMasks]):
    """Records objects."""

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
        """Write the next frame and what was found in it."""
        if not self.is_kept(self.count):
            write_mask(self.masks / self.mask_name(self.count), result.labels)
        self.objects_at.append(objects_of(result.labels))
        super().add(pixels_hw3, stamp, result)

    def mask_name(self, index: int) -> str:
        """The file name of a frame's mask."""
        return f"{self.names.name(index)}.png"

    def draw(self, pixels_hw3: Pixels, result: FrameMasks) -> Pixels:
        """Tint the objects, and draw boxes if `boxes` is set."""
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
        """One row for each object; an object without area has no box."""
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
        """The confidence of each object."""
        return result.confidence[self.objects]

    def shapes(self, result: FrameMasks) -> list[TrackedShape]:
        """The objects that have an area."""
        labels_hw = result.labels
        return [
            TrackedShape(number, labels_hw == number, confidence=float(result.confidence[number]))
            for number in np.unique(labels_hw[labels_hw > 0]).tolist()
        ]

    def mask_digests(self) -> dict[str, Any]:
        """Digests of the mask files and of the objects in them. A kept mask may have been painted
        since it was read, so its digest is the one from then."""
        digests = {}
        for index in range(self.count):
            path = self.masks / self.mask_name(index)
            digests[path.name] = (
                self.in_place[f"{self.masks.name}/{path.name}"]
                if self.is_kept(index)
                else content_digest(path)
            )
        return {"masks": digests, "shapes": self.objects_at}


class PointRecording(Recording[TrackedPoints]):
    """Records points; (0, 0) is the centre of the top left pixel."""

    columns = ("point", "x", "y", "visible", "confidence")

    def __init__(
        self, out: Path, video_format: VideoFormat, sound: Sound | None, about: Recorded
    ) -> None:
        super().__init__(out, video_format, sound, about)
        self.dots = Dots()

    def draw(self, pixels_hw3: Pixels, result: TrackedPoints) -> Pixels:
        """Draw the points as dots with tails."""
        return self.dots.draw(pixels_hw3, result.xy.numpy(), result.visible.numpy())

    def rows(self, result: TrackedPoints) -> list[list[Cell]]:
        """One row for each point; before its first frame a point has no position."""
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
        """The confidence of each point."""
        return result.confidence.numpy()

    def shapes(self, result: TrackedPoints) -> list[TrackedShape]:
        """The points that have been seen so far, in the coordinates of annotations, in which (0, 0)
        is the corner of the top left pixel."""
        points = zip(
            result.xy.tolist(), result.visible.tolist(), result.confidence.tolist(), strict=True
        )
        return [
            TrackedShape(number, None, (x + 0.5, y + 0.5), not visible, confidence)
            for number, ((x, y), visible, confidence) in enumerate(points, 1)
            if not np.isnan(x)
        ]


def masks_folder(out: Path) -> Path:
    """The folder for the masks of an output video."""
    return out.with_name(f"{out.stem}-masks")


def digests_by_path(out: Path, facts: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the masks and annotations that a table lists, by path relative to the output
    folder."""
    folder = masks_folder(out).name
    masks = {f"{folder}/{name}": digest for name, digest in facts.get("masks", {}).items()}
    return dict(ChainMap(masks, *facts["annotations"].values()))
