"""Whether pictures of curves can be drawn here, and to which file."""

import importlib.util
from pathlib import Path

from corrflow.errors import InputError

INSTALL = "pip install matplotlib"


def check_matplotlib() -> None:
    """InputError, with the command that installs it, unless matplotlib is here."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(f"plot: matplotlib is not installed: {INSTALL}")


def check_picture(what: str, path: Path) -> None:
    """InputError unless a file is called as what is written to it: a PNG."""
    if path.suffix.lower() != ".png":
        raise InputError(f"{what} {path}: expected a name that ends in .png")
