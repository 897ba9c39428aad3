"""The JSON files that an evaluation leaves: written whole, read with a line about one that is
damaged."""

import json
import math
from pathlib import Path
from typing import Any

from corrflow.errors import InputError
from corrflow.files import atomic_file


def write_json(path: Path, content: Any) -> None:
    """As JSON, what is not defined as null, since JSON has no NaN; floats come back as they were,
    to the last bit."""
    with atomic_file(path) as file:
        file.write(
            json.dumps(replaced(content, float("nan"), None), indent=1, allow_nan=False).encode()
            + b"\n"
        )


def read_json(path: Path) -> Any:
    """What `write_json` wrote; InputError if that is not there, or not JSON."""
    try:
        return replaced(json.loads(path.read_text()), None, float("nan"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are two
        raise InputError(f"{path}: damaged: not JSON ({error})") from None


def replaced(value: Any, old: float | None, new: float | None) -> Any:
    """A tree of plain types with `new` for `old`."""
    if isinstance(value, dict):
        return {key: replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replaced(item, old, new) for item in value]
    is_old = value is None if old is None else isinstance(value, float) and math.isnan(value)
    return new if is_old else value
