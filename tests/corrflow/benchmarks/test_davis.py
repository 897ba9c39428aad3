import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from miniatures import davis_test, save
from PIL import Image

from corrflow import CorrFlow, InputError, ModelConfig
from corrflow.benchmarks import davis
from corrflow.benchmarks.evaluation import evaluate
from corrflow.benchmarks.results import read_result
from corrflow.encoders.resnet import ResNetConfig
from corrflow.masks import PALETTE
from corrflow.pictures import read_mask, write_mask
from corrflow.propagation import PROTOCOLS
from corrflow.report import text_table, write_report

SMALL = ModelConfig(ResNetConfig((4, 4, 8, 8), (1, 1, 1, 1), 8), radius=2)


@pytest.fixture
def copy(tree, tmp_path):
    """A copy of the tree that a test may change."""
    return shutil.copytree(tree, tmp_path / "tree")


def truth(sequence):
    return [read_mask(path) for path in sequence.masks]


def test_the_first_and_last_frames_are_not_scored(tree):
    sequence = davis.read_sequences(tree, 2017)[0]
    true = truth(sequence)
    wrong = [np.zeros_like(true[0]), *true[1:-1], np.zeros_like(true[0])]
    scores = davis.score_sequence(wrong, true, [1])[1]
    assert scores == {"J": [1.0] * 6, "F": [1.0] * 6}


def test_each_object_has_the_same_weight(tmp_path):
    good, bad = {"J": [1.0] * 4, "F": [0.5] * 4}, {"J": [0.2] * 4, "F": [0.1] * 4}
    row = davis.global_row({"a_1": good, "a_2": bad})
    assert row["J-Mean"] == pytest.approx(0.6)
    assert row["F-Mean"] == pytest.approx(0.3)
    assert row["J&F-Mean"] == pytest.approx(0.45)
    assert row["J-Recall"] == pytest.approx(0.5)
    davis.Davis(2017).write_tables([], {"a_1": good, "a_2": bad}, tmp_path)
    lines = (tmp_path / "per-sequence_results-val.csv").read_text().splitlines()
    assert lines == ["Sequence,J-Mean,F-Mean", "a_1,1.000000,0.500000", "a_2,0.200000,0.100000"]
    head, figures = (tmp_path / "global_results-val.csv").read_text().splitlines()
    assert figures == "0.450000,0.600000,0.500000,0.000000,0.300000,0.000000,0.000000"
    assert head == "J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay"


def test_lists_of_both_years_are_read_and_no_lists_mean_all_sequences(copy):
    (copy / "ImageSets/2017/val.txt").write_text("val-002\n")
    assert [s.name for s in davis.read_sequences(copy, 2017)] == ["val-002"]
    # without a list of 2016, that of 2017 is read
    assert [s.name for s in davis.read_sequences(copy, 2016)] == ["val-002"]
    (copy / "ImageSets/480p").mkdir()
    lines = [
        f"/JPEGImages/480p/val-001/{t:05d}.jpg /Annotations/480p/val-001/{t:05d}.png"
        for t in range(8)
    ]
    (copy / "ImageSets/480p/val.txt").write_text("\n".join(lines))
    assert [s.name for s in davis.read_sequences(copy, 2016)] == ["val-001"]
    assert [s.name for s in davis.read_sequences(copy, 2017)] == ["val-002"]
    shutil.rmtree(copy / "ImageSets")
    assert len(davis.read_sequences(copy, 2016)) == len(davis.read_sequences(copy, 2017)) == 4


@pytest.mark.parametrize("year", [2016, 2017])
def test_an_empty_or_missing_list_is_refused(copy, year):
    (copy / "ImageSets/2017/val.txt").write_text("\n")
    with pytest.raises(InputError, match=r"ImageSets/2017/val.txt: names no sequence$"):
        davis.read_sequences(copy, year)
    (copy / "ImageSets/2017/val.txt").rename(copy / "ImageSets/2017/train.txt")
    with pytest.raises(
        InputError, match=rf"ImageSets/{year}/val.txt: no such file: expected a DAVIS tree with"
    ):
        davis.read_sequences(copy, year)


def test_davis2016_merges_all_objects_into_one(tree, tmp_path):
    sequences = davis.read_sequences(tree, 2016)
    result = evaluate("davis2016", tree, None, PROTOCOLS["identity"], tmp_path, "identity")
    assert list(result.scores) == [s.name for s in sequences]
    assert np.asarray(Image.open(tmp_path / "masks/val-000/00003.png")).max() == 1


