"""The base class of all writers of annotation files."""

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
    """The video that is annotated."""

    name: str
    width: int
    height: int
    objects: Sequence[NamedObject]
    """The objects in the order of their numbers, from 1."""
    images: Sequence[Path] = ()
    """The files of the frames, if the video is a folder of frames."""

    def image_name(self, index: int) -> str:
        """The image name of a frame, by index from 0: its file's name in a folder, or the name that
        tools give to the frames of a video file."""
        return self.images[index].name if self.images else f"frame_{index:06d}.jpg"

    def save_image(self, index: int, pixels_hw3: NDArray[np.uint8], folder: Path) -> None:
        """Save a frame in `folder`: a copy of its file, or a JPEG for a video file."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.image_name(index)
        if self.images:
            shutil.copyfile(self.images[index], path)
        else:
            Image.fromarray(pixels_hw3).save(path, "JPEG", quality=JPEG_QUALITY)


@dataclass(frozen=True)
class TrackedShape:
    """One object as it was tracked in one frame: its pixels, or its position if it is a point."""

    number: int
    """Number of the object, from 1."""
    mask: Mask | None = None
    """Pixels `[H, W]`, not empty."""
    point: tuple[float, float] | None = None
    """Position x, y."""
    hidden: bool = False
    """Whether the point is out of sight; its position is then where it was last seen."""
    confidence: float = 1.0
    """Confidence, from 0 to 1."""


class AnnotationWriter(ABC):
    """Writes one file or folder of annotations frame by frame. It is complete after `finish`."""

    suffix: str
    """Follows `NAME` in the name of what is written."""
    is_folder = False
    """Whether a folder is written."""
    libraries: tuple[str, ...] = ("contourpy", "shapely")
    """Libraries that are needed to write areas."""
    has_points = True
    """Whether the format can store points."""
    id_kind = "track"
    """Kind of id in the keys of objects that were read from the format, as in `track 3`."""

    def __init__(
        self, out: Path, video: AnnotatedVideo, tolerance: float, folder: Path | None = None
    ) -> None:
        """Set up the writer.

        Args:
            out: the output video, `NAME.mp4`, beside which the annotations belong.
            video: the video that is annotated.
            tolerance: how far the lines of polygons may be moved to simplify them, in pixels.
            folder: where to write the annotations if they are moved beside `out` later.
        """
        self.home, self.video, self.tolerance = self.path_of(out), video, tolerance
        self.path = self.home if folder is None else folder / self.home.name
        self.ids = ids_of(video.objects, self.id_kind)

    @classmethod
    def check_installed(cls) -> None:
        """Raise InputError with the install command if a library to write areas is missing."""
        for name in cls.libraries:
            needed(name)

    @classmethod
    def path_of(cls, out: Path) -> Path:
        """The path of the file or folder that is written beside `NAME.mp4`."""
        return out.with_name(f"{out.stem}{cls.suffix}")

    @abstractmethod
    def add(
        self, index: int, pixels_hw3: NDArray[np.uint8], shapes: Sequence[TrackedShape]
    ) -> None:
        """Add the next frame and the shapes in it; objects that are gone have no shape."""

    @abstractmethod
    def finish(self) -> None:
        """Write what is left."""


def ids_of(objects: Sequence[NamedObject], kind: str) -> list[int]:
    """The id of each object in a file: the one it was read with, so that it is recognised when the
    file is read again, or else an unused number."""
    keys = [re.fullmatch(rf"{kind} (\d+)", owner.key) for owner in objects]
    own = [int(key[1]) if key else None for key in keys]
    free = (number for number in itertools.count(1) if number not in own)
    return [next(free) if number is None else number for number in own]
