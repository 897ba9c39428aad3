"""Tests `launch/report.py`."""

import json
import shutil

import pytest

from corrflow.benchmarks.evaluation import evaluate
from corrflow.propagation import PROTOCOLS
from launch import report


@pytest.fixture(scope="module")
def runs(tree, tmp_path_factory):
    """Two finished evaluations."""
    out = tmp_path_factory.mktemp("runs")
    for name in ("first", "second"):
        evaluate("davis2017", tree, None, PROTOCOLS["identity"], out / name, name)
    return out


def test_finished_evaluations_are_compared(runs, tmp_path, capsys):
    assert (
        report.main(
            [str(runs / "first"), str(runs / "second"), "--out", str(tmp_path / "new" / "r.html")]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["J&F", "first", "second", "second", "report:"]
    same = "second against first: better in 0 of 4 sequences"
    assert lines[3].startswith(same)
    assert f"{same}, J&amp;F +0.000" in (tmp_path / "new" / "r.html").read_text()


def test_runs_of_several_seeds_are_averaged_as_one_setting(runs, tmp_path, capsys):
    both = [str(runs / "first"), str(runs / "second")]
    assert report.main([*both, "--seeds", "2", "--out", str(tmp_path / "r.html")]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("first, mean of 2 seeds")


def test_an_invalid_number_of_seeds_is_refused(runs, refused):
    both = [runs / "first", runs / "second"]
    assert "2 runs, seeds 3: expected as many runs" in refused("report", *both, "--seeds", 3)
    assert "seeds 0: expected 1 or more" in refused("report", *both, "--seeds", 0)


def test_an_unfinished_evaluation_is_refused_naming_what_is_missing(runs, tmp_path, refused):
    begun = shutil.copytree(runs / "first", tmp_path / "begun")
    (begun / "metrics.json").unlink()
    assert "all sequences are done, but the results were not merged" in refused("report", begun)
    (begun / "sequences" / "val-002.json").unlink()
    assert "begun: is not finished: 1 of 4 sequences are not done (val-002)" in refused(
        "report", begun
    )


def change(path, edit):
    """Edit a JSON file."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda run: (run / "metrics.json").write_text('{"name": '),
            "metrics.json: damaged: not JSON",
        ),
        (lambda run: (run / "speed.json").write_bytes(b"\xff"), "speed.json: damaged: not JSON"),
        (
            lambda run: change(run / "metrics.json", lambda content: content.update(sequences=[])),
            "metrics.json or speed.json is not what",
        ),
        (
            lambda run: change(run / "metrics.json", lambda content: content.update(sequences={})),
            "metrics.json or speed.json is not what",
        ),
        (
            lambda run: change(run / "metrics.json", lambda content: content.update(overall=[1])),
            "metrics.json or speed.json is not what",
        ),
        (
            lambda run: (run / "speed.json").write_text("[]"),
            "metrics.json or speed.json is not what",
        ),
        (
            lambda run: ((run / "metrics.json").unlink(), (run / "plan.json").write_text("no")),
            "plan.json: damaged: not JSON",
        ),
        (
            lambda run: ((run / "metrics.json").unlink(), (run / "plan.json").write_text("[]")),
            "plan.json: not what this version writes",
        ),
        (
            lambda run: ((run / "metrics.json").unlink(), (run / "plan.json").unlink()),
            "no evaluation was started there",
        ),
    ],
)
def test_a_damaged_run_is_refused_with_one_line(runs, tmp_path, refused, damage, words):
    run = shutil.copytree(runs / "first", tmp_path / "run")
    damage(run)
    assert words in refused("report", run)


def test_invalid_input_is_refused_with_one_line(runs, tmp_path, refused):
    first = runs / "first"
    assert "no run: expected the folder" in refused("report")
    assert "nowhere: no such folder" in refused("report", tmp_path / "nowhere")
    assert "no evaluation was started there" in refused("report", tmp_path)
    assert "given before: expected each run once" in refused("report", first, first)
    assert "is a folder: expected a file to write" in refused("report", first, "--out", tmp_path)
    (tmp_path / "file").touch()
    assert "file is a file: expected a folder" in refused(
        "report", first, "--out", tmp_path / "file" / "r.html"
    )
    assert "r.html: can't be written to (" in refused(
        "report", first, "--out", "/proc/nowhere/r.html"
    )
    old = shutil.copytree(first, tmp_path / "old")
    (old / "metrics.json").write_text(json.dumps({"name": "old"}))
    assert "metrics.json or speed.json is not what this version writes" in refused("report", old)
