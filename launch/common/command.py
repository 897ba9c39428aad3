"""How every command begins and ends: flags to a config, a user's mistake to one line and exit code
2."""

import argparse
import contextlib
import errno
import io
import os
import re
import sys
from collections.abc import Callable
from typing import TypeVar

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
from slurm.cluster import PROFILE_VARIABLE

Config = TypeVar("Config")
MISTAKES = (corrflow.InputError, shards.DataError, slurm.ClusterError)
# places that can't be written to, and full disks: not bugs of ours
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
}
BOX = re.compile(r"[╭╮╰╯│─├┤]+")


class UsageError(ValueError):
    """A flag or its value that was not understood."""


def parse(
    config: type[Config], argv: list[str], prog: str, default: Config | None = None
) -> Config:
    """Flags to a config; UsageError in one line if they are no such thing."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), encoders_by_name():
            if default is None:
                return tyro.cli(config, args=argv, prog=prog, description=config.__doc__)
            return tyro.cli(config, args=argv, prog=prog, default=default)
    except SystemExit as ended:
        if not ended.code:
            raise  # --help
        words = BOX.sub(" ", printed.getvalue()).split()
        raise UsageError(" ".join(words)) from None


def encoders_by_name() -> ConstructorRegistry:
    """Flags whose value is an encoder take its name, for as long as this is entered."""
    registry = ConstructorRegistry()

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


def take_cluster(argv: list[str]) -> list[str]:
    """The flags without `--cluster NAME|PATH`, which from here on is the environment's: the
    configs' default is read from there."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--cluster", nargs="?", const="?")
    chosen, rest = chooser.parse_known_args(argv)
    if chosen.cluster is not None:
        os.environ[PROFILE_VARIABLE] = chosen.cluster
    return rest


def run(main: Callable[[list[str]], int]) -> int:
    """Run a command on the process's own arguments; returns its exit code."""
    rank = f"rank {os.environ['RANK']}: " if "RANK" in os.environ else ""
    try:
        return main(take_cluster(sys.argv[1:]))
    except (*MISTAKES, UsageError) as error:
        print(f"{os.path.basename(sys.argv[0])}: {rank}error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in USER_ERRNOS or error.filename is None:
            raise
        print(
            f"{os.path.basename(sys.argv[0])}: {rank}error: {error.filename}: {error.strerror}",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"{os.path.basename(sys.argv[0])}: {rank}interrupted", file=sys.stderr)
        return 130
