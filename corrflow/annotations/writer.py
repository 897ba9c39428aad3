"""What all writers of annotation files have in common."""

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
FRAME_NAME = re.compile(r"frame_\d{6,}")


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

    def is_frame(self, stem: str) -> bool:
        """Whether a file of this name, without suffix, is about one of the video's frames."""
        if self.images:
            return stem in {path.stem for path in self.images}
        return FRAME_NAME.fullmatch(stem) is not None

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
    """One file or folder of annotations, written frame by frame; it appears when it is finished."""

    suffix: str
    """What is written is called `NAME` and this."""
    libraries: tuple[str, ...] = ("contourpy", "shapely")
    """What it takes to write areas."""
    has_points = True
    """Whether the format has a way to say where a point is."""

    def __init__(self, out: Path, video: AnnotatedVideo, tolerance: float) -> None:
        """Begin.

        Args:
            out: `NAME.mp4` of the results that these are among.
            video: what is annotated.
            tolerance: how far the lines of polygons may be moved to be simpler, in pixels.
        """
        self.path, self.video, self.tolerance = self.path_of(out), video, tolerance

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
        """Give what is written its name."""

    @abstractmethod
    def discard(self) -> None:
        """Leave nothing of what is unfinished."""


class FileWriter(AnnotationWriter):
    """One file, which is held in memory until it is finished."""

    def discard(self) -> None:
        """There is nothing yet."""


class FolderWriter(AnnotationWriter):
    """A folder that is filled under another name."""

    def __init__(self, out: Path, video: AnnotatedVideo, tolerance: float) -> None:
        super().__init__(out, video, tolerance)
        self.unfinished = self.path.with_name(f".{self.path.name}.tmp")
        shutil.rmtree(self.unfinished, ignore_errors=True)
        self.unfinished.mkdir(parents=True)

    def finish(self) -> None:
        """Put the files into the folder that they are for. Those of frames that an earlier, longer
        try wrote go; what is not of a frame of this video is left alone."""
        files = [path for path in self.unfinished.rglob("*") if path.is_file()]
        names = {path.relative_to(self.unfinished) for path in files}
        for name in names:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.unfinished / name).replace(self.path / name)
        for folder, suffix in {(name.parent, name.suffix) for name in names}:
            for path in (self.path / folder).glob(f"*{suffix}"):
                is_stale = path.relative_to(self.path) not in names
                if is_stale and self.video.is_frame(path.stem):
                    path.unlink()
        shutil.rmtree(self.unfinished)

    def discard(self) -> None:
        """Leave nothing of what is unfinished."""
        shutil.rmtree(self.unfinished, ignore_errors=True)
