"""Labels as annotation tools keep them: read as shapes with names, written back frame by frame.

Coordinates are the tools': x to the right and y down in pixels, 0, 0 being the corner of the first
pixel, whose centre is 0.5, 0.5.
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
