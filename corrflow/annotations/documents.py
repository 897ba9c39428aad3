"""The files of a folder, and text, JSON and XML as tools write them; what is not as expected is
named with its place."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

from corrflow.errors import InputError


def files_in(folder: Path, suffix: str, *, deep: bool = False) -> list[Path]:
    """The files of a folder with this suffix in small or capital letters, in order of their names;
    without hidden ones, which file managers leave there.

    Args:
        folder: which.
        suffix: with its dot, in small letters.
        deep: whether those of folders in it count, too.
    """
    files = (file for file in folder.glob("**/*" if deep else "*") if file.is_file())
    return sorted(
        file
        for file in files
        if file.suffix.lower() == suffix
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def read_text(path: Path) -> str:
    """What a text file holds, without the mark of UTF-8 that tools of Windows write first."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"labels {path}: byte {error.start}: expected text in UTF-8") from None
    except OSError as error:
        raise InputError(f"labels {path}: can't be read ({error.strerror})") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds."""
    text = read_text(path)
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"labels {path}: not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InputError(f"labels {path}: holds no JSON object: expected COCO's or Labelme's")
    return document


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file."""
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise InputError(f"labels {path}: not XML: {error}") from None
    except OSError as error:
        raise InputError(f"labels {path}: can't be read ({error.strerror})") from None


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """What a file lacks or has wrong becomes one line that names the file and the place in it."""
    try:
        yield
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"labels {path}: {what}: has no {error.args[0]!r}") from None
    # what the libraries that decode masks raise is anything
    except Exception as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"labels {path}: {what}: {line}") from None


def image_stem(name: str) -> str:
    """What an image is called, of its path without folders and suffix; paths of Windows have other
    separators, and both kinds of machines share such files."""
    return PureWindowsPath(name).stem


def check_one_video(path: Path, names: Iterable[str]) -> None:
    """InputError for two images of one name, as several videos have them in their folders."""
    seen: dict[str, str] = {}
    for name in names:
        stem = image_stem(name)
        if stem in seen:
            raise InputError(
                f"labels {path}: images {seen[stem]} and {name}: are called alike: expected those "
                "of one video"
            )
        seen[stem] = name


def check_size(path: Path, stated: tuple[Any, Any], width: int, height: int) -> None:
    """InputError where a file says of its images that they have another size than the video; None
    says nothing."""
    if None not in stated and (int(stated[0]), int(stated[1])) != (width, height):
        raise InputError(
            f"labels {path}: is of images of {stated[0]}x{stated[1]}, the video is "
            f"{width}x{height}: expected the same size"
        )
