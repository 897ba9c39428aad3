import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from corrflow import CorrFlow, InputError, ModelConfig
from corrflow.benchmarks import davis
from corrflow.benchmarks.evaluation import evaluate
from corrflow.benchmarks.results import read_result
from corrflow.encoder import EncoderConfig
from corrflow.pictures import PALETTE, read_mask
from corrflow.propagation import PROTOCOLS
from corrflow.report import text_table, write_report

SMALL = ModelConfig(EncoderConfig((4, 4, 8, 8), (1, 1, 1, 1), 8), radius=2)


@pytest.fixture
def copy(tree, tmp_path):
    """A tree to spoil."""
    return shutil.copytree(tree, tmp_path / "tree")


def truth(sequence):
    return [read_mask(path) for path in sequence.masks]


def test_the_first_and_the_last_frame_do_not_count(tree):
    sequence = davis.read_sequences(tree, 2017)[0]
    true = truth(sequence)
    wrong = [np.zeros_like(true[0]), *true[1:-1], np.zeros_like(true[0])]
    scores = davis.score_sequence(wrong, true, [1])[1]
    assert scores == {"J": [1.0] * 6, "F": [1.0] * 6}


def test_each_object_counts_alike():
    good, bad = {"J": [1.0] * 4, "F": [0.5] * 4}, {"J": [0.2] * 4, "F": [0.1] * 4}
    row = davis.global_row({"a_1": good, "a_2": bad})
    assert row["J-Mean"] == pytest.approx(0.6)
    assert row["F-Mean"] == pytest.approx(0.3)
    assert row["J&F-Mean"] == pytest.approx(0.45)
    assert row["J-Recall"] == pytest.approx(0.5)
    lines = davis.sequence_csv({"a_1": good, "a_2": bad}).splitlines()
    assert lines == ["Sequence,J-Mean,F-Mean", "a_1,1.000000,0.500000", "a_2,0.200000,0.100000"]
    assert davis.global_csv({"a_1": good}).splitlines()[0] == "J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay"


def test_either_years_list_is_read_and_none_means_all(copy):
    (copy / "ImageSets/2017/val.txt").write_text("val-002\n")
    assert [s.name for s in davis.read_sequences(copy, 2017)] == ["val-002"]
    assert len(davis.read_sequences(copy, 2016)) == 4
    (copy / "ImageSets/480p").mkdir()
    lines = [f"/JPEGImages/480p/val-001/{t:05d}.jpg /Annotations/480p/val-001/{t:05d}.png" for t in range(8)]
    (copy / "ImageSets/480p/val.txt").write_text("\n".join(lines))
    assert [s.name for s in davis.read_sequences(copy, 2016)] == ["val-001"]


def test_of_2016_all_objects_are_one(tree, tmp_path):
    sequences = davis.read_sequences(tree, 2016)
    result = evaluate("davis2016", tree, None, PROTOCOLS["identity"], tmp_path, "identity")
    assert list(result.scores) == [s.name for s in sequences]
    assert np.asarray(Image.open(tmp_path / "masks/val-000/00003.png")).max() == 1


def test_an_evaluation_leaves_masks_overlays_figures_and_a_page(tree, tmp_path):
    sequences = davis.read_sequences(tree, 2017)
    torch.manual_seed(0)
    model = CorrFlow(SMALL).eval()
    results = [evaluate("davis2017", tree, m, PROTOCOLS[p], tmp_path / p, p) for m, p in ((None, "identity"), (model, "paper"))]
    for sequence in sequences:
        for frame in sequence.frames:
            with Image.open(tmp_path / "paper/masks" / sequence.name / f"{frame.stem}.png") as mask:
                assert (mask.mode, mask.size, mask.getpalette()[:768]) == ("P", (64, 48), PALETTE[: len(mask.getpalette())])
            assert (tmp_path / "paper/overlays" / sequence.name / f"{frame.stem}.jpg").exists()
    metrics = json.loads((tmp_path / "paper/metrics.json").read_text())
    again = {
        f"{s.name}_{label}": score
        for s in sequences
        for label, score in davis.score_sequence(
            [read_mask(tmp_path / "paper/masks" / s.name / f"{f.stem}.png") for f in s.frames],
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
        (lambda t: shutil.rmtree(t / "Annotations"), "Annotations/480p: no such folder: expected a DAVIS tree"),
        (lambda t: (t / "JPEGImages/480p/val-001/00004.jpg").unlink(), "val-001: frame 4 is missing after 00003.jpg"),
        (lambda t: (t / "Annotations/480p/val-001/00007.png").unlink(), "sequence val-001: frame 00007.jpg has no mask 00007.png"),
        (lambda t: shutil.rmtree(t / "JPEGImages/480p/val-003"), "JPEGImages/480p/val-003: no such folder"),
    ],
)
def test_an_incomplete_tree_is_refused(copy, spoil, words):
    spoil(copy)
    with pytest.raises(InputError) as error:
        davis.read_sequences(copy, 2017)
    assert words in str(error.value)


def test_a_mask_in_full_colour_is_refused(tmp_path):
    Image.effect_noise((8, 8), 50).convert("RGB").save(tmp_path / "grey.png")
    assert read_mask(tmp_path / "grey.png").shape == (8, 8)
    Image.new("RGB", (8, 8), (200, 10, 10)).save(tmp_path / "red.png")
    with pytest.raises(InputError, match="expected an indexed or grey PNG"):
        read_mask(tmp_path / "red.png")


def test_0_and_255_mean_one_object(tmp_path):
    Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[0, 1], [1, 0]]
