"""All that is kept of a tracked video: `NAME.mp4` with the tracks drawn over it, `NAME.csv`,
`NAME.json`, and of objects `NAME-masks/`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

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


class Recording(ABC, Generic[Result]):
    """Written frame by frame; what is finished has its names, what is left unfinished leaves at
    most masks."""

    columns: tuple[str, ...]

    def __init__(self, out: Path, reel: VideoFormat, sound: Sound | None, about: Recorded) -> None:
        self.out, self.tick, self.names, self.count = out, reel.tick, about.names, 0
        head: dict[str, str | int | float] = {
            "video": about.video,
            "width": reel.width,
            "height": reel.height,
        }
        with ExitStack() as opened:
            self.table = opened.enter_context(TrackTable(out.with_suffix(""), self.columns, head))
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
        self.table.add(number, float(stamp * self.tick), self.rows(result))
        self.film.add(self.draw(pixels_hw3, result), stamp)
        self.count += 1

    def finish(self, *, whole: bool) -> None:
        """Give the files their names; `whole`: the video ends here."""
        self.film.finish(whole=whole)
        self.table.finish()

    @abstractmethod
    def draw(self, pixels_hw3: Pixels, result: Result) -> Pixels:
        """The frame of the film."""

    @abstractmethod
    def rows(self, result: Result) -> list[list[Cell]]:
        """Those of the table."""


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


def masks_folder(out: Path) -> Path:
    """Where the masks of a video go."""
    return out.with_name(f"{out.stem}-masks")
