"""Reads and writes Labelme's JSON, with one file per image. Shapes with the same label and the same
`group_id` are one object."""

import base64
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from corrflow.annotations.documents import (
    check_size,
    files_in,
    image_stem,
    read_json_object,
    reading,
)
from corrflow.annotations.polygons import box_ring, ellipse_ring, outline, single_ring
from corrflow.annotations.shapes import NamedObject, Shape
from corrflow.annotations.writer import AnnotationWriter, TrackedShape
from corrflow.errors import InputError

# read by their corners; the last two are rotated rectangles of Labelme and X-AnyLabeling
AS_POLYGON = ("polygon", "oriented_rectangle", "rotation")
# how many points a shape may have; X-AnyLabeling writes all four corners of a rectangle
COUNTS = {"point": (1,), "rectangle": (2, 4), "circle": (2,)}
VERSION = "5.5.0"  # whose fields are written; Labelme also reads files of other versions


def read_labelme(path: Path, width: int, height: int) -> list[Shape]:
    """Read the shapes of a file, or of all files of a folder; their frames are given by the names
    of the images.

    Raises:
        InputError: a file is not Labelme's, its image has another size than the video, or it has
            shapes that are neither areas nor points.
    """
    files = files_in(path, ".json") if path.is_dir() else [path]
    shapes: list[Shape] = []
    seen: dict[str, Path] = {}
    for file in files:
        frame, found = read_file(file, width, height)
        if frame in seen:
            raise InputError(
                f"labels {file}: imagePath {frame!r}: is also that of {seen[frame].name}: expected "
                "one file for each image"
            )
        seen[frame] = file
        shapes += found
    return shapes


def read_file(path: Path, width: int, height: int) -> tuple[str, list[Shape]]:
    """Read the name of an image and its shapes."""
    document = read_json_object(path)
    if not {"imagePath", "shapes"} & set(document):
        raise InputError(
            f"labels {path}: is JSON of no known format: expected Labelme's, with 'imagePath', or "
            "a single file of COCO's, with 'images'"
        )
    check_size(path, (document.get("imageWidth"), document.get("imageHeight")), width, height)
    with reading(path, "imagePath"):
        frame = image_stem(document["imagePath"])
    shapes = []
    for number, shape in enumerate(document["shapes"], 1):
        with reading(path, f"shape {number}"):
            group = shape.get("group_id")
            owner = NamedObject(shape["label"], "" if group is None else f"group {group}")
            shapes.append(shape_of(shape, frame, owner))
    return frame, shapes


def shape_of(shape: dict[str, Any], frame: str, owner: NamedObject) -> Shape:
    """Convert one shape; ValueError for a kind that can't be tracked."""
    points = np.array(shape["points"], dtype=np.float64).reshape(-1, 2)
    kind = shape.get("shape_type", "polygon")
    if kind in AS_POLYGON:
        return Shape(frame, owner, rings=(points,))
    if len(points) not in COUNTS.get(kind, (len(points),)):
        expected = " or ".join(map(str, COUNTS[kind]))
        raise ValueError(f"{kind} of {len(points)} points: expected {expected}")
    if kind == "point":
        return Shape(frame, owner, point=(float(points[0, 0]), float(points[0, 1])))
    if kind == "rectangle":
        return Shape(frame, owner, rings=(box_ring(*points.min(axis=0), *points.max(axis=0)),))
    if kind == "circle":
        (x, y), (edge_x, edge_y) = points.tolist()
        radius = float(np.hypot(edge_x - x, edge_y - y))
        return Shape(frame, owner, rings=(ellipse_ring(x, y, radius, radius),))
    if kind == "mask":
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as image:
            bitmap = np.asarray(image.convert("L")) > 0
        left, top = (int(value) for value in points[0])
        return Shape(frame, owner, bitmap=bitmap, corner=(left, top))
    raise ValueError(f"{kind}: expected polygon, rectangle, circle, mask or point")


class LabelmeWriter(AnnotationWriter):
    """Writes the folder `NAME-labelme`, with a JSON for each frame, and the image if the video is a
    file.

    The parts of an object are polygons of one group. Each part is joined with its holes into one
    ring.
    """

    suffix = "-labelme"
    is_folder = True
    id_kind = "group"

    def add(
        self, index: int, pixels_hw3: NDArray[np.uint8], shapes: Sequence[TrackedShape]
    ) -> None:
        """Write the next frame and the shapes in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        name = self.video.image_name(index)
        image_path = name
        if self.video.images:
            image = self.video.images[index]
            # a frame that is a symbolic link is named by the link, not by its target
            image_path = os.path.relpath(image.parent.resolve() / image.name, self.home.resolve())
        else:
            self.video.save_image(index, pixels_hw3, self.path)
        document: dict[str, Any] = {
            "version": VERSION,
            "flags": {},
            "shapes": [record for shape in shapes for record in self.records(shape)],
            "imagePath": image_path,
            "imageData": None,
            "imageHeight": self.video.height,
            "imageWidth": self.video.width,
        }
        text = json.dumps(document, ensure_ascii=False, indent=1)
        (self.path / f"{Path(name).stem}.json").write_text(text, encoding="utf-8")

    def records(self, shape: TrackedShape) -> list[dict[str, Any]]:
        """The Labelme shapes of an object."""
        if shape.mask is None:
            lines, kind = [np.array([shape.point])], "point"
        else:
            lines = [single_ring([part]) for part in outline(shape.mask, self.tolerance)]
            kind = "polygon"
        return [
            {
                "label": self.video.objects[shape.number - 1].name,
                "points": line.round(2).tolist(),
                "group_id": self.ids[shape.number - 1],
                "description": "hidden" if shape.hidden else "",
                "shape_type": kind,
                "flags": {},
                "mask": None,
                # Labelme keeps fields that it does not know
                "confidence": round(shape.confidence, 4),
            }
            for line in lines
        ]

    def finish(self) -> None:
        """Do nothing: each frame's file is complete already."""
