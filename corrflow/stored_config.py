"""Ties a folder to the configuration of the run or evaluation that was started in it: another
configuration is refused, and the error names what differs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corrflow.errors import InputError
from corrflow.files import atomic_file

Config = dict[str, Any]
SHOWN = 3  # how many differences an error names


def claim_folder(
    path: Path,
    stored: Config | None,
    config: Config,
    what: str,
    may_change: Callable[[str], bool],
    *,
    write: bool = True,
) -> None:
    """Tie a folder to a configuration, or check that it already is.

    Args:
        path: the JSON file in the folder that stores the configuration.
        stored: the configuration in that file; None for a new folder.
        config: the present configuration, in JSON's types.
        what: names what else the folder holds in the error, `another configuration` for example.
        may_change: whether a setting, `group.name`, may differ from the stored one.
        write: store `config`. If several processes check, only one should write.

    Raises:
        InputError: the folder belongs to another configuration (the message names what differs), or
            can't be written to.
    """
    different = differences(stored, config, may_change) if stored is not None else []
    if different:
        raise InputError(
            f"{path.parent}: belongs to {what}: {listing(different)}: expected another folder"
        )
    if not write:
        return
    try:
        with atomic_file(path) as file:
            file.write(json.dumps(config, indent=1).encode() + b"\n")
    except OSError as error:
        raise InputError(f"{path.parent}: can't be written to ({error.strerror})") from None


def differences(stored: Config, config: Config, may_change: Callable[[str], bool]) -> list[str]:
    """The settings that differ, with both values."""
    there, here = flatten(stored), flatten(config)
    return [
        f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
        for name in dict.fromkeys([*here, *there])
        if not may_change(name) and there.get(name) != here.get(name)
    ]


def listing(different: list[str]) -> str:
    """The first few differences, and how many more there are."""
    more = f"; and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
    return "; ".join(different[:SHOWN]) + more


def flatten(tree: Config) -> Config:
    """Flatten a nested dict: `{"a": {"b": 1}}` becomes `{"a.b": 1}`."""
    flat: Config = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in flatten(value).items()}
        else:
            flat[name] = value
    return flat
