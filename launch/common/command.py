"""How every command begins and ends: flags to a config, a user's mistake to one line and exit code
2."""

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
# places that are not there or can't be written to, and full disks: not bugs of ours
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
HEADINGS = "Value error|Missing argument|Invalid choice"  # of tyro's boxes
LINE_BREAK = re.compile(r"(?<!\n)\n(?!\n)")  # not between paragraphs
NAMED = 3  # unknown flags that a line names
# of tyro's boxes, also where it draws them in ASCII
BOX = re.compile(r"[╭╮╰╯│─├┤]+|-{4,}|(?<!\S)[|+](?!\S)")
# a name of which a byte is none of UTF-8, in a text that was to be written as such
NOT_UTF8 = re.compile(r"[^\s'\"<>]*[\ud800-\udfff][^\s'\"<>]*")


class UsageError(ValueError):
    """A flag or its value that was not understood."""


def parse(
    config: type[Config], argv: list[str], prog: str, default: Config | None = None
) -> Config:
    """Flags to a config; UsageError in one line if they are no such thing. Of a config with
    `first_flags`, --help explains those, and --help-all all."""
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
        """In lines so long that no word is broken."""
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
    """What is wrong with the flags, of all that tyro says about it: those that are not known, each
    with the known one that is the most like it, and those that are missing."""
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
    # of a value that may be of several types, which of them would do
    text = re.sub(
        r"no type matching (\S+) could .*? from \['(.*?)'\]\..*", r"\2: expected \1", text
    )
    text = re.sub(f"^(?:{HEADINGS}) | (?:Argument helptext:|For full helptext).*", "", text)
    # what a config says of itself names its place, and needs no class
    return re.sub(r"^Error parsing (?!--)\S+: ", "", text)


@contextlib.contextmanager
def joined_help_lines() -> Iterator[None]:
    """Have tyro join the lines of a help text. It keeps a break before a line that is indented,
    as those of a docstring are; what is patched here is not public, so it may be gone one day."""
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
    """For as long as this is entered, flags whose value is an encoder take its name, and numbers
    are finite: comparisons with nan are all false, and so would let it through."""
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
    """A number that is none of nan and inf; ValueError if it is."""
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word}: expected a finite number")
    return value


def take_cluster(argv: list[str]) -> list[str]:
    """The flags without `--cluster NAME|PATH`, which from here on is the environment's: the
    configs' default is read from there."""
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
        tell("interrupted")
        return 128 + signal.SIGINT


def refuse(reason: str) -> int:
    """Say what is wrong; returns the exit code."""
    tell(f"error: {reason}")
    return 2


def tell(text: str) -> None:
    """A line on stderr, of this command, and of this process if it is one of several."""
    rank = f"rank {os.environ['RANK']}: " if "RANK" in os.environ else ""
    print(f"{os.path.basename(sys.argv[0])}: {rank}{text}", file=sys.stderr)
