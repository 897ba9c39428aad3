"""Reads the files of annotation tools as named shapes, and writes such files frame by frame.

Coordinates are those of the tools: x to the right and y down, in pixels. (0, 0) is the corner of
the top left pixel, whose centre is (0.5, 0.5).
"""

from corrflow.annotations.formats import WRITERS, find_writer, open_writer, read_shapes
from corrflow.annotations.shapes import NamedObject, Shape, number_objects, paint
from corrflow.annotations.writer import AnnotatedVideo, AnnotationWriter, TrackedShape

__all__ = [
    "WRITERS",
    "AnnotatedVideo",
    "AnnotationWriter",
    "NamedObject",
    "Shape",
    "TrackedShape",
    "find_writer",
    "number_objects",
    "open_writer",
    "paint",
    "read_shapes",
]
