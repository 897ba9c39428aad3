"""How commands take their flags: what is wrong is one short line, and help is whole sentences."""

import re

import pytest


@pytest.mark.parametrize(
    ("command", "flags", "words"),
    [
        ("track", ["--vidoe", "x"], "unknown --vidoe, did you mean --video?"),
        ("track", ["--qqq", "1"], "unknown --qqq (--help explains all flags)"),
        ("train", ["--trainer.step", "3"], "did you mean --trainer.steps?; missing --data, --run"),
        ("eval", ["--benchmark", "davis2016"], "error: missing --root, --out (--help"),
        ("report", ["a", "--seed", "2"], "unknown --seed, did you mean --seeds?"),
        ("track", ["a", "b"], "not expected: a b"),
        ("track", ["--size", "x"], "error: Error parsing --size: invalid literal for int()"),
        ("track", ["--write", "x"], "error: invalid choice 'x' for argument '--write'. Expected"),
        ("track", ["--size"], "error: Missing value for argument '--size'."),
    ],
)
def test_flags_that_are_not_understood_are_one_short_line(refused, command, flags, words):
    line = refused(command, *flags)
    assert words in line
    assert len(line) <= 160


def test_many_unknown_flags_are_still_a_line(refused):
    line = refused("track", *(f"--a{n}" for n in range(20)))
    assert "unknown --a0" in line
    assert len(line) <= 200


def test_help_is_joined_to_sentences(command):
    done = command("track", "--help")
    text = " ".join(re.sub(r"[│╭╮╰╯─]+", " ", done.stdout).split())
    assert "with --labels and --out folders as well; the same command again does what" in text
    # no line of a text is cut where the source has a line break
    lines = [line.strip("│ ") for line in done.stdout.splitlines()]
    assert "tracked, with" not in lines
