"""Lists a folder's files and reads text, JSON and XML as tools write them. Errors name the file and
the place in it."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

from corrflow.errors import InputError


def files_in(folder: Path, suffix: str, *, deep: bool = False) -> list[Path]:
    """The files of a folder with a suffix, in lower or upper case, sorted by name. Hidden files,
    which file managers leave behind, are left out.

    Args:
        folder: the folder.
        suffix: the suffix with its dot, in lower case.
        deep: whether to include files in subfolders.
    """
    files = (file for file in folder.glob("**/*" if deep else "*") if file.is_file())
    return sorted(
        file
        for file in files
        if file.suffix.lower() == suffix
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, without the byte order mark that Windows tools write."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"labels {path}: byte {error.start}: expected text in UTF-8") from None
    except OSError as error:
        raise InputError(f"labels {path}: can't be read ({error.strerror})") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object."""
    text = read_text(path)
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"labels {path}: not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InputError(f"labels {path}: is not a JSON object: expected COCO's or Labelme's")
    return document


def read_xml(path: Path) -> ElementTree.Element:
    """Read an XML file and return its root."""
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise InputError(f"labels {path}: not XML: {error}") from None
    except OSError as error:
        raise InputError(f"labels {path}: can't be read ({error.strerror})") from None


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn errors while reading a file into one line that names the file and the place in it."""
    try:
        yield
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"labels {path}: {what}: has no {error.args[0]!r}") from None
    # the libraries that decode masks may raise anything
    except Exception as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"labels {path}: {what}: {line}") from None


def image_stem(name: str) -> str:
    """The name of an image, from its path without folders and suffix. The path may be a Windows
    one, as annotation files are shared between systems."""
    return PureWindowsPath(name).stem


def check_one_video(path: Path, names: Iterable[str]) -> None:
    """Raise InputError if two images have the same name, as in the folders of several videos."""
    seen: dict[str, str] = {}
    for name in names:
        stem = image_stem(name)
        if stem in seen:
            raise InputError(
                f"labels {path}: images {seen[stem]} and {name}: have the same name: expected "
                "those of one video"
            )
        seen[stem] = name


def check_size(path: Path, stated: tuple[Any, Any], width: int, height: int) -> None:
    """Raise InputError if a file states another image size than the video's; None is not stated."""
    if None not in stated and (int(stated[0]), int(stated[1])) != (width, height):
        raise InputError(
            f"labels {path}: has images of {stated[0]}x{stated[1]}, the video is "
            f"{width}x{height}: expected the same size"
        )
