"""Finds the format of a file or folder, and the reader and writer of each format."""

from collections.abc import Callable
from pathlib import Path

from corrflow.annotations.coco import CocoWriter, read_coco
from corrflow.annotations.cvat import CvatWriter, read_cvat
from corrflow.annotations.documents import files_in, read_json_object, reading
from corrflow.annotations.labelme import LabelmeWriter, read_labelme
from corrflow.annotations.png import CLASSES, INSTANCES, read_png
from corrflow.annotations.shapes import Shape
from corrflow.annotations.writer import AnnotatedVideo, AnnotationWriter
from corrflow.annotations.yolo import YoloWriter, label_files, read_yolo
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
    "them, or a .png or a folder of them"
)


def read_shapes(path: Path, width: int, height: int) -> list[Shape]:
    """Read the shapes of a file or folder in any known format.

    Args:
        path: a file or folder that a tool wrote.
        width: width of the video, in pixels.
        height: height of the video, in pixels.

    Raises:
        InputError: it does not exist, its format is unknown, or nothing is labelled in it.
    """
    if not path.exists():
        raise InputError(f"labels {path}: no such file or folder: expected {KINDS}")
    reader, labels = find_reader(path)
    with reading(labels, "the file"):
        shapes = reader(labels, width, height)
    if not shapes:
        raise InputError(f"labels {path}: nothing is labelled there")
    return shapes


def find_reader(path: Path) -> tuple[Reader, Path]:
    """Find the reader for a file or a folder, and the path to give it. If a folder holds a single
    file for all frames, that is its path. A format is found by the suffix, and for JSON by the
    content.

    Raises:
        InputError: the format is unknown.
    """
    if path.is_dir():
        return find_folder_reader(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return (read_coco if "images" in read_json_object(path) else read_labelme), path
    readers: dict[str, Reader] = {".xml": read_cvat, ".txt": read_yolo, ".png": read_png}
    if suffix not in readers:
        raise InputError(f"labels {path}: has no known format: expected {KINDS}")
    return readers[suffix], path


def find_folder_reader(folder: Path) -> tuple[Reader, Path]:
    """Find the reader for a folder, and the path to give it."""
    if (folder / CLASSES).is_dir():
        raise InputError(
            f"labels {folder}: holds PASCAL VOC: expected {folder / CLASSES}, in which each class "
            f"is an object, or {folder / INSTANCES}"
        )
    documents, tables = files_in(folder, ".json"), files_in(folder, ".xml")
    if len(documents) == 1 or (len(tables) == 1 and not documents):
        return find_reader((documents or tables)[0])
    if documents:
        return read_labelme, folder
    pictures = {file.stem for file in files_in(folder, ".png")}
    texts = {file.stem for file in label_files(folder)}
    # images with the same names as text files are the labelled frames, not masks
    if (texts and not pictures) or texts & pictures:
        return read_yolo, folder
    if pictures:
        return read_png, folder
    raise InputError(f"labels {folder}: has no known format: expected {KINDS}")


def open_writer(
    name: str,
    out: Path,
    video: AnnotatedVideo,
    tolerance: float,
    folder: Path | None = None,
) -> AnnotationWriter:
    """Open the writer of a format; InputError lists the known ones."""
    return find_writer(name)(out, video, tolerance, folder)


def find_writer(name: str) -> type[AnnotationWriter]:
    """The writer class of a format; InputError lists the known ones."""
    if name not in WRITERS:
        raise InputError(f"write {name}: expected {', '.join(WRITERS)}")
    return WRITERS[name]
