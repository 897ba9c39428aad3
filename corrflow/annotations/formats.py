"""The formats by name: which file is of which, and what reads and writes it."""

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
    reader, labels = find_reader(path)
    with reading(labels, "the file"):
        shapes = reader(labels, width, height)
    if not shapes:
        raise InputError(f"labels {path}: nothing is labelled there")
    return shapes


def find_reader(path: Path) -> tuple[Reader, Path]:
    """What reads a file or a folder, and what it reads: a folder's only file, where a format has
    one for all frames. A file is known by its suffix, JSON by what is in it.

    Raises:
        InputError: it is of no known kind.
    """
    if path.is_dir():
        return find_folder_reader(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return (read_coco if "images" in read_json_object(path) else read_labelme), path
    readers: dict[str, Reader] = {".xml": read_cvat, ".txt": read_yolo, ".png": read_png}
    if suffix not in readers:
        raise InputError(f"labels {path}: is of no known kind: expected {KINDS}")
    return readers[suffix], path


def find_folder_reader(folder: Path) -> tuple[Reader, Path]:
    """What reads a folder, and what of it."""
    if (folder / CLASSES).is_dir():
        raise InputError(
            f"labels {folder}: is of PASCAL VOC: expected {folder / CLASSES}, in which each class "
            f"is an object, or {folder / INSTANCES}"
        )
    documents, tables = files_in(folder, ".json"), files_in(folder, ".xml")
    if len(documents) == 1 or (len(tables) == 1 and not documents):
        return find_reader((documents or tables)[0])
    if documents:
        return read_labelme, folder
    pictures = {file.stem for file in files_in(folder, ".png")}
    texts = {file.stem for file in label_files(folder)}
    # pictures that text is called like are the frames that it is of
    if (texts and not pictures) or texts & pictures:
        return read_yolo, folder
    if pictures:
        return read_png, folder
    raise InputError(f"labels {folder}: is of no known kind: expected {KINDS}")


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