def test_an_evaluation_writes_masks_overlays_figures_and_a_report(tree, tmp_path):
    sequences = davis.read_sequences(tree, 2017)
    torch.manual_seed(0)
    model = CorrFlow(SMALL).eval()
    results = [
        evaluate("davis2017", tree, m, PROTOCOLS[p], tmp_path / p, p)
        for m, p in ((None, "identity"), (model, "paper"))
    ]
    for sequence in sequences:
        for frame in sequence.paths:
            with Image.open(tmp_path / "paper/masks" / sequence.name / f"{frame.stem}.png") as mask:
                assert (mask.mode, mask.size, mask.getpalette()[:768]) == (
                    "P",
                    (64, 48),
                    PALETTE[: len(mask.getpalette())],
                )
            assert (tmp_path / "paper/overlays" / sequence.name / f"{frame.stem}.jpg").exists()
    metrics = json.loads((tmp_path / "paper/metrics.json").read_text())
    again = {
        f"{s.name}_{label}": score
        for s in sequences
        for label, score in davis.score_sequence(
            [read_mask(tmp_path / "paper/masks" / s.name / f"{f.stem}.png") for f in s.paths],
            truth(s),
            davis.objects_of(truth(s)[0], 2017),
        ).items()
    }
    assert metrics["overall"] == davis.global_row(again)
    assert metrics["sequences"]["val-000"]["objects"]["val-000_1"] == again["val-000_1"]
    assert read_result(tmp_path / "paper") == results[1]
    write_report(tmp_path / "report.html", "two <methods>", results)
    page = (tmp_path / "report.html").read_text()
    assert "two &lt;methods&gt;" in page
    assert page.count("data:image/jpeg;base64,") == 4 * 2 * 5
    assert "://" not in page
    assert text_table(results).splitlines()[1].startswith("identity")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda t: shutil.rmtree(t / "Annotations"),
            "Annotations/480p: no such folder: expected a DAVIS tree",
        ),
        (
            lambda t: (t / "JPEGImages/480p/val-001/00004.jpg").unlink(),
            "val-001: frame 4 is missing after 00003.jpg",
        ),
        (
            lambda t: (t / "Annotations/480p/val-001/00007.png").unlink(),
            "sequence val-001: frame 00007.jpg has no mask 00007.png",
        ),
        (
            lambda t: shutil.rmtree(t / "JPEGImages/480p/val-003"),
            "JPEGImages/480p/val-003: no such folder",
        ),
    ],
)
def test_an_incomplete_tree_is_refused(copy, spoil, words):
    spoil(copy)
    with pytest.raises(InputError) as error:
        davis.read_sequences(copy, 2017)
    assert words in str(error.value)


@pytest.mark.parametrize("size", ["Full-Resolution", "1080p"])
@pytest.mark.parametrize(
    ("benchmark", "release"),
    [
        (davis.Davis(2016), "DAVIS-data.zip"),
        (davis.Davis(2017), "DAVIS-2017-trainval-480p.zip"),
        (davis.DavisTest(), "DAVIS-2017-test-dev-480p.zip"),
    ],
)
def test_a_full_resolution_tree_is_refused_with_the_release_to_use(
    tmp_path, size, benchmark, release
):
    davis_test(tmp_path)
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / kind / "480p").rename(tmp_path / kind / size)
    with pytest.raises(InputError) as error:
        benchmark.read(tmp_path)
    words = (
        f"no such folder, only {size}: official figures are of 480p: expected the tree of {release}"
    )
    assert str(error.value) == f"{tmp_path}/JPEGImages/480p: {words}"


def test_full_resolution_frames_beside_480p_are_ignored(copy):
    shutil.copytree(copy / "JPEGImages/480p", copy / "JPEGImages/Full-Resolution")
    assert len(davis.read_sequences(copy, 2017)) == 4


def square(*labels, side=10):
    """Labels of 40 x 50 pixels with a square for each label, side by side."""
    mask_hw = np.zeros((40, 50), np.uint8)
    for position, label in enumerate(labels):
        mask_hw[5 : 5 + side, 2 + 12 * position : 2 + 12 * position + side] = label
    return mask_hw


