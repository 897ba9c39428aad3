"""Reads and writes CVAT's XML, version 1.1: "CVAT for video"; also reads "CVAT for images".

"CVAT for video" numbers the frames. "CVAT for images" names them: its `id` only counts the uploaded
images. A track has one shape per frame. Shapes with `keyframe` were drawn by somebody; CVAT
interpolated the others, which are not read. CVAT also exports single shapes as tracks: `is_shape`
tells them apart.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from numpy.typing import NDArray

from corrflow.annotations.documents import (
    check_one_video,
    check_size,
    image_stem,
    read_xml,
    reading,
)
from corrflow.annotations.polygons import Ring, box_ring, ellipse_ring, outline, single_ring
from corrflow.annotations.run_lengths import pixels_of_runs
from corrflow.annotations.shapes import NamedObject, Shape
from corrflow.annotations.writer import AnnotatedVideo, AnnotationWriter, TrackedShape
from corrflow.drawing import color
from corrflow.errors import InputError
from corrflow.files import atomic_file

DRAWN = ("polygon", "box", "mask", "ellipse", "points")
OTHERS = ("polyline", "cuboid", "skeleton")
MANUAL_SOURCES = ("manual", "semi-auto")  # values of `source`; imported annotations have others


def read_cvat(path: Path, width: int, height: int) -> list[Shape]:
    """Read the shapes that somebody drew; their frames are given by index or by image name.

    Raises:
        InputError: the file is not CVAT's, is for several videos, its images have another size than
            the video, or it has shapes that are neither areas nor points.
    """
    root = read_xml(path)
    if root.tag != "annotations":
        raise InputError(f"labels {path}: <{root.tag}>: expected CVAT's <annotations>")
    tasks = root.findall("meta//task")
    if len(tasks) > 1:
        raise InputError(f"labels {path}: {len(tasks)} tasks: expected the export of one")
    size = root.find(".//original_size")
    if size is not None:
        check_size(path, (size.findtext("width"), size.findtext("height")), width, height)
    shapes: list[Shape] = []
    for track in root.iter("track"):
        with reading(path, f"track {track.get('id', '')}"):
            key = None if is_shape(track) else f"track {track.attrib['id']}"
            owner = named(track, key)
            for element in drawn(track):
                if element.get("keyframe", "1") == "1" and element.get("outside", "0") == "0":
                    shapes += shapes_of(element, int(element.attrib["frame"]), owner)
    images = list(root.iter("image"))
    check_one_video(path, (image.get("name", image.get("id", "")) for image in images))
    for image in images:
        with reading(path, f"image {image.get('id', '')}"):
            check_size(path, (image.get("width"), image.get("height")), width, height)
            for element in drawn(image):
                shapes += shapes_of(element, image_stem(image.attrib["name"]), named(element))
    return shapes


def is_shape(track: Element) -> bool:
    """Whether a `track` element is a single shape in CVAT. CVAT exports a shape as a track that
    ends in the next frame, and has no tracks of masks."""
    elements = list(drawn(track))
    if any(element.tag == "mask" for element in elements):
        return True
    ends_at_once = [element.get("outside") for element in elements] == ["0", "1"]
    return ends_at_once and track.get("source") in MANUAL_SOURCES


def named(element: Element, key: str | None = None) -> NamedObject:
    """The object of a track or a shape, with its group as its key unless one is given."""
    group = element.get("group_id", "0")
    by_group = "" if group == "0" else f"group {group}"
    return NamedObject(element.attrib["label"], by_group if key is None else key)


def drawn(parent: Element) -> Iterator[Element]:
    """Yield the shapes of a track or an image; ValueError for a kind that can't be tracked."""
    for element in parent:
        if element.tag in OTHERS:
            raise ValueError(f"{element.tag}: expected {', '.join(DRAWN)}")
        if element.tag in DRAWN:
            yield element


def shapes_of(element: Element, frame: int | str, owner: NamedObject) -> list[Shape]:
    """The shape of an element, or one for each of its points."""
    if element.tag == "points":
        xy_k2 = points_of(element)
        many = len(xy_k2) > 1
        return [
            Shape(
                frame,
                NamedObject(owner.name, f"{owner.key} point {number}") if many else owner,
                point=(x, y),
            )
            for number, (x, y) in enumerate(xy_k2.tolist(), 1)
        ]
    z_order = int(element.get("z_order", "0"))
    if element.tag == "mask":
        left, top, columns, rows = (
            int(element.attrib[name]) for name in ("left", "top", "width", "height")
        )
        runs = [int(run) for run in element.attrib["rle"].split(",")]
        bitmap = pixels_of_runs(runs, rows * columns).reshape(rows, columns)
        return [Shape(frame, owner, bitmap=bitmap, corner=(left, top), z_order=z_order)]
    return [Shape(frame, owner, rings=(ring_of(element),), z_order=z_order)]


