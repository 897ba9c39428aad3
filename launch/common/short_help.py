"""The --help of a command with many flags: it explains the most important flags and only lists the
others. --help-all, which tyro prints, explains all."""

import inspect
import shutil
import textwrap
import types
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
from docstring_parser import parse_from_object

from corrflow.encoders import EncoderConfig
from corrflow.encoders.registry import name_of
from launch.configs.needed import default_of

WORDS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}
WIDEST = 100  # columns
TEXT_COLUMN = 24


@dataclass(frozen=True)
class Flag:
    """One flag."""

    name: str
    """Without the dashes."""
    value: str
    """Placeholder of its value; empty for a switch."""
    text: str
    group: str
    """The prefix of its name, under which it is listed; empty if it has none."""


def short_help(
    config: type[Any], first: tuple[str, ...], prog: str, default: Any | None = None
) -> str:
    """What --help prints.

    Args:
        config: a dataclass, whose field docstrings are the flags' texts.
        first: names of the flags to explain, in order.
        prog: the command.
        default: an instance that holds the flags' defaults; None for the dataclass's own.
    """
    columns = min(shutil.get_terminal_size().columns, WIDEST)
    flags = {flag.name: flag for flag in flags_of(config, default)}
    about = " ".join(inspect.cleandoc(config.__doc__ or "").split())
    lines = [f"usage: {prog} [flags]", "", *textwrap.wrap(about, columns), ""]
    for name in first:
        lines += hanging(usage(flags[name]), flags[name].text, columns)
    others = [flag for flag in flags.values() if flag.name not in first]
    lines += ["", "more flags, which --help-all explains:"]
    for flag in others:
        if not flag.group:
            text = textwrap.shorten(flag.text, columns - TEXT_COLUMN, placeholder=" ...")
            lines += hanging(usage(flag), text, columns)
    for group in dict.fromkeys(flag.group for flag in others if flag.group):
        names = [flag.name.removeprefix(f"{group}.") for flag in others if flag.group == group]
        lines += hanging(f"--{group}.", ", ".join(names), columns)
    return "\n".join(lines)


def usage(flag: Flag) -> str:
    """The flag and its value's placeholder, as they are typed."""
    return f"--{flag.name} {flag.value}".rstrip()


def hanging(head: str, text: str, columns: int) -> list[str]:
    """Lines with a text beside its head, or below it if the head is wide."""
    indent = " " * TEXT_COLUMN
    lines = textwrap.wrap(
        text, columns, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    head = f"  {head}"
    if len(head) < TEXT_COLUMN and lines:
        return [head + lines[0][len(head) :], *lines[1:]]
    return [head, *lines]


def flags_of(config: type[Any], default: Any | None, group: str = "") -> Iterator[Flag]:
    """Yield the flags of a dataclass, and of the dataclasses among its fields."""
    hints = get_type_hints(config, include_extras=True)
    texts = {part.arg_name: part.description or "" for part in parse_from_object(config).params}
    for item in fields(config):
        kind, name, metavar = read_hint(hints[item.name], item.name.replace("_", "-"))
        path = ".".join(part for part in (group, name) if part)
        value = default_of(item) if default is None else getattr(default, item.name)
        value = MISSING if value is tyro.MISSING else value
        if isinstance(kind, type) and is_dataclass(kind):
            yield from flags_of(kind, None if value is MISSING else value, path)
            continue
        text = " ".join(texts.get(item.name, "").split())
        if value is MISSING:
            text += " (required)"
        elif shown := as_typed(value):
            text += f" (default: {shown})"
        yield Flag(path, metavar or value_of(kind), text, group)


def read_hint(hint: Any, name: str) -> tuple[Any, str, str]:
    """A field's type, its flag's name, and the placeholder of its value, from the annotations that
    tyro reads."""
    metavar = ""
    while get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        for note in notes:
            name = name if getattr(note, "name", None) is None else note.name
            metavar = getattr(note, "metavar", None) or metavar
    return hint, name, metavar


def value_of(kind: Any) -> str:
    """The placeholder of a value of this type."""
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
        if kind is bool:
            return "True|False"
    if kind is bool:
        return ""
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"{value_of(get_args(kind)[0])} ..."
    return WORDS.get(kind, "NAME")


def as_typed(value: Any) -> str:
    """A default value as a user would type it; empty for defaults that are not shown."""
    if value is None or value is False or value in ("", ()):
        return ""
    if value is True:
        return "yes"
    if isinstance(value, tuple):
        return " ".join(map(as_typed, value))
    return name_of(value) if isinstance(value, EncoderConfig) else str(value)
