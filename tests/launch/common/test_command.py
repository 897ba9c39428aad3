"""Tests how commands parse flags: errors are one short line, and help has whole sentences."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

TRAIN = ["--data", "shards", "--run", "run"]
EVAL = ["--benchmark", "davis2016", "--root", "davis", "--out", "out"]


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
        (
            "train",
            [*TRAIN, "--trainer.clip-norm", "nan"],
            "clip-norm: nan: expected a finite number",
        ),
        ("train", [*TRAIN, "--trainer.steps", "-5"], "error: trainer: steps -5: expected 1 or"),
        ("track", ["--tolerance", "-1"], "error: track: tolerance -1.0: expected 0 or more"),
        ("eval", [*EVAL, "--hardening", "inf"], "parsing --hardening: inf: expected {None}|FLOAT"),
        ("eval", [*EVAL, "--top-k", "x"], "parsing --top-k: x: expected {None}|INT"),
        ("track", ["--size"], "error: Missing value for argument '--size'."),
    ],
)
def test_invalid_flags_are_refused_with_one_short_line(refused, command, flags, words):
    line = refused(command, *flags)
    assert words in line
    assert len(line) <= 160


def test_many_unknown_flags_are_refused_with_one_line(refused):
    line = refused("track", *(f"--a{n}" for n in range(20)))
    assert "unknown --a0" in line
    assert len(line) <= 200


def run_with_output(output, *line, buffered=True):
    """Run a command with this standard output; returns its exit code and stderr."""
    done = subprocess.run(
        [sys.executable, *([] if buffered else ["-u"]), *line],
        stdout=output,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("buffered", [True, False])
def test_a_closed_pipe_ends_the_command_without_an_error_message(buffered):
    reader, writer = os.pipe()
    os.close(reader)
    result = run_with_output(writer, "launch/status.py", "--help", buffered=buffered)
    os.close(writer)
    assert result == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    ("name", "line"), [("track.py", ["launch/track.py"]), ("corrflow", ["-m", "corrflow"])]
)
def test_a_full_disk_for_standard_output_is_reported_in_one_line(name, line, buffered):
    with Path("/dev/full").open("w") as full:
        result = run_with_output(full, *line, "--help", buffered=buffered)
    assert result == (2, f"{name}: error: standard output: No space left on device\n")


def test_a_closed_standard_output_is_not_an_error():
    line = f"{sys.executable} launch/status.py --help >&-"
    done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_name_that_is_not_utf8_is_refused_with_one_line(refused, tmp_path):
    run = tmp_path / os.fsdecode(b"bad\xffname")
    message = refused("train", "--data", "shards", "--run", run)
    assert message.endswith("name: expected a name in UTF-8")
    assert not run.exists()


def test_a_name_that_is_not_utf8_is_printed_but_refused_on_a_page(command, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")  # as in most locales
    run = tmp_path / os.fsdecode(b"bad\xffname")
    run.mkdir()
    (run / "config.json").write_text('{"training": {"trainer": {"steps": 9, "batch": 4}}}')
    done = command("status", run)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"run         {tmp_path}/bad\\udcffname\n" in done.stdout
    done = command("status", "--all", tmp_path, "--page", tmp_path / "page.html")
    message = f"status.py: error: {tmp_path}/bad\\udcffname: expected a name in UTF-8\n"
    assert (done.returncode, done.stderr) == (2, message)


def test_help_texts_are_joined_to_sentences(command):
    done = command("track", "--help-all")
    text = " ".join(re.sub(r"[│╭╮╰╯─]+", " ", done.stdout).split())
    assert "must be folders, too, and each video is tracked; the same command again tracks" in text
    # lines do not end where the source code has line breaks
    lines = [line.strip("│ ") for line in done.stdout.splitlines()]
    assert "command again tracks those that are" not in lines


@pytest.mark.parametrize("name", ["track", "train", "shard", "eval"])
def test_help_fits_on_two_screens_and_names_every_flag(command, name):
    done = command(name, "--help")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert len(lines) <= 2 * 50
    assert max(map(len, lines)) <= 100
    everything = command(name, "--help-all").stdout
    flags = set(re.findall(r"^[│|] --([\w.-]+)", everything, re.MULTILINE))
    words = set(re.findall(r"[\w-]+(?:\.[\w-]+)?", done.stdout))
    named = {word.lstrip("-").rpartition(".")[2] for word in words}
    missing = {flag for flag in flags if flag.rpartition(".")[2] not in named}
    assert len(flags) > 20
    assert not missing


def test_help_shows_the_defaults_of_a_recipe(command):
    text = " ".join(command("train", "--recipe", "cpu", "--help").stdout.split())
    assert "another batch. (default: 4)" in text
    assert "--data TEXT Shards from" in text
    assert "file's name. (required)" in text
