"""Reads and writes COCO's JSON: polygons, run lengths, boxes and keypoints, with a `track_id` for
each object of a video."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corrflow.annotations.documents import (
    check_one_video,
    check_size,
    image_stem,
    read_json_object,
    reading,
)
from corrflow.annotations.optional import needed
from corrflow.annotations.polygons import Mask, box_ring, fill_rings, outline
from corrflow.annotations.run_lengths import pixels_of_runs, unpack_runs
from corrflow.annotations.shapes import NamedObject, Shape
from corrflow.annotations.writer import AnnotatedVideo, AnnotationWriter, TrackedShape
from corrflow.drawing import mask_to_box
from corrflow.errors import InputError
from corrflow.files import atomic_file

VISIBLE, HIDDEN = 2, 1  # COCO's visibility of a keypoint; 0 means not labelled


def read_coco(path: Path, width: int, height: int) -> list[Shape]:
    """Read all annotations; their frames are given by the names of the images.

    Raises:
        InputError: the file is not COCO's, is for several videos, or its images have another size
            than the video.
    """
    document = read_json_object(path)
    with reading(path, "images"):
        if len(document.get("videos", ())) > 1:
            raise InputError(f"labels {path}: {len(document['videos'])} videos: expected one")
        frames = {}
        for image in document["images"]:
            check_size(path, (image.get("width"), image.get("height")), width, height)
            frames[image["id"]] = image_stem(image["file_name"])
        check_one_video(path, (image["file_name"] for image in document["images"]))
    with reading(path, "categories"):
        categories = {category["id"]: category for category in document["categories"]}
    shapes: list[Shape] = []
    for number, annotation in enumerate(document["annotations"]):
        with reading(path, f"annotation {number}"):
            for key, known, where in (
                ("image_id", frames, "images"),
                ("category_id", categories, "categories"),
            ):
                if annotation[key] not in known:
                    raise ValueError(f"{key} {annotation[key]}: is not among the {where}")
            frame = frames[annotation["image_id"]]
            category = categories[annotation["category_id"]]
            shapes += shapes_of(annotation, category, frame, width, height)
    return shapes


def shapes_of(
    annotation: dict[str, Any], category: dict[str, Any], frame: str, width: int, height: int
) -> list[Shape]:
    """The shapes of an annotation: an area, or a point for each labelled keypoint.

    An annotation that CVAT interpolated has none.
    """
    attributes = annotation.get("attributes", {})
    if "track_id" in attributes and attributes.get("keyframe") is False:
        return []
    keys = annotation.get("track_id"), attributes.get("track_id"), annotation.get("instance_id")
    key = next((f"track {key}" for key in keys if key is not None), "")
    owner = NamedObject(str(category["name"]), key)
    segmentation = annotation.get("segmentation")
    if segmentation:
        bitmap = bitmap_of(segmentation, width, height)
        return [Shape(frame, owner, bitmap=bitmap, is_filled=isinstance(segmentation, list))]
    rows = np.array(annotation.get("keypoints", ()), dtype=np.float64).reshape(-1, 3)
    if rows[:, 2].any():
        names = category.get("keypoints", [str(number) for number in range(1, len(rows) + 1)])
        return [
            # in COCO's keypoints (0, 0) is the centre of the top left pixel
            Shape(frame, owner.keypoint(name, len(rows)), point=(x + 0.5, y + 0.5))
            for name, (x, y, seen) in zip(names, rows.tolist(), strict=True)
            if seen
        ]
    left, top, across, down = (float(value) for value in annotation["bbox"])
    return [Shape(frame, owner, rings=(box_ring(left, top, left + across, top + down),))]


def bitmap_of(segmentation: list[Any] | dict[str, Any], width: int, height: int) -> Mask:
    """The mask of polygons, which may overlap, or of run lengths."""
    if isinstance(segmentation, list):
        if not isinstance(segmentation[0], list):  # some tools omit the outer list
            segmentation = [segmentation]
        rings = [np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation]
        parts_hw = [fill_rings([ring], height, width) for ring in rings]
        return np.asarray(np.logical_or.reduce(parts_hw))
    size = segmentation["size"]
    if list(size) != [height, width]:
        raise ValueError(f"run lengths of {size[1]}x{size[0]}: expected {width}x{height}")
    counts = segmentation["counts"]
    runs = unpack_runs(counts) if isinstance(counts, str) else [int(count) for count in counts]
    return pixels_of_runs(runs, height * width).reshape(width, height).T  # column by column


class CocoWriter(AnnotationWriter):
    """Writes `NAME-coco.json`, with the confidence as `score`.

    Objects are polygons, one for each part, or run lengths if they have holes, which COCO's
    polygons can't have.
    """

    suffix = "-coco.json"
    libraries = (*AnnotationWriter.libraries, "pycocotools.mask")

    def __init__(
        self, out: Path, video: AnnotatedVideo, tolerance: float, folder: Path | None = None
    ) -> None:
        super().__init__(out, video, tolerance, folder)
        names = dict.fromkeys(owner.name for owner in video.objects)
        self.categories = {name: number for number, name in enumerate(names, 1)}
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(
        self, index: int, pixels_hw3: NDArray[np.uint8], shapes: Sequence[TrackedShape]
    ) -> None:
        """Add the next frame and the shapes in it."""
        image = {"id": index + 1, "file_name": self.video.image_name(index)}
        image |= {"width": self.video.width, "height": self.video.height}
        self.images.append(image)
        for shape in shapes:
            owner, track = self.video.objects[shape.number - 1], self.ids[shape.number - 1]
            about = {
                "id": len(self.annotations) + 1,
                "image_id": index + 1,
                "category_id": self.categories[owner.name],
                "track_id": track,
                "iscrowd": 0,
                "score": round(shape.confidence, 4),
                "attributes": {"track_id": track, "occluded": shape.hidden},
            }
            self.annotations.append(about | self.geometry(shape))

    def geometry(self, shape: TrackedShape) -> dict[str, Any]:
        """The fields of an annotation that describe its area or its one keypoint."""
        if shape.mask is None:
            x, y = (round(value - 0.5, 2) for value in shape.point or (0.0, 0.0))
            seen = HIDDEN if shape.hidden else VISIBLE
            box = [x, y, 1, 1]
            return {"keypoints": [x, y, seen], "num_keypoints": 1, "bbox": box, "area": 1}
        x0, y0, x1, y1 = mask_to_box(shape.mask) or (0, 0, 0, 0)
        figures = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": int(shape.mask.sum())}
        return {"segmentation": self.segmentation(shape.mask), **figures}

    def segmentation(self, mask_hw: Mask) -> list[list[float]] | dict[str, Any]:
        """A mask as polygons, or as run lengths if it has holes."""
        parts = outline(mask_hw, self.tolerance)
        if not any(part.holes for part in parts):
            return [part.outer.round(2).reshape(-1).tolist() for part in parts]
        packed = needed("pycocotools.mask").encode(np.asfortranarray(mask_hw.astype(np.uint8)))
        size = [int(length) for length in packed["size"]]
        return {"size": size, "counts": packed["counts"].decode()}

    def finish(self) -> None:
        """Write the file."""
        points = any("keypoints" in annotation for annotation in self.annotations)
        more = {"keypoints": ["point"], "skeleton": []} if points else {}
        document = {
            "info": {"description": self.video.name},
            "licenses": [],
            "images": self.images,
            "annotations": self.annotations,
            "categories": [
                {"id": number, "name": name, "supercategory": "", **more}
                for name, number in self.categories.items()
            ],
        }
        with atomic_file(self.path) as file:
            file.write(json.dumps(document, ensure_ascii=False).encode())
