"""Whether pictures of curves can be drawn here."""

import importlib.util

from corrflow.errors import InputError

INSTALL = "pip install matplotlib"


def check_matplotlib() -> None:
    """InputError, with the command that installs it, unless matplotlib is here."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(f"plot: matplotlib is not installed: {INSTALL}")
