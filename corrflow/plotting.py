"""Checks before a plot is drawn: that matplotlib is installed, and that the file is a PNG."""

import importlib.util
from pathlib import Path

from corrflow.errors import InputError

INSTALL = "pip install matplotlib"


def check_matplotlib() -> None:
    """Raise InputError, with the command that installs it, if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(f"plot: matplotlib is not installed: {INSTALL}")


def check_picture(what: str, path: Path) -> None:
    """Raise InputError unless a file's name ends in .png, the format that is written to it."""
    if path.suffix.lower() != ".png":
        raise InputError(f"{what} {path}: expected a name that ends in .png")
