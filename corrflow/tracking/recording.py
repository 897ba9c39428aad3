"""All that is kept of a tracked video: `NAME.mp4` with the tracks drawn over it, `NAME.csv`,
`NAME.json`, of objects `NAME-masks/`, and annotations in the formats that are asked for."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from corrflow.annotations import AnnotationWriter, TrackedShape
from corrflow.drawing import Dots, draw_boxes, extent
from corrflow.pictures import Pixels, overlay, write_mask
from corrflow.propagation import TrackedPoints
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

    def place_of(self, name: str) -> int | None:
        """The place of the frame that a file of this name is about; None if there is none."""


@dataclass(frozen=True)
class Recorded:
    """The video that is tracked."""

    video: str
    """Its name, for the tables."""
    names: FrameNames
    objects: Mapping[int, str] = field(default_factory=dict)
    """What each object or point is called, by its number; none where nobody named them."""
    annotations: Sequence[AnnotationWriter] = ()
    """What writes labels as tools read them."""


class Recording(ABC, Generic[Result]):
    """Written frame by frame; what is finished has its names, what is left unfinished leaves at
    most masks."""

    columns: tuple[str, ...]

    def __init__(self, out: Path, reel: VideoFormat, sound: Sound | None, about: Recorded) -> None:
        self.out, self.tick, self.names, self.count = out, reel.tick, about.names, 0
        self.object_names, self.annotations = about.objects, about.annotations
        first, *others = self.columns
        columns = (first, "name", *others) if self.object_names else self.columns
        head: dict[str, str | int | float] = {
            "video": about.video,
            "width": reel.width,
            "height": reel.height,
        }
        with ExitStack() as opened:
            for writer in self.annotations:
                opened.callback(writer.discard)
            self.table = opened.enter_context(TrackTable(out.with_suffix(""), columns, head))
            self.film = opened.enter_context(VideoWriter(out, reel, sound))
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
        self.film.add(self.draw(pixels_hw3, result), stamp)
        if self.annotations:
            shapes = self.shapes(result)
            for writer in self.annotations:
                writer.add(self.count, pixels_hw3, shapes)
        self.count += 1

    def finish(self, *, whole: bool) -> None:
        """Give the files their names; `whole`: the video ends here."""
        self.film.finish(whole=whole)
        self.table.finish()
        for writer in self.annotations:
            writer.finish()

    def named_rows(self, result: Result) -> list[list[Cell]]:
        """Those of the table, with the objects' names behind their numbers, if they have names."""
        rows = self.rows(result)
        if not self.object_names:
            return rows
        return [[number, self.object_names[int(number or 0)], *rest] for number, *rest in rows]

    @abstractmethod
    def draw(self, pixels_hw3: Pixels, result: Result) -> Pixels:
        """The frame of the film."""

    @abstractmethod
    def rows(self, result: Result) -> list[list[Cell]]:
        """Those of the table: number and figures of each object or point."""

    @abstractmethod
    def shapes(self, result: Result) -> list[TrackedShape]:
        """Those of the annotations: what is there."""


class MaskRecording(Recording[Pixels]):
    """Of objects: labels `[H, W]` for each frame."""

    columns = ("object", "area", "x0", "y0", "x1", "y1")

    def __init__(
        self,
        out: Path,
        reel: VideoFormat,
        sound: Sound | None,
        about: Recorded,
        objects: Sequence[int],
        *,
        boxes: bool,
    ) -> None:
        super().__init__(out, reel, sound, about)
        self.objects, self.boxes, self.masks = sorted(objects), boxes, masks_folder(out)

    def add(self, pixels_hw3: Pixels, stamp: int, result: Pixels) -> None:
        """The next frame; its mask goes into the folder."""
        write_mask(self.masks / f"{self.names.name(self.count)}.png", result)
        super().add(pixels_hw3, stamp, result)

    def draw(self, pixels_hw3: Pixels, result: Pixels) -> Pixels:
        """Its objects tinted, and boxed if boxes were given."""
        tinted = overlay(pixels_hw3, result)
        return (
            draw_boxes(tinted, {number: extent(result == number) for number in self.objects})
            if self.boxes
            else tinted
        )

    def rows(self, result: Pixels) -> list[list[Cell]]:
        """One for each object; without area there is no box."""
        areas = np.bincount(result.reshape(-1), minlength=256)
        return [
            [number, int(areas[number]), *(extent(result == number) or NOWHERE)]
            for number in self.objects
        ]

    def shapes(self, result: Pixels) -> list[TrackedShape]:
        """The objects that have an area."""
        numbers = np.unique(result[result > 0]).tolist()
        return [TrackedShape(number, mask=result == number) for number in numbers]

    def finish(self, *, whole: bool) -> None:
        """Give the files their names; masks of an earlier, longer try go."""
        super().finish(whole=whole)
        for stale in self.masks.glob("*.png"):
            place = self.names.place_of(stale.stem)
            if place is not None and place >= self.count:
                stale.unlink()


class PointRecording(Recording[TrackedPoints]):
    """Of points; 0, 0 is the centre of the first pixel."""

    columns = ("point", "x", "y", "visible", "confidence")

    def __init__(self, out: Path, reel: VideoFormat, sound: Sound | None, about: Recorded) -> None:
        super().__init__(out, reel, sound, about)
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

    def shapes(self, result: TrackedPoints) -> list[TrackedShape]:
        """The points that have been seen so far; annotations count from the first pixel's
        corner."""
        points = zip(result.xy.tolist(), result.visible.tolist(), strict=True)
        return [
            TrackedShape(number, point=(x + 0.5, y + 0.5), hidden=not visible)
            for number, ((x, y), visible) in enumerate(points, 1)
            if not np.isnan(x)
        ]


def masks_folder(out: Path) -> Path:
    """Where the masks of a video go."""
    return out.with_name(f"{out.stem}-masks")
