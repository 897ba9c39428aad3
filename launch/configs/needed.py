"""Checks for flags that would be ignored, because another flag is missing or overrides them."""

from dataclasses import MISSING, Field, fields
from typing import Any

from corrflow import InputError


def check_needed(command: str, config: Any, names: str, needed: str) -> None:
    """InputError names a flag that was given without `needed`, the flag that it depends on, which
    is a number or a switch."""
    number = getattr(config, needed)
    if number:
        return
    for flag, _ in given(config, names):
        value = "" if number is False else " N"
        raise InputError(f"{command}: {flag}: expected --{needed}{value} with it")


def check_unused(command: str, config: Any, names: str, other: str) -> None:
    """InputError names a flag that was given although `other`, which was also given, ignores it."""
    for flag, value in given(config, names):
        raise InputError(f"{command}: {flag} {value}: {other} ignores it: expected one of them")


def given(config: Any, names: str) -> list[tuple[str, Any]]:
    """The flags among `names` whose values are not the defaults."""
    defaults = {field.name: default_of(field) for field in fields(config)}
    values = {name: getattr(config, name) for name in names.split()}
    return [
        (name.replace("_", "-"), value) for name, value in values.items() if value != defaults[name]
    ]


def default_of(field: "Field[Any]") -> Any:
    """A field's default; MISSING if there is none."""
    return field.default if field.default_factory is MISSING else field.default_factory()