def one_sequence(root, masks, name="bear"):
    """Write a sequence into a DAVIS tree; returns the tree."""
    for t, mask_hw in enumerate(masks):
        save(root / f"JPEGImages/480p/{name}/{t:05d}.jpg", np.zeros_like(mask_hw))
        write_mask(root / f"Annotations/480p/{name}/{t:05d}.png", mask_hw)
    return root


def test_void_is_background_as_in_the_official_evaluation(tmp_path):
    one_sequence(tmp_path, [square(1, 255)] * 3)
    benchmark = davis.Davis(2017)
    (sequence,) = benchmark.read(tmp_path)
    np.testing.assert_array_equal(benchmark.initial_labels(sequence)[0], square(1))
    scores = benchmark.score(sequence, [square(1), square(1, 1), square(1)])
    # 100 of 200 predicted pixels are right; the others lie on void, which is background
    assert scores["bear_1"]["J"] == [0.5]
    assert list(scores) == ["bear_1"]


def test_davis2016_takes_every_value_but_0_as_the_object(tmp_path):
    one_sequence(tmp_path, [square(255, 128, 3)] * 3)
    benchmark = davis.Davis(2016)
    (sequence,) = benchmark.read(tmp_path)
    np.testing.assert_array_equal(benchmark.initial_labels(sequence)[0], square(1, 1, 1))
    assert benchmark.score(sequence, [square(1, 1, 1)] * 3)["bear"] == {"J": [1.0], "F": [1.0]}


def test_davis2016_takes_the_border_of_a_trimap_as_the_object(tmp_path):
    trimap = square(128, side=12)
    trimap[6:16, 3:13] = 255  # 100 pixels within 144
    (sequence,) = davis.Davis(2016).read(one_sequence(tmp_path, [trimap] * 3))
    np.testing.assert_array_equal(davis.Davis(2016).initial_labels(sequence)[0], square(1, side=12))
    scores = davis.Davis(2016).score(sequence, [(trimap == 255).astype(np.uint8)] * 3)
    assert scores["bear"]["J"] == [pytest.approx(100 / 144)]


def test_an_unused_object_number_scores_1_as_in_the_official_evaluation(tmp_path):
    one_sequence(tmp_path, [square(1, 3)] * 3)
    benchmark = davis.Davis(2017)
    scores = benchmark.score(benchmark.read(tmp_path)[0], [square(1, 3)] * 3)
    assert {name: score["J"] for name, score in scores.items()} == {
        "bear_1": [1.0],
        "bear_2": [1.0],
        "bear_3": [1.0],
    }


def test_a_first_mask_without_objects_is_refused(tmp_path):
    (sequence,) = davis.Davis(2017).read(one_sequence(tmp_path / "a", [square()] * 3))
    with pytest.raises(InputError, match=r"bear/00000.png: holds no object: nothing to track$"):
        davis.Davis(2017).initial_labels(sequence)
    (sequence,) = davis.Davis(2017).read(one_sequence(tmp_path / "b", [square(255)] * 3))
    with pytest.raises(
        InputError,
        match=(
            r"nothing to track; 255 is void in DAVIS-2017, the object in DAVIS-2016: "
            r"--benchmark davis2016$"
        ),
    ):
        davis.Davis(2017).initial_labels(sequence)
    assert davis.Davis(2016).initial_labels(sequence)[0].sum() == 100


@pytest.mark.parametrize("length", [1, 2])
def test_a_video_without_scored_frames_has_no_score(tmp_path, length):
    result = evaluate(
        "davis2017",
        one_sequence(tmp_path, [square(1)] * length),
        None,
        PROTOCOLS["identity"],
        tmp_path / "out",
        "identity",
    )
    assert result.frames == length
    assert all(np.isnan(value) for value in result.overall.values())
    one_sequence(tmp_path, [square(1)] * 4, name="camel")
    shutil.rmtree(tmp_path / "out")
    result = evaluate(
        "davis2017", tmp_path, None, PROTOCOLS["identity"], tmp_path / "out", "identity"
    )
    assert result.overall["J&F-Mean"] == 1


def test_an_empty_sequence_is_refused(copy):
    shutil.rmtree(copy / "JPEGImages/480p/val-001")
    (copy / "JPEGImages/480p/val-001").mkdir()
    with pytest.raises(InputError, match=r"val-001: no numbered .jpg or .jpeg or .png files there"):
        davis.read_sequences(copy, 2017)


