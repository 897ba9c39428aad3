"""YOLO's text files of segmentation: a line for each object of an image, its class and the corners
of a polygon as shares of the image's size; of detection, too: class and box. They tell no two
objects of a class apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corrflow.annotations.documents import check_one_video, reading
from corrflow.annotations.optional import needed
from corrflow.annotations.polygons import box_ring, outline, single_ring
from corrflow.annotations.shapes import NamedObject, Shape
from corrflow.annotations.writer import AnnotatedVideo, AnnotationWriter, TrackedShape
from corrflow.errors import InputError

BOX = 4  # numbers of a line that is a box
LISTS = ("classes.txt", "obj.names", "train.txt", "val.txt", "test.txt")


def read_yolo(path: Path, width: int, height: int) -> list[Shape]:
    """The lines of a file, or of all files of a folder and those in it, of frames by their names.

    Raises:
        InputError: a line is none of YOLO's, or two files are of one name.
    """
    names, files = class_names(path), label_files(path)
    check_one_video(path, map(str, files))
    return [shape for file in files for shape in read_file(file, names, width, height)]


def label_files(path: Path) -> list[Path]:
    """Those of images, without lists of names and files."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*.txt") if file.name not in LISTS)


def class_names(path: Path) -> dict[int, str]:
    """Names by number, from the `data.yaml` or `classes.txt` beside or above the labels; none where
    there is no such file."""
    for folder in (path, *path.absolute().parents[:3]):
        for lines in (folder / "classes.txt", folder / "obj.names"):
            if lines.is_file():
                return dict(enumerate(lines.read_text(encoding="utf-8").splitlines()))
        if (folder / "data.yaml").is_file():
            return yaml_names(folder / "data.yaml")
    return {}


def yaml_names(path: Path) -> dict[int, str]:
    """Of a list, or of numbers to names."""
    with reading(path, "names"):
        names: Any = needed("yaml").safe_load(path.read_text(encoding="utf-8"))["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in pairs}


def read_file(path: Path, names: dict[int, str], width: int, height: int) -> list[Shape]:
    """Those of one image."""
    shapes = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        with reading(path, f"line {number}"):
            first, *shares = line.split()
            values = np.array([float(share) for share in shares])
            if len(values) < BOX or len(values) % 2:
                raise InputError(
                    f"labels {path}: line {number}: {len(values)} numbers behind the class: "
                    "expected 4 of a box, or x and y of at least 3 corners"
                )
            if values.min() < 0 or values.max() > 1:
                raise InputError(
                    f"labels {path}: line {number}: {values.min():g} to {values.max():g}: "
                    "expected shares of the image's size, from 0 to 1"
                )
            ring = values.reshape(-1, 2) * (width, height)
            if len(values) == BOX:
                (x, y), (columns, rows) = ring.tolist()
                ring = box_ring(x - columns / 2, y - rows / 2, x + columns / 2, y + rows / 2)
            owner = NamedObject(names.get(int(first), first))
            shapes.append(Shape(path.stem, owner, rings=(ring,)))
    return shapes


class YoloWriter(AnnotationWriter):
    """The folder `NAME-yolo`, to train on: `images`, `labels` and `data.yaml`. Parts and holes of
    an object are joined into one line, of a point there is none."""

    suffix = "-yolo"
    libraries = (*AnnotationWriter.libraries, "yaml")
    libraries = (*AnnotationWriter.libraries, "yaml")
    is_folder = True
    has_points = False

    def __init__(
        self, out: Path, video: AnnotatedVideo, tolerance: float, folder: Path | None = None
    ) -> None:
        super().__init__(out, video, tolerance, folder)
        names = dict.fromkeys(owner.name for owner in video.objects)
        self.classes = {name: number for number, name in enumerate(names)}
        (self.path / "labels").mkdir(parents=True, exist_ok=True)

    def add(
        self, place: int, pixels_hw3: NDArray[np.uint8], shapes: Sequence[TrackedShape]
    ) -> None:
        """The next frame, and what is in it."""
        self.video.save_image(place, pixels_hw3, self.path / "images")
        size = (self.video.width, self.video.height)
        lines = []
        for shape in shapes:
            if shape.mask is None:
                continue
            corners = single_ring(outline(shape.mask, self.tolerance)) / size
            number = self.classes[self.video.objects[shape.number - 1].name]
            shares = " ".join(f"{share:.6f}" for share in corners.reshape(-1))
            lines.append(f"{number} {shares}\n")
        stem = Path(self.video.image_name(place)).stem
        path = self.path / "labels" / f"{stem}.txt"
        path.write_text("".join(lines), encoding="utf-8")

    def finish(self) -> None:
        """Name the classes."""
        names = {number: name for name, number in self.classes.items()}
        about = {"train": "images", "val": "images", "names": names}
        text = needed("yaml").safe_dump(about, allow_unicode=True, sort_keys=False)
        (self.path / "data.yaml").write_text(text, encoding="utf-8")
