import shutil
import subprocess

from conftest import ROOT
from test_train import train

from launch.status import in_words, listed


def test_a_run_here_tells_how_far_it_is(packed, tmp_path, command):
    subprocess.run(
        train(packed, tmp_path / "run", "--trainer.steps", 3), check=True, capture_output=True
    )
    told = command("status", tmp_path / "run").stdout.splitlines()
    assert told[0] == f"run         {tmp_path / 'run'}"
    assert told[1] == "here        finished"
    assert told[2].startswith("step        3 of 3 (100.0%), loss ")
    assert told[3] == "attempts    1: finished"
    assert told[4].startswith("checkpoint  step-00000003.pt, ")
    heads, row = command("status", "--all", tmp_path).stdout.splitlines()
    assert heads.split()[:3] == ["run", "job", "state"]
    assert row.split()[:7] == [
        str(tmp_path / "run"),
        "here",
        "FINISHED",
        "-",
        "3",
        "3",
        row.split()[6],
    ]


def test_all_runs_are_on_a_page_with_their_curves(packed, tmp_path, command, browser, refused):
    runs = tmp_path / "runs"
    subprocess.run(
        train(packed, runs / "one <b>", "--trainer.steps", 3), check=True, capture_output=True
    )
    page = tmp_path / "status.html"
    told = command("status", "--all", runs, "--page", page)
    assert told.stdout.splitlines()[-1] == f"page: {page}"
    context = browser.new_context(viewport={"width": 375, "height": 800})
    tab = context.new_page()
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page.as_uri())
    assert tab.locator("tbody th").inner_text() == str(runs / "one <b>")
    assert tab.locator("tbody td").nth(1).inner_text() == "FINISHED"
    assert tab.locator("article svg").count() == 2  # nothing was validated
    assert "loss, now" in tab.locator(".key").first.inner_text()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 375
    assert all(url.startswith(("file:", "data:")) for url in asked)
    context.close()
    assert "expected --all with it" in refused("status", runs, "--page", page)
    (tmp_path / "none").mkdir()
    command("status", "--all", tmp_path / "none", "--page", page)
    assert "There are no runs." in page.read_text()


def test_an_exported_model_is_no_run(refused, command, tmp_path):
    model = tmp_path / "base"
    model.mkdir()
    shutil.copy(ROOT / "corrflow/weights/base/config.json", model)
    assert "config.json is not of a run" in refused("status", model)
    told = command("status", "--all", tmp_path)
    assert (told.returncode, len(told.stdout.splitlines())) == (0, 1), "the heads of an empty table"


def test_what_is_no_run_is_one_line(refused, tmp_path):
    assert f"run {tmp_path}: no config.json there" in refused("status", tmp_path)
    assert "expected the folder of one, or --all" in refused("status")


def test_attempts_and_times_in_words():
    assert listed(["told to leave", "told to leave", "finished"]) == "told to leave x2, finished"
    assert [in_words(s) for s in (-1, 42, 780, 18_720, 267_840)] == [
        "0 s",
        "42 s",
        "13 min",
        "5.2 h",
        "3.1 days",
    ]
