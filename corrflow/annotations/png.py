"""Reads label PNGs, one for each frame, as in DAVIS and PASCAL VOC. With a `labelmap.txt`, as CVAT
writes it, the colours are those of the label map."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from corrflow.annotations.documents import check_one_video, files_in, read_text
from corrflow.annotations.shapes import NamedObject, Shape
from corrflow.errors import InputError
from corrflow.masks import PALETTE, VOID
from corrflow.pictures import read_mask

LABELMAP = "labelmap.txt"
CLASSES, INSTANCES = "SegmentationClass", "SegmentationObject"  # folders of PASCAL VOC
VOID_COLOR = PALETTE[3 * VOID :]


def read_png(path: Path, width: int, height: int) -> list[Shape]:
    """Read the objects of a file, or of all files of a folder; their frames are given by file name.

    Raises:
        InputError: a file is not a mask, has another size than the video, or a colour that is not
            in the label map.
    """
    files = files_in(path, ".png") if path.is_dir() else [path]
    check_one_video(path, map(str, files))
    folders = (path, *path.absolute().parents[:2])
    labelmap = next((f / LABELMAP for f in folders if (f / LABELMAP).is_file()), None)
    colors = read_labelmap(labelmap) if labelmap else {}
    shapes = []
    for file in files:
        found = areas_of(file, colors)
        for shape in found:
            if shape.bitmap is not None and shape.bitmap.shape != (height, width):
                rows, columns = shape.bitmap.shape
                raise InputError(
                    f"labels {file}: is {columns}x{rows}, the video {width}x{height}: expected "
                    "the same size"
                )
        shapes += found
    return shapes


def areas_of(path: Path, colors: dict[tuple[int, ...], str]) -> list[Shape]:
    """The objects of one file, with names if there is a label map."""
    if path.absolute().parent.name == INSTANCES:
        return instances(path, colors)
    return named_areas(path, colors) if colors else numbered_areas(path)


def instances(path: Path, colors: dict[tuple[int, ...], str]) -> list[Shape]:
    """The objects of a file of PASCAL VOC's instances. Their numbers start anew in each image, so
    they are not ids. Their names are those of their classes, from the colours of the class file, if
    known."""
    classes = path.absolute().parent.with_name(CLASSES) / path.name
    if not colors or not classes.is_file():
        return [replace(shape, object=NamedObject("object")) for shape in numbered_areas(path)]
    with Image.open(classes) as image:
        colors_hw3 = np.asarray(image.convert("RGB"))
    shapes = []
    for shape in numbered_areas(path):
        color = tuple(colors_hw3[shape.bitmap][0].tolist())
        shapes.append(replace(shape, object=NamedObject(colors.get(color, "object"))))
    return shapes


def numbered_areas(path: Path) -> list[Shape]:
    """The objects of a file that holds object numbers."""
    labels_hw = read_mask(path)
    numbers = np.unique(labels_hw[labels_hw > 0]).tolist()
    return [
        Shape(path.stem, NamedObject(str(number), str(number)), bitmap=labels_hw == number)
        for number in numbers
    ]


def named_areas(path: Path, colors: dict[tuple[int, ...], str]) -> list[Shape]:
    """The objects of a file in the colours of a label map: one for each name except the
    background."""
    with Image.open(path) as image:
        colors_hw3 = np.asarray(image.convert("RGB"))
    shapes = []
    for color in np.unique(colors_hw3.reshape(-1, 3), axis=0).tolist():
        name = colors.get(tuple(color))
        if name is None and color != VOID_COLOR and any(color):
            raise InputError(f"labels {path}: colour {tuple(color)}: is not in its {LABELMAP}")
        if name not in (None, "background"):
            area_hw = (colors_hw3 == color).all(axis=2)
            shapes.append(Shape(path.stem, NamedObject(str(name), str(name)), bitmap=area_hw))
    return shapes


def read_labelmap(path: Path) -> dict[tuple[int, ...], str]:
    """Read the names by colour from lines `name:r,g,b:parts:actions`."""
    names = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        values = rest.partition(":")[0].split(",")
        if len(values) != 3 or not all(value.strip().isdecimal() for value in values):
            raise InputError(f"labels {path}: line {number}: expected name:red,green,blue::")
        names[tuple(int(value) for value in values)] = name
    return names
