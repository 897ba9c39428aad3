"""The JSON files of an evaluation: written atomically, and read with a one-line error for a damaged
one."""

import json
import math
from pathlib import Path
from typing import Any

from corrflow.errors import InputError
from corrflow.files import atomic_file


def write_json(path: Path, content: Any) -> None:
    """Write JSON with null for NaN, which JSON does not have; floats are read back exactly."""
    with atomic_file(path) as file:
        file.write(
            json.dumps(replaced(content, float("nan"), None), indent=1, allow_nan=False).encode()
            + b"\n"
        )


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote; InputError if the file is missing or not JSON."""
    try:
        return replaced(json.loads(path.read_text()), None, float("nan"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ValueError as error:  # such as JSONDecodeError and UnicodeDecodeError
        raise InputError(f"{path}: damaged: not JSON ({error})") from None


def replaced(value: Any, old: float | None, new: float | None) -> Any:
    """Replace `old` by `new` in a tree of plain types."""
    if isinstance(value, dict):
        return {key: replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replaced(item, old, new) for item in value]
    is_old = value is None if old is None else isinstance(value, float) and math.isnan(value)
    return new if is_old else value
