"""How every command begins and ends: it parses flags to a config, and reports a user's mistake in
one line, with exit code 2."""

import argparse
import contextlib
import errno
import inspect
import io
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import TypeVar
from unittest import mock

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
)

import corrflow
import shards
import slurm
from corrflow.encoders import EncoderConfig, find_encoder
from corrflow.encoders.registry import name_of
from launch.common.short_help import short_help
from launch.common.standard_output import NAME as STANDARD_OUTPUT
from launch.common.standard_output import (
    discard_standard_output,
    is_reader_gone,
    named_standard_output,
)
from slurm.cluster import PROFILE_VARIABLE

Config = TypeVar("Config")
MISTAKES = (corrflow.InputError, shards.DataError, slurm.ClusterError)
# files that are missing or can't be written, and full disks: mistakes of the user, not bugs of ours
USER_ERRNOS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.EFBIG,
    errno.ENAMETOOLONG,
    errno.ENOENT,
}
HEADINGS = "Value error|Missing argument|Invalid choice"  # titles of tyro's boxes
LINE_BREAK = re.compile(r"(?<!\n)\n(?!\n)")  # within a paragraph
NAMED = 3  # how many unknown flags an error message names
# the frames that tyro draws around its texts, in Unicode or in ASCII
BOX = re.compile(r"[╭╮╰╯│─├┤]+|-{4,}|(?<!\S)[|+](?!\S)")
# a file name with bytes that are not UTF-8, which Python holds as surrogates
NOT_UTF8 = re.compile(r"[^\s'\"<>]*[\ud800-\udfff][^\s'\"<>]*")


class UsageError(ValueError):
    """A flag or its value that was not understood."""


def parse(
    config: type[Config], argv: list[str], prog: str, default: Config | None = None
) -> Config:
    """Parse flags to a config; UsageError in one line if they are wrong. If the config has
    `first_flags`, --help explains those, and --help-all explains all."""
    first = getattr(config, "first_flags", ())
    if first and {"-h", "--help"} & set(argv):
        print(short_help(config, first, prog, default))
        raise SystemExit(0)
    argv = ["--help" if word == "--help-all" else word for word in argv]

    def read(words: list[str]) -> Config:
        with values_of_flags(), joined_help_lines():
            if default is None:
                return tyro.cli(config, args=words, prog=prog, description=config.__doc__)
            return tyro.cli(config, args=words, prog=prog, default=default)

    def printed(words: list[str]) -> str:
        """What tyro prints, in lines so long that no word is broken."""
        text, wide = io.StringIO(), mock.patch.dict(os.environ, {"COLUMNS": "10000"})
        with (
            contextlib.redirect_stderr(text),
            contextlib.redirect_stdout(text),
            contextlib.suppress(SystemExit),
            wide,
        ):
            read(words)
        return " ".join(BOX.sub(" ", text.getvalue()).split())

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return read(argv)
    except SystemExit as ended:
        if not ended.code:
            raise  # --help
    known = set(re.findall(r"--[\w.-]+", printed(["--help"])))
    raise UsageError(usage_line(printed(argv), known))


def usage_line(text: str, known: set[str]) -> str:
    """Say in one line what is wrong with the flags: which are unknown, each with the most similar
    known one, and which are missing.

    Args:
        text: what tyro printed about the mistake.
        known: all flags of the command.
    """
    problems = []
    if unknown := re.search(r"Unrecognized options: (.*?)(?= Perhaps | Arguments | For |$)", text):
        words = [word.rstrip(",") for word in unknown[1].split()]
        for flag in [word for word in words if word.startswith("-")][:NAMED]:
            nearest = get_close_matches(flag, known, 1)
            problems.append(
                f"unknown {flag}" + (f", did you mean {nearest[0]}?" if nearest else "")
            )
        if not problems:
            problems = [f"not expected: {' '.join(words[:NAMED])}"]
    if missing := re.search(r"Missing from [^:]*: (--.*?)(?= Unrecognized | For full |$)", text):
        flags = [part.split()[0] for part in missing[1].split("(required)") if part.strip()]
        problems.append(f"missing {', '.join(flags)}")
    if problems:
        return f"{'; '.join(problems)} (--help explains all flags)"
    # a value that fits none of several types: keep only which types are expected
    text = re.sub(
        r"no type matching (\S+) could .*? from \['(.*?)'\]\..*", r"\2: expected \1", text
    )
    text = re.sub(f"^(?:{HEADINGS}) | (?:Argument helptext:|For full helptext).*", "", text)
    # errors that a config raises name the place already, so tyro's class name is dropped
    return re.sub(r"^Error parsing (?!--)\S+: ", "", text)


