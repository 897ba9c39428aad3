"""A folder belongs to the configuration that it was begun with, of a run or of an evaluation: what
differs from that is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corrflow.errors import InputError
from corrflow.files import atomic_file

Config = dict[str, Any]
SHOWN = 3  # of several differences, how many an error names


def claim_folder(
    path: Path,
    stored: Config | None,
    config: Config,
    what: str,
    may_change: Callable[[str], bool],
    *,
    write: bool = True,
) -> None:
    """Let a folder belong to a configuration, or see that it does already.

    Args:
        path: of the JSON file in the folder that says so.
        stored: what it holds; None for a new folder.
        config: in JSON's own types.
        what: the folder would hold besides, `another configuration` for example.
        may_change: whether a setting, `group.name`, may be another than before.
        write: store `config`; several processes check, and one of them writes.

    Raises:
        InputError: the folder belongs to another one, names what differs; or can't be written to.
    """
    different = differences(stored, config, may_change) if stored is not None else []
    if different:
        raise InputError(
            f"{path.parent}: belongs to {what}: {listing(different)}: expected a folder of its own"
        )
    if not write:
        return
    try:
        with atomic_file(path) as file:
            file.write(json.dumps(config, indent=1).encode() + b"\n")
    except OSError as error:
        raise InputError(f"{path.parent}: can't be written to ({error.strerror})") from None


def differences(stored: Config, config: Config, may_change: Callable[[str], bool]) -> list[str]:
    """The settings that are not the same, with both values."""
    there, here = flatten(stored), flatten(config)
    return [
        f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
        for name in dict.fromkeys([*here, *there])
        if not may_change(name) and there.get(name) != here.get(name)
    ]


def listing(different: list[str]) -> str:
    """The first of several differences, and how many there are besides."""
    more = f"; and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
    return "; ".join(different[:SHOWN]) + more


def flatten(tree: Config) -> Config:
    """`{"a": {"b": 1}}` to `{"a.b": 1}`."""
    flat: Config = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in flatten(value).items()}
        else:
            flat[name] = value
    return flat