def points_of(element: Element) -> Ring:
    """Parse `x,y;x,y` to `[n, 2]`."""
    pairs = element.attrib["points"].split(";")
    return np.array([[float(value) for value in pair.split(",")] for pair in pairs])


def ring_of(element: Element) -> Ring:
    """The outline of a polygon, a box or an ellipse."""
    if element.tag == "polygon":
        return points_of(element)
    angle = np.deg2rad(float(element.get("rotation", "0")))
    if element.tag == "box":
        x0, y0, x1, y1 = (float(element.attrib[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
        ring, middle = box_ring(x0, y0, x1, y1), np.array([x0 + x1, y0 + y1]) / 2
    else:
        cx, cy, rx, ry = (float(element.attrib[name]) for name in ("cx", "cy", "rx", "ry"))
        ring, middle = ellipse_ring(cx, cy, rx, ry), np.array([cx, cy])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(middle + (ring - middle) @ turn)


CONFIDENCE = "confidence"
# whole per cent; `values` are the least, the most and the step
CONFIDENCE_ATTRIBUTE = {
    "name": CONFIDENCE,
    "mutable": "True",
    "input_type": "number",
    "default_value": "100",
    "values": "0;100;1",
}


class CvatWriter(AnnotationWriter):
    """Writes `NAME-cvat.xml`, with a track for each object and a keyframe for each frame.

    A keyframe with `outside` marks where an object leaves. The confidence, in per cent, is an
    attribute. Parts and holes are joined into one ring, since a track has one polygon per frame.
    """

    suffix = "-cvat.xml"

    def __init__(
        self, out: Path, video: AnnotatedVideo, tolerance: float, folder: Path | None = None
    ) -> None:
        super().__init__(out, video, tolerance, folder)
        self.count = 0
        self.tracks = [
            Element("track", id=str(index), label=owner.name, source="auto")
            for index, owner in enumerate(video.objects)
        ]

    def add(
        self, index: int, pixels_hw3: NDArray[np.uint8], shapes: Sequence[TrackedShape]
    ) -> None:
        """Add the next frame and the shapes in it."""
        self.count = index + 1
        for shape in shapes:
            self.add_shape(index, shape)
        here = {shape.number for shape in shapes}
        for number, track in enumerate(self.tracks, 1):
            last = track[-1] if len(track) else None
            if number not in here and last is not None and last.get("outside") == "0":
                gone = SubElement(track, last.tag, dict(last.attrib))
                gone.set("frame", str(index))
                gone.set("outside", "1")

    def add_shape(self, index: int, shape: TrackedShape) -> None:
        """Add a keyframe to the track of a shape's object."""
        if shape.mask is None:
            kind, ring = "points", np.array([shape.point])
        else:
            kind, ring = "polygon", single_ring(outline(shape.mask, self.tolerance))
        keyframe = SubElement(
            self.tracks[shape.number - 1],
            kind,
            frame=str(index),
            keyframe="1",
            outside="0",
            occluded=str(int(shape.hidden)),
            points=";".join(f"{x:.2f},{y:.2f}" for x, y in ring.tolist()),
            z_order="0",
        )
        # CVAT ignores the attribute if the task's labels do not have it
        SubElement(keyframe, "attribute", name=CONFIDENCE).text = str(round(100 * shape.confidence))

    def finish(self) -> None:
        """Write the file."""
        root = Element("annotations")
        SubElement(root, "version").text = "1.1"
        self.add_meta(SubElement(root, "meta"))
        # CVAT refuses a file with an empty track, such as that of a number that is in no mask
        root.extend(track for track in self.tracks if len(track))
        ElementTree.indent(root)
        with atomic_file(self.path) as file:
            ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)

    def add_meta(self, meta: Element) -> None:
        """Add what CVAT stores about a task: size, labels, frames."""
        task = SubElement(meta, "task")
        facts = {
            "name": self.video.name,
            "size": self.count,
            "mode": "interpolation",
            "start_frame": 0,
            "stop_frame": max(self.count - 1, 0),
        }
        for name, value in facts.items():
            SubElement(task, name).text = str(value)
        labels = SubElement(task, "labels")
        for number, name in enumerate(dict.fromkeys(o.name for o in self.video.objects), 1):
            label = SubElement(labels, "label")
            SubElement(label, "name").text = name
            SubElement(label, "color").text = "#{:02x}{:02x}{:02x}".format(*color(number))
            attribute = SubElement(SubElement(label, "attributes"), "attribute")
            for part, value in CONFIDENCE_ATTRIBUTE.items():
                SubElement(attribute, part).text = value
        size = SubElement(task, "original_size")
        SubElement(size, "width").text = str(self.video.width)
        SubElement(size, "height").text = str(self.video.height)
