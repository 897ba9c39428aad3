"""What lies in a data set's folders: numbered pictures in order, lists of names; and which benchmark a folder looks like."""

import re
from itertools import pairwise
from pathlib import Path

from corrflow.errors import InputError

PICTURES = (".jpg", ".jpeg", ".png")


def numbered_files(folder: Path, suffixes: tuple[str, ...], *, gaps: bool = False) -> list[Path]:
    """The numbered pictures of a folder in order.

    Args:
        folder: where they lie.
        suffixes: in lower case, with the dot.
        gaps: numbers may be left out: data sets of every fifth frame.

    Raises:
        InputError: no such folder, no such files, a number that comes twice, or that is missing between two.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = sorted((int(digits[0]), path) for path in pictures_in(folder, suffixes) if (digits := re.findall(r"\d+$", path.stem)))
    if not found:
        raise InputError(f"{folder}: no numbered {' or '.join(suffixes)} files there")
    for (number, path), (following, _) in pairwise(found):
        if following == number:
            raise InputError(f"{folder}: frame {number} comes twice after {path.name}")
        if following != number + 1 and not gaps:
            raise InputError(f"{folder}: frame {number + 1} is missing after {path.name}")
    return [path for _, path in found]


def pictures_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of these suffixes; hidden ones, which some systems leave beside each file, are none."""
    return [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]


def number_of(path: Path) -> int:
    """The number at the end of a file's name."""
    return int(re.findall(r"\d+$", path.stem)[0])


def folders_in(folder: Path) -> list[str]:
    """Names of the folders there, sorted; none if there is no such folder."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")) if folder.is_dir() else []


def listed(path: Path) -> list[str]:
    """The words that begin the lines of a list, each once."""
    return list(dict.fromkeys(line.split()[0] for line in path.read_text().splitlines() if line.strip()))


def not_there(missing: Path, expected: str, root: Path, benchmark: str) -> InputError:
    """A place that a benchmark needs and `root` lacks; says so if that is another benchmark's data."""
    looks = looks_like(root)
    hint = f"; {root} looks like {looks}: --benchmark {looks}" if looks and looks != benchmark else ""
    return InputError(f"{missing}: no such {'file' if missing.suffix else 'folder'}: expected {expected}{hint}")


def looks_like(root: Path) -> str:
    """The name of the benchmark whose layout a folder has; nothing if it has none's."""
    signs = {
        "tapvid": root.suffix == ".pkl" or (root.is_dir() and any(root.glob("*tapvid*.pkl"))),
        "badja": (root / "joint_annotations").is_dir(),
        "jhmdb": (root / "joint_positions").is_dir() or (root / "Rename_Images").is_dir(),
        "vip": any((base / "Category_ids").is_dir() for base in (root, root / "Annotations", root / "VIP_Fine" / "Annotations")),
        "davis2017-test": (root / "ImageSets/2017/test-dev.txt").exists() and not (root / "ImageSets/2017/val.txt").exists(),
        "davis2017": (root / "ImageSets/2017").is_dir(),
        "davis2016": (root / "ImageSets/480p").is_dir(),
        "davis2017 or davis2016": (root / "JPEGImages/480p").is_dir(),
        "youtube-vos": any((base / "meta.json").exists() for base in (root, root / "valid", root / "train", root / "test")),
    }
    return next((name for name, sign in signs.items() if sign), "")
