import json
import os

import pytest
from PIL import Image

from corrflow import InputError
from corrflow.training.curves import POINTS, read_curves
from launch import curve


def log(run, lines):
    run.mkdir()
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def steps(count, validated=()):
    more = {step: {"validation_jf": value} for step, value in validated}
    return [
        {"step": n, "clips": 4 * n, "loss": 10 / n, **more.get(n, {})} for n in range(1, count + 1)
    ]


def test_a_curve_has_every_validation_score_and_mean_losses(tmp_path):
    validated, loss = read_curves(log(tmp_path / "run", steps(3 * POINTS, [(3, 0.25), (90, 0.5)])))
    assert validated == [(12, 0.25), (360, 0.5)]
    assert len(loss) == POINTS
    assert loss[0] == (12, pytest.approx((10 + 5 + 10 / 3) / 3))
    assert loss[-1][0] == 4 * 3 * POINTS


def test_runs_are_drawn_and_summarized(command, tmp_path):
    pytest.importorskip("matplotlib")
    runs = [
        log(tmp_path / name, steps(20, [(10, 0.25), (20, jf)]))
        for name, jf in (("one", 0.5), ("two", 0.75))
    ]
    done = command("curve", *runs, "--out", tmp_path / "curve.png").stdout
    assert "two: 80 clips, recent loss 0.500" in done
    assert "       80 clips  J&F 0.7500" in done
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size[0] > 500


def test_a_run_in_the_current_folder_is_called_by_the_folder_name(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(log(tmp_path / "one", steps(20, [(10, 0.25)])))
    assert curve.main(["."]) == 0
    assert capsys.readouterr().out.startswith("one: 80 clips")


def test_a_run_whose_name_is_not_utf8_is_drawn(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    run = log(tmp_path / os.fsdecode(b"\xffone"), steps(20, [(10, 0.25)]))
    assert curve.main([str(run), "--out", str(tmp_path / "curve.png")]) == 0
    assert capsys.readouterr().out.startswith("\\xffone: 80 clips")


def test_runs_that_logged_nothing_or_share_a_name_are_refused(refused, tmp_path):
    with pytest.raises(InputError, match=r"has no metrics.jsonl: expected a folder of launch/tr"):
        read_curves(tmp_path)
    with pytest.raises(InputError, match="nothing to draw"):
        read_curves(log(tmp_path / "empty", []))
    assert "no run" in refused("curve")
    words = "curve: out a.pdf: expected a name that ends in .png"
    assert words in refused("curve", tmp_path / "empty", "--out", "a.pdf")
    assert "a name of its own" in refused("curve", tmp_path / "a/x", tmp_path / "b/x")
