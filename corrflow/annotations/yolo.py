"""Reads and writes YOLO's text files, which have a line for each object in an image.

For segmentation a line holds the class and the corners of a polygon, for detection the class and a
box, for pose the class, a box and keypoints. Coordinates are fractions of the image's size. Objects
of one class can't be told apart. Only segmentation is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corrflow.annotations.documents import check_one_video, files_in, read_text, reading
from corrflow.annotations.optional import needed
from corrflow.annotations.polygons import Ring, box_ring, outline, single_ring
from corrflow.annotations.shapes import NamedObject, Shape
from corrflow.annotations.writer import AnnotatedVideo, AnnotationWriter, TrackedShape

Numbers = NDArray[np.float64]
BOX = 4  # how many numbers describe a box
ROUNDING = 1e-6  # tools write fractions with six digits
LISTS = ("classes.txt", "obj.names", "train.txt", "val.txt", "test.txt", "labelmap.txt")


@dataclass(frozen=True)
class Dataset:
    """What the files beside the labels say about them."""

    names: dict[int, str]
    """Names of the classes, by number."""
    keypoints: tuple[int, int] | None = None
    """How many keypoints a line has after its box, and how many numbers each of them has: x and y,
    or also its visibility, where 0 means not labelled. None: lines have no keypoints."""


def read_yolo(path: Path, width: int, height: int) -> list[Shape]:
    """Read the lines of a file, or of all files in a folder and its subfolders; their frames are
    given by file name.

    Raises:
        InputError: a line is not YOLO's, or two files have the same name.
    """
    dataset, files = read_dataset(path), label_files(path)
    check_one_video(path, map(str, files))
    return [shape for file in files for shape in read_file(file, dataset, width, height)]


def label_files(path: Path) -> list[Path]:
    """The label files in a path, without lists of classes and files."""
    if path.is_file():
        return [path]
    texts = files_in(path, ".txt", deep=True)
    # Roboflow writes README.roboflow.txt beside data.yaml
    return [file for file in texts if file.name not in LISTS and not file.match("README.*")]


def read_dataset(path: Path) -> Dataset:
    """Read `data.yaml` or `classes.txt` beside or above the labels, as far as they exist."""
    listed = find_beside(path, ("classes.txt", "obj.names", "data.yaml"))
    about = find_beside(path, ("data.yaml",))
    if listed is None:
        return Dataset({})
    if listed != about:
        names = dict(enumerate(read_text(listed).splitlines()))
        return Dataset(names, yaml_dataset(about).keypoints if about else None)
    return yaml_dataset(listed)


def find_beside(path: Path, names: Sequence[str]) -> Path | None:
    """The first of these files beside or above the labels; None if there is none."""
    folders = (path, *path.absolute().parents[:3])
    files = (folder / name for folder in folders for name in names)
    return next((file for file in files if file.is_file()), None)


def yaml_dataset(path: Path) -> Dataset:
    """Read `data.yaml`, whose names are a list, or a mapping from numbers to names."""
    with reading(path, "names"):
        document: Any = needed("yaml").safe_load(read_text(path))
        names = document["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        named = {int(number): str(name) for number, name in pairs}
    with reading(path, "kpt_shape"):
        if document.get("kpt_shape") is None:
            return Dataset(named)
        count, numbers = (int(value) for value in document["kpt_shape"])
        if count < 1 or numbers not in (2, 3):
            raise ValueError(f"{count}, {numbers}: expected how many, and 2 or 3 numbers for each")
        return Dataset(named, (count, numbers))


def read_file(path: Path, dataset: Dataset, width: int, height: int) -> list[Shape]:
    """Read the shapes of one image."""
    shapes: list[Shape] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        with reading(path, f"line {number}"):
            first, *numbers = line.split()
            owner = NamedObject(dataset.names.get(int(first), first))
            values = np.array([float(value) for value in numbers])
            size = (width, height)
            if dataset.keypoints and len(values) != BOX:
                shapes += keypoints_of(values, dataset.keypoints, path.stem, owner, size)
            else:
                shapes.append(Shape(path.stem, owner, rings=(ring_of(values, size),)))
    return shapes


def ring_of(values: Numbers, size: tuple[int, int]) -> Ring:
    """The outline of a box or a polygon; ValueError for other numbers."""
    if len(values) < BOX or len(values) % 2:
        raise ValueError(
            f"{len(values)} numbers after the class: expected 4 for a box, or x and y of at least "
            "3 corners"
        )
    ring = pixels_of(values, size)
    if len(values) > BOX:
        return ring
    (x, y), (columns, rows) = ring.tolist()
    return box_ring(x - columns / 2, y - rows / 2, x + columns / 2, y + rows / 2)


def keypoints_of(
    values: Numbers,
    keypoints: tuple[int, int],
    frame: str,
    owner: NamedObject,
    size: tuple[int, int],
) -> list[Shape]:
    """A point for each labelled keypoint; ValueError for another count of numbers."""
    count, numbers = keypoints
    if len(values) != BOX + count * numbers:
        raise ValueError(
            f"{len(values)} numbers after the class: expected 4 for a box and {numbers} for each "
            f"of {count} keypoints, the kpt_shape of data.yaml"
        )
    rows = values[BOX:].reshape(count, numbers)
    points = pixels_of(rows[:, :2], size).tolist()
    # a keypoint that is not labelled has 0 as its third number or, if there is none, is at 0, 0
    return [
        Shape(frame, owner.keypoint(str(number), count), point=(x, y))
        for number, (row, (x, y)) in enumerate(zip(rows.tolist(), points, strict=True), 1)
        if any(row[2:] or row)
    ]


def pixels_of(shares: Numbers, size: tuple[int, int]) -> Ring:
    """Points x, y in pixels, from fractions; ValueError if one lies outside of the image."""
    if shares.min() < -ROUNDING or shares.max() > 1 + ROUNDING:
        raise ValueError(
            f"{shares.min():g} to {shares.max():g}: expected fractions of the image's size, from 0 "
            "to 1"
        )
    return np.asarray(shares.clip(0, 1).reshape(-1, 2) * size)


class YoloWriter(AnnotationWriter):
    """Writes the folder `NAME-yolo` for training: `images`, `labels` and `data.yaml`. Parts and
    holes of an object are joined into one polygon. Points are not written."""

    suffix = "-yolo"
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
        self, index: int, pixels_hw3: NDArray[np.uint8], shapes: Sequence[TrackedShape]
    ) -> None:
        """Write the next frame and the shapes in it."""
        self.video.save_image(index, pixels_hw3, self.path / "images")
        size = (self.video.width, self.video.height)
        lines = []
        for shape in shapes:
            if shape.mask is None:
                continue
            corners = single_ring(outline(shape.mask, self.tolerance)) / size
            number = self.classes[self.video.objects[shape.number - 1].name]
            shares = " ".join(f"{share:.6f}" for share in corners.reshape(-1))
            lines.append(f"{number} {shares}\n")
        stem = Path(self.video.image_name(index)).stem
        path = self.path / "labels" / f"{stem}.txt"
        path.write_text("".join(lines), encoding="utf-8")

    def finish(self) -> None:
        """Write `data.yaml` with the names of the classes."""
        names = {number: name for name, number in self.classes.items()}
        about = {"train": "images", "val": "images", "names": names}
        text = needed("yaml").safe_dump(about, allow_unicode=True, sort_keys=False)
        (self.path / "data.yaml").write_text(text, encoding="utf-8")