@contextlib.contextmanager
def joined_help_lines() -> Iterator[None]:
    """Make tyro join the lines of a help text. By itself it keeps the break before an indented
    line, as all lines of a docstring are. The patched function is not public, so a later release
    may not have it."""
    join = getattr(getattr(tyro, "_strings", None), "remove_single_line_breaks", None)
    if join is None:
        yield
        return
    with mock.patch.object(
        tyro._strings,
        "remove_single_line_breaks",
        lambda text: join(LINE_BREAK.sub(" ", inspect.cleandoc(text))),
    ):
        yield


def values_of_flags() -> ConstructorRegistry:
    """A context in which flags for an encoder take its name, and numbers must be finite: range
    checks would let nan through, as comparisons with it are always false."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def number_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[float] | None:
        if info.type is not float:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="FLOAT",
            instance_from_str=lambda words: finite(words[0]),
            is_instance=lambda value: isinstance(value, (int, float)),
            str_from_instance=lambda value: [str(value)],
        )

    @registry.primitive_rule
    def encoder_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[EncoderConfig] | None:
        if info.type is not EncoderConfig:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="NAME",
            instance_from_str=lambda words: find_encoder(words[0]),
            is_instance=lambda value: isinstance(value, EncoderConfig),
            str_from_instance=lambda config: [name_of(config)],
        )

    return registry


def finite(word: str) -> float:
    """Parse a number; ValueError if it is nan or infinite."""
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word}: expected a finite number")
    return value


def take_cluster(argv: list[str]) -> list[str]:
    """Return the flags without `--cluster NAME|PATH`, which is put into the environment, from where
    configs read their default profile."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--cluster", nargs="?", const="?")
    chosen, rest = chooser.parse_known_args(argv)
    if chosen.cluster is not None:
        flags = {word.partition("=")[0] for word in rest}
        if not flags & {"--nodes", "--jobs", "-h", "--help", "--help-all"}:
            raise UsageError(f"cluster {chosen.cluster}: expected --nodes N or --jobs N with it")
        os.environ[PROFILE_VARIABLE] = chosen.cluster
    return rest


def run(main: Callable[[list[str]], int]) -> int:
    """Run a command on the process's own arguments; returns its exit code."""
    try:
        with named_standard_output():
            return main(take_cluster(sys.argv[1:]))
    except (*MISTAKES, UsageError) as error:
        return refuse(str(error))
    except BrokenPipeError:
        if not is_reader_gone():
            raise
        discard_standard_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in USER_ERRNOS or error.filename is None:
            raise
        if error.filename == STANDARD_OUTPUT:
            discard_standard_output()
        return refuse(f"{error.filename}: {error.strerror}")
    except UnicodeEncodeError as error:
        if not (name := NOT_UTF8.search(error.object)):
            raise
        return refuse(f"{name[0]}: expected a name in UTF-8")
    except KeyboardInterrupt:
        print_error("interrupted")
        return 128 + signal.SIGINT


def refuse(reason: str) -> int:
    """Print what is wrong; returns the exit code."""
    print_error(f"error: {reason}")
    return 2


def print_error(text: str) -> None:
    """Print a line on stderr that begins with the command's name, and the rank if there are several
    processes."""
    rank = f"rank {os.environ['RANK']}: " if "RANK" in os.environ else ""
    print(f"{os.path.basename(sys.argv[0])}: {rank}{text}", file=sys.stderr)
