"""The formats by name: which file is of which, and what reads and writes it."""

from collections.abc import Callable
from pathlib import Path

from corrflow.annotations.coco import CocoWriter, read_coco
from corrflow.annotations.cvat import CvatWriter, read_cvat
from corrflow.annotations.documents import read_json_object, reading
from corrflow.annotations.labelme import LabelmeWriter, read_labelme
from corrflow.annotations.png import read_png
from corrflow.annotations.shapes import Shape
from corrflow.annotations.writer import AnnotatedVideo, AnnotationWriter
from corrflow.annotations.yolo import YoloWriter, read_yolo
from corrflow.errors import InputError

Reader = Callable[[Path, int, int], list[Shape]]
WRITERS: dict[str, type[AnnotationWriter]] = {
    "cvat": CvatWriter,
    "coco": CocoWriter,
    "labelme": LabelmeWriter,
    "yolo": YoloWriter,
}
KINDS = (
    "CVAT's .xml, COCO's .json, Labelme's .json or a folder of them, YOLO's .txt or a folder of "
    "them, or PNGs"
)


def read_shapes(path: Path, width: int, height: int) -> list[Shape]:
    """What is labelled in a file or a folder, in whichever format it is.

    Args:
        path: a file or folder that a tool wrote.
        width: of the video that it belongs to, in pixels.
        height: likewise.

    Raises:
        InputError: there is none, it is in no format that is known, or nothing is labelled in it.
    """
    if not path.exists():
        raise InputError(f"labels {path}: no such file or folder: expected {KINDS}")
    reader = find_reader(path)
    with reading(path, "the file"):
        shapes = reader(path, width, height)
    if not shapes:
        raise InputError(f"labels {path}: nothing is labelled there")
    return shapes


def find_reader(path: Path) -> Reader:
    """By the name's end, and of JSON by what is in it; InputError for a file of no known kind."""
    suffix = path.suffix.lower()
    if path.is_dir():
        for pattern, reader in (("*.json", read_labelme), ("*.png", read_png)):
            if any(path.glob(pattern)):
                return reader
        if any(path.rglob("*.txt")):
            return read_yolo
    elif suffix == ".json":
        return read_coco if "images" in read_json_object(path) else read_labelme
    elif suffix in (readers := {".xml": read_cvat, ".txt": read_yolo, ".png": read_png}):
        return readers[suffix]
    raise InputError(f"labels {path}: is of no known kind: expected {KINDS}")


def open_writer(
    name: str,
    out: Path,
    video: AnnotatedVideo,
    tolerance: float,
    folder: Path | None = None,
) -> AnnotationWriter:
    """The writer of a format; InputError names the known ones."""
    return find_writer(name)(out, video, tolerance, folder)


def find_writer(name: str) -> type[AnnotationWriter]:
    """The kind of writer of a format; InputError names the known ones."""
    if name not in WRITERS:
        raise InputError(f"write {name}: expected {', '.join(WRITERS)}")
    return WRITERS[name]
