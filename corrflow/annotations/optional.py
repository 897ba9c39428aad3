"""Imports the libraries that only annotation formats need."""

import importlib
from types import ModuleType

from corrflow.errors import InputError


def needed(name: str) -> ModuleType:
    """Import a library of the extra `annotations`; InputError names the command that installs
    it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        command = "pip install contourpy shapely pycocotools pyyaml"
        raise InputError(f"labels, write: annotation formats need {name}: {command}") from None
