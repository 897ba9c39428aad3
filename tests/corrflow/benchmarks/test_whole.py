"""Each benchmark from its data to its figures and files: with the identity baseline, whose figures
are computed by hand, with a small random model, and by launch/eval.py."""

import json
import zipfile

import numpy as np
import pytest
import torch
from miniatures import badja, davis_test, jhmdb, tapvid, vip, youtube_vos
from PIL import Image

from corrflow import CorrFlow, ModelConfig
from corrflow.benchmarks.evaluation import evaluate, finish, run_sequences
from corrflow.benchmarks.plan import prepare, read_plan
from corrflow.benchmarks.registry import BENCHMARKS
from corrflow.encoders.resnet import ResNetConfig
from corrflow.propagation import PROTOCOLS
from launch.eval import main

BUILT = {
    "davis2017-test": davis_test,
    "youtube-vos": youtube_vos,
    "jhmdb": jhmdb,
    "vip": vip,
    "vip-instances": vip,
    "badja": badja,
    "tapvid": lambda root: tapvid(root / "tapvid_davis.pkl"),
}
# the tests of each benchmark show how these are computed
IDENTITY = {
    "davis2017-test": {},
    "youtube-vos": {
        "J_seen": (10 / 14 + 8 / 16 + 6 / 18 + 4 / 20) / 4,
        "J_unseen": 1,
        "F_unseen": 1,
    },
    "jhmdb": {"PCK@0.1": 1 / 3, "PCK@0.2": 2 / 3, "PCK@0.3": 1, "PCK@0.4": 1, "PCK@0.5": 1},
    "vip": {
        "IoU-hair": 288 / 480,
        "IoU-upper-clothes": 36 / 60,
        "mIoU": (288 / 480 + 36 / 60 + 7776 / 8352) / 3,
    },
    "vip-instances": {"AP^r@0.5": (4 / 6) ** 2},
    "badja": {"PCK@0.2": 2 / 3},
    "tapvid": {
        "occlusion_accuracy": 9 / 10,
        "average_jaccard": (5 / 14 + 5 / 14 + 6 / 13 + 7 / 12 + 9 / 10) / 5,
    },
}


@pytest.fixture(scope="module", params=BUILT)
def data(request, tmp_path_factory):
    """A benchmark's name and the folder of a miniature of its data."""
    root = tmp_path_factory.mktemp(request.param)
    BUILT[request.param](root)
    return request.param, root


def check_files(name, root, out):
    """Check that each frame has a prediction and an overlay, and that there is an archive if the
    benchmark needs a submission."""
    benchmark = BENCHMARKS[name]
    for sequence in benchmark.read(root):
        names, size = benchmark.frame_names(sequence), next(benchmark.frames(sequence)).shape[1::-1]
        assert sorted(path.stem for path in (out / "overlays" / sequence.name).iterdir()) == names
        with Image.open(out / "overlays" / sequence.name / f"{names[-1]}.jpg") as overlay:
            assert overlay.size == size
        if benchmark.kind == "points":
            assert [
                frame["frame"]
                for frame in json.loads((out / "points" / f"{sequence.name}.json").read_text())
            ] == names
        for frame in names if benchmark.kind == "masks" else []:
            with Image.open(out / "masks" / sequence.name / f"{frame}.png") as mask:
                assert (mask.mode, mask.size) == ("P", size)
    assert (out / "submission.zip").exists() == (name in ("davis2017-test", "youtube-vos"))


def test_identity_scores_the_figures_computed_by_hand(data, tmp_path):
    name, root = data
    result = evaluate(name, root, None, PROTOCOLS["identity"], tmp_path, "identity")
    assert {key: result.overall[key] for key in IDENTITY[name]} == pytest.approx(IDENTITY[name])
    assert list(result.sequences) == [sequence.name for sequence in BENCHMARKS[name].read(root)]
    assert set(BENCHMARKS[name].headline) <= set(result.overall) or not IDENTITY[name]
    check_files(name, root, tmp_path)


def test_a_random_model_tracks_each_benchmark(data, tmp_path):
    name, root = data
    torch.manual_seed(0)
    model = CorrFlow(ModelConfig(ResNetConfig((4, 4, 8, 8), (1, 1, 1, 1), 8), radius=2)).eval()
    result = evaluate(name, root, model, PROTOCOLS["paper"], tmp_path, "random")
    assert result.frames == sum(sequence.length for sequence in BENCHMARKS[name].read(root))
    assert all(0 <= value <= 1 or np.isnan(value) for value in result.overall.values())
    check_files(name, root, tmp_path)


def test_eval_accepts_each_benchmark_by_name(data, tmp_path, capsys):
    name, root = data
    assert (
        main(
            [
                "--benchmark",
                name,
                "--root",
                str(root),
                "--out",
                str(tmp_path),
                "--protocol",
                "identity",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert "report" in capsys.readouterr().out
    assert {"metrics.json", "speed.json", "report.html"} <= {
        path.name for path in tmp_path.iterdir()
    }
    if name == "youtube-vos":
        with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
            assert len(archive.namelist()) == 6


def test_jobs_in_any_order_write_the_same_files_as_one_job(data, tmp_path):
    name, root = data
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    evaluate(name, root, None, PROTOCOLS["identity"], whole, "identity")
    prepare(read_plan(whole).evaluation, parts)
    for number in (2, 0, 1):
        plan = read_plan(parts)
        run_sequences(plan, plan.share(number, 3), None)
    finish(read_plan(parts))

    def content(out):
        files = [
            path
            for path in out.rglob("*")
            if path.is_file() and path.name != "speed.json" and path.parent.name != "sequences"
        ]
        return {str(path.relative_to(out)): path.read_bytes() for path in files}

    assert len(content(whole)) > 2
    assert content(parts) == content(whole)
