"""What all writers of annotation files have in common."""

import itertools
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from corrflow.annotations.optional import needed
from corrflow.annotations.polygons import Mask
from corrflow.annotations.shapes import NamedObject

JPEG_QUALITY = 95


@dataclass(frozen=True)
class AnnotatedVideo:
    """The video that labels are of."""

    name: str
    width: int
    height: int
    objects: Sequence[NamedObject]
    """The first is number 1."""
    images: Sequence[Path] = ()
    """Its frames' files, if it is a folder of them."""

    def image_name(self, place: int) -> str:
        """What the image of the frame at this place from 0 is called: in a folder as its file, of
        a video file as tools call the frames that they take out of it."""
        return self.images[place].name if self.images else f"frame_{place:06d}.jpg"

    def save_image(self, place: int, pixels_hw3: NDArray[np.uint8], folder: Path) -> None:
        """The frame as a file in `folder`: a copy of its own, or a JPEG."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.image_name(place)
        if self.images:
            shutil.copyfile(self.images[place], path)
        else:
            Image.fromarray(pixels_hw3).save(path, "JPEG", quality=JPEG_QUALITY)


@dataclass(frozen=True)
class TrackedShape:
    """What was found of one object in one frame: its pixels, or its place if it is a point."""

    number: int
    """Of the object, from 1."""
    mask: Mask | None = None
    """`[H, W]`, not empty."""
    point: tuple[float, float] | None = None
    """x, y."""
    hidden: bool = False
    """Whether the point was out of sight, and is where it was last seen."""
    confidence: float = 1.0
    """From 0 to 1."""


class AnnotationWriter(ABC):
    """One file or folder of annotations, written frame by frame; it is whole when it is
    finished."""

    suffix: str
    """What is written is called `NAME` and this."""
    is_folder = False
    """Whether that is a folder."""
    libraries: tuple[str, ...] = ("contourpy", "shapely")
    """What it takes to write areas."""
    has_points = True
    """Whether the format has a way to say where a point is."""
    id_kind = "track"
    """What ids are called in the keys of objects that come from the format, as in `track 3`."""

    def __init__(
        self, out: Path, video: AnnotatedVideo, tolerance: float, folder: Path | None = None
    ) -> None:
        """Begin.

        Args:
            out: `NAME.mp4` of the results that these are among.
            video: what is annotated.
            tolerance: how far the lines of polygons may be moved to be simpler, in pixels.
            folder: where the annotations are written, if they come beside `out` only later.
        """
        self.home, self.video, self.tolerance = self.path_of(out), video, tolerance
        self.path = self.home if folder is None else folder / self.home.name
        self.ids = ids_of(video.objects, self.id_kind)

    @classmethod
    def check_installed(cls) -> None:
        """InputError with the command that installs what is missing to write areas."""
        for name in cls.libraries:
            needed(name)

    @classmethod
    def path_of(cls, out: Path) -> Path:
        """The file or folder that is written beside `NAME.mp4`."""
        return out.with_name(f"{out.stem}{cls.suffix}")

    @abstractmethod
    def add(
        self, place: int, pixels_hw3: NDArray[np.uint8], shapes: Sequence[TrackedShape]
    ) -> None:
        """The next frame, and what is in it; objects that are gone are not among the shapes."""

    @abstractmethod
    def finish(self) -> None:
        """Write what is left."""


def ids_of(objects: Sequence[NamedObject], kind: str) -> list[int]:
    """What tells objects apart in a file: the ids that they came with, so that they are known when
    they come back; for those that had none, numbers that no other has."""
    keys = [re.fullmatch(rf"{kind} (\d+)", owner.key) for owner in objects]
    own = [int(key[1]) if key else None for key in keys]
    free = (number for number in itertools.count(1) if number not in own)
    return [next(free) if number is None else number for number in own]