def test_a_mask_of_another_size_is_refused(copy):
    write_mask(copy / "Annotations/480p/val-001/00003.png", square(1))
    with pytest.raises(
        InputError,
        match=(
            r"mask .*val-001/00003.png is 50x40: expected 64x48, the size of the others of its "
            r"sequence"
        ),
    ):
        evaluate("davis2017", copy, None, PROTOCOLS["identity"], copy / "out", "identity")


def test_test_dev_is_tracked_and_packed_for_submission(tmp_path):
    davis_test(tmp_path / "davis")
    result = evaluate(
        "davis2017-test",
        tmp_path / "davis",
        None,
        PROTOCOLS["identity"],
        tmp_path / "out",
        "identity",
    )
    assert (result.overall, result.frames, list(result.sequences)) == (
        {},
        5,
        ["aerobatics", "chamaleon"],
    )
    with zipfile.ZipFile(tmp_path / "out/submission.zip") as archive:
        assert archive.namelist() == [
            *[f"aerobatics/{t:05d}.png" for t in range(4)],
            "chamaleon/00000.png",
        ]
        with archive.open("aerobatics/00003.png") as file, Image.open(file) as image:
            assert (image.mode, image.size, image.getpalette()) == ("P", (64, 48), PALETTE)
            assert np.unique(np.asarray(image)).tolist() == [0, 1, 2]
    assert not (tmp_path / "out/global_results-val.csv").exists()


def test_test_dev_needs_the_mask_of_the_first_frame(tmp_path):
    davis_test(tmp_path)
    (tmp_path / "Annotations/480p/aerobatics/00000.png").rename(
        tmp_path / "Annotations/480p/aerobatics/00001.png"
    )
    with pytest.raises(
        InputError, match=r"sequence aerobatics: frame 00000.jpg has no mask 00000.png"
    ):
        davis.DavisTest().read(tmp_path)


def discs(*circles):
    """Labels of 70 x 90 pixels with a disc for each (label, x, y, radius)."""
    y, x = np.mgrid[:70, :90]
    mask_hw = np.zeros((70, 90), np.uint8)
    for label, center_x, center_y, radius in circles:
        mask_hw[(x - center_x) ** 2 + (y - center_y) ** 2 <= radius**2] = label
    return mask_hw


def example_sequences():
    """True and predicted masks of two sequences, with void, an unused object number, an object that
    leaves, and a frame in which all objects are lost."""
    first = [
        discs((1, 20 + 3 * t, 30, 12), (3, 60, 20 + 2 * t, 9), (255, 75, 60, 8)) for t in range(9)
    ]
    second = [discs((1, 45, 30 + t, 15)) if t < 4 else discs() for t in range(6)]
    moved = [
        np.zeros_like(m) if t == 5 else np.roll(np.where(m == 255, 1, m), (t % 3, -t % 4), (0, 1))
        for t, m in enumerate(first)
    ]
    return {
        "first": (first, moved),
        "second": (second, [np.roll(second[0], t, 1) for t in range(6)]),
    }


def test_the_figures_equal_those_of_the_official_package(tmp_path):
    scores = {}
    for name, (true, predicted) in example_sequences().items():
        one_sequence(tmp_path, true, name)
        sequence = davis.read_sequence(tmp_path, name)
        scores |= davis.Davis(2017).score(sequence, predicted)
    # from evaluation_method.py --task semi-supervised of davis2017-evaluation, for the same PNGs
    official = {
        "J&F-Mean": 0.6441534755929661,
        "J-Mean": 0.685856730167054,
        "J-Recall": 0.8660714285714286,
        "J-Decay": 0.0983326032617624,
        "F-Mean": 0.6024502210188781,
        "F-Recall": 0.5625,
        "F-Decay": 0.06505737907250815,
    }
    per_object = {
        "first_1": [0.49681405121802424, 0.44686430876627137],
        "first_2": [1.0, 1.0],
        "first_3": [0.6562603190435883, 0.5939849624060151],
        "second_1": [0.590352550406603, 0.3689516129032258],
    }
    assert davis.global_row(scores) == pytest.approx(official, abs=1e-9)
    assert {name: [np.mean(score["J"]), np.mean(score["F"])] for name, score in scores.items()} == {
        name: pytest.approx(pair, abs=1e-9) for name, pair in per_object.items()
    }
