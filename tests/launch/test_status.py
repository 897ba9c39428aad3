import json
import shutil
import subprocess
import time

import pytest
from conftest import ROOT
from test_train import train_command, train_here

from launch import status
from launch.common import submission
from launch.status import in_words, listed


def test_status_shows_the_progress_of_a_local_run(packed, tmp_path, command):
    subprocess.run(
        train_command(packed, tmp_path / "run", "--trainer.steps", 3),
        check=True,
        capture_output=True,
    )
    lines = command("status", tmp_path / "run").stdout.splitlines()
    assert lines[0] == f"run         {tmp_path / 'run'}"
    assert lines[1] == "here        finished"
    assert lines[2].startswith("step        3 of 3 (100.0%), loss ")
    assert lines[3] == "attempts    1: finished"
    assert lines[4].startswith("checkpoint  step-00000003.pt, ")
    header, row = command("status", "--all", tmp_path).stdout.splitlines()
    assert header.split()[:3] == ["run", "job", "state"]
    assert row.split()[:7] == [
        str(tmp_path / "run"),
        "here",
        "FINISHED",
        "-",
        "3",
        "3",
        row.split()[6],
    ]


def test_the_page_shows_all_runs_with_their_curves(packed, tmp_path, command, browser, refused):
    runs = tmp_path / "runs"
    subprocess.run(
        train_command(packed, runs / "one <b>", "--trainer.steps", 3),
        check=True,
        capture_output=True,
    )
    page = tmp_path / "status.html"
    done = command("status", "--all", runs, "--page", page)
    assert done.stdout.splitlines()[-1] == f"page: {page}"
    context = browser.new_context(viewport={"width": 375, "height": 800})
    tab = context.new_page()
    requests = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(page.as_uri())
    assert tab.locator("tbody th").inner_text() == str(runs / "one <b>")
    assert tab.locator("tbody td").nth(1).inner_text() == "FINISHED"
    assert tab.locator("article svg").count() == 2  # no validation curve
    assert "loss, now" in tab.locator(".key").first.inner_text()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 375
    assert all(url.startswith(("file:", "data:")) for url in requests)
    context.close()
    assert "expected --all with it" in refused("status", runs, "--page", page)
    (tmp_path / "none").mkdir()
    command("status", "--all", tmp_path / "none", "--page", page)
    assert "There are no runs." in page.read_text()


def test_runs_are_found_in_a_folder_of_any_name(tmp_path):
    run = tmp_path / "snapshots/first"
    run.mkdir(parents=True)
    (run / "config.json").write_text('{"training": {}}')
    assert status.find_runs((tmp_path / "snapshots",)) == [run]


def test_linked_runs_are_found_and_each_run_is_listed_once(tmp_path):
    for name in ("runs/one", "scratch/two", "scratch/group/three"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text('{"training": {}}')
    runs = tmp_path / "runs"
    (runs / "two").symlink_to(tmp_path / "scratch/two")
    (runs / "group").symlink_to(tmp_path / "scratch/group")
    (runs / "circle").symlink_to(runs)
    found = status.find_runs((runs, runs / "one"))
    assert found == [runs / "group/three", runs / "one", runs / "two"]


def test_an_exported_model_is_not_a_run(refused, command, tmp_path):
    model = tmp_path / "base"
    model.mkdir()
    shutil.copy(ROOT / "corrflow/weights/base/config.json", model)
    assert "config.json is not of a run" in refused("status", model)
    done = command("status", "--all", tmp_path)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1), "the heads of an empty table"


@pytest.mark.parametrize("name", ["config.json", "job.json"])
def test_a_damaged_run_is_named_and_the_others_are_shown(packed, tmp_path, refused, capfd, name):
    train_here(packed, tmp_path / "one", "--trainer.steps", 1)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    damaged = tmp_path / "two" / name
    damaged.write_bytes(b"")
    words = f"{damaged}: damaged (Expecting value: line 1 column 1 (char 0)): remove it"
    assert words in refused("status", tmp_path / "two")
    capfd.readouterr()
    assert status.main(["--all", str(tmp_path)]) == 0
    captured = capfd.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()] == ["run", str(tmp_path / "one")]
    assert captured.err.startswith(f"status.py: left out: {words}")
    damaged.write_text("[]")
    if name == "config.json":
        assert "config.json is not of a run" in refused("status", tmp_path / "two")


def test_a_run_continued_locally_after_a_job_is_shown_as_local(
    packed, tmp_path, capsys, monkeypatch
):
    # otherwise SLURM would be asked about the job
    monkeypatch.setattr(submission, "has_slurm", lambda: False)
    job = {"job": "58", "command": "", "snapshot": "", "nodes": 1, "processes": 1}
    submitted = {**job, "submitted": time.time()}
    (tmp_path / "job.json").write_text(json.dumps(submitted))
    train_here(packed, tmp_path, "--trainer.steps", 1)
    capsys.readouterr()
    status.main([str(tmp_path)])
    assert "here        finished" in capsys.readouterr().out
    later = {**job, "submitted": time.time()}
    (tmp_path / "job.json").write_text(json.dumps(later))
    status.main([str(tmp_path)])
    assert "job         58: " in capsys.readouterr().out


def test_a_missing_folder_of_runs_is_reported_in_one_line(refused, tmp_path, monkeypatch):
    assert f"{tmp_path / 'none'}: no such folder" in refused("status", "--all", tmp_path / "none")
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'}: no such folder" in refused("status", "--all", tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    assert "runs: no such folder: expected one in which runs are" in refused("status", "--all")


def test_a_log_with_incomplete_last_lines_is_shown_as_far_as_it_goes(packed, tmp_path, capsys):
    train_here(packed, tmp_path, "--trainer.steps", 2)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 3}\n{"step": 3, "loss": 1.5}\n\xff\n')
    assert status.main([str(tmp_path)]) == 0
    assert "step        3 of 2 (150.0%), loss 1.500, 0.0 clips/s" in capsys.readouterr().out


def test_a_folder_without_a_run_is_refused_with_one_line(refused, tmp_path):
    assert f"run {tmp_path}: no config.json there" in refused("status", tmp_path)
    assert "expected the folder of one, or --all" in refused("status")


def test_attempts_and_durations_are_written_in_words():
    words = ["stopped by a signal", "stopped by a signal", "finished"]
    assert listed(words) == "stopped by a signal x2, finished"
    assert [in_words(s) for s in (-1, 42, 780, 18_720, 267_840)] == [
        "0 s",
        "42 s",
        "13 min",
        "5.2 h",
        "3.1 days",
    ]
