"""Reads the folders of data sets: numbered pictures in order, and lists of names; tells which
benchmark a folder looks like."""

import re
from itertools import pairwise
from pathlib import Path

from corrflow.benchmarks.texts import read_text
from corrflow.errors import InputError

PICTURES = (".jpg", ".jpeg", ".png")
# files that macOS, Windows and network drives leave in folders, besides hidden ones
LEFTOVERS = {"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"}
DAVIS_SIZES = ("480p", "Full-Resolution", "1080p")  # folders in JPEGImages of a DAVIS release


def numbered_files(folder: Path, suffixes: tuple[str, ...], *, gaps: bool = False) -> list[Path]:
    """The numbered pictures of a folder, in order.

    Args:
        folder: the folder that holds them.
        suffixes: accepted suffixes, in lower case, with the dot.
        gaps: allow missing numbers, as in data sets with every fifth frame.

    Raises:
        InputError: no such folder or files; a number occurs twice, or is missing between two
            others.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    numbered = sorted(
        (int(digits[0]), path)
        for path in pictures_in(folder, suffixes)
        if (digits := re.findall(r"\d+$", path.stem))
    )
    if not numbered:
        raise InputError(f"{folder}: no numbered {' or '.join(suffixes)} files there")
    for (number, path), (following, _) in pairwise(numbered):
        if following == number:
            raise InputError(f"{folder}: frame {number} occurs twice after {path.name}")
        if following != number + 1 and not gaps:
            raise InputError(f"{folder}: frame {number + 1} is missing after {path.name}")
    return [path for _, path in numbered]


def pictures_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a folder with these suffixes."""
    return [path for path in find(folder) if path.suffix.lower() in suffixes]


def find(folder: Path, pattern: str = "*") -> list[Path]:
    """The paths below a folder that match `pattern`, sorted, without hidden ones."""
    paths = sorted(folder.glob(pattern))
    return [path for path in paths if not any(map(is_hidden, path.relative_to(folder).parts))]


def is_hidden(name: str) -> bool:
    """Whether a name is hidden, or one of those that some systems leave in folders."""
    return name.startswith(".") or name in LEFTOVERS


def number_of(path: Path) -> int:
    """The number at the end of a file's name."""
    return int(re.findall(r"\d+$", path.stem)[0])


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; empty if there is no such folder."""
    return [path.name for path in find(folder) if path.is_dir()]


def listed(path: Path) -> list[str]:
    """The first word of each line of a list, without duplicates and without hidden names."""
    words = [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
    return list(dict.fromkeys(word for word in words if not is_hidden(Path(word).name)))


def missing_path_error(missing: Path, expected: str, root: Path, benchmark: str) -> InputError:
    """Make an error for a path that a benchmark needs and that is missing; it says so if `root`
    looks like the data of another benchmark."""
    looks = looks_like(root)
    hint = (
        f"; {root} looks like {looks}: --benchmark {looks}" if looks and looks != benchmark else ""
    )
    return InputError(
        f"{missing}: no such {'file' if missing.suffix else 'folder'}: expected {expected}{hint}"
    )


def looks_like(root: Path) -> str:
    """The name of the benchmark whose layout a folder has; empty if there is none."""
    signs = {
        "tapvid": root.suffix == ".pkl" or (root.is_dir() and bool(find(root, "*tapvid*.pkl"))),
        "badja": (root / "joint_annotations").is_dir(),
        "jhmdb": (root / "joint_positions").is_dir() or (root / "Rename_Images").is_dir(),
        "vip": any(
            (base / "Category_ids").is_dir()
            for base in (root, root / "Annotations", root / "VIP_Fine" / "Annotations")
        ),
        "davis2017-test": (root / "ImageSets/2017/test-dev.txt").exists()
        and not (root / "ImageSets/2017/val.txt").exists(),
        "davis2017": (root / "ImageSets/2017").is_dir(),
        "davis2016": (root / "ImageSets/480p").is_dir(),
        "davis2017 or davis2016": any(
            (root / "JPEGImages" / size).is_dir() for size in DAVIS_SIZES
        ),
        "youtube-vos": any(
            (base / "meta.json").exists()
            for base in (root, root / "valid", root / "train", root / "test")
        ),
    }
    return next((name for name, sign in signs.items() if sign), "")
