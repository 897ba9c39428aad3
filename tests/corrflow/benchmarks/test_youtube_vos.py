import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from miniatures import save, squares, youtube_vos
from PIL import Image

from corrflow import InputError
from corrflow.benchmarks.youtube_vos import SEEN_CATEGORIES, YouTubeVos
from corrflow.masks import PALETTE
from corrflow.pictures import write_mask

VOS = YouTubeVos()


def carried(given, length):
    """Copy the given labels to the following frames, as the identity baseline does."""
    frames, labels_hw = [], np.zeros_like(given[0])
    for t in range(length):
        if t in given:
            labels_hw = np.where(given[t] > 0, given[t], labels_hw)
        frames.append(labels_hw)
    return frames


def test_a_split_is_read_as_downloaded(tmp_path):
    labels = youtube_vos(tmp_path / "valid")
    sequences = VOS.read(tmp_path)
    assert sequences == VOS.read(tmp_path / "valid")
    assert [(s.name, s.length, s.has_truth) for s in sequences] == [
        ("0a1b2c3d4e", 5, True),
        ("ff00ff00ff", 1, True),
    ]
    assert VOS.frame_names(sequences[0]) == ["00000", "00005", "00010", "00015", "00020"]
    frames = list(VOS.frames(sequences[0]))
    assert (len(frames), frames[0].shape, frames[0].dtype) == (5, (48, 64, 3), np.uint8)
    given = VOS.initial_labels(sequences[0])
    assert list(given) == [0, 2]
    np.testing.assert_array_equal(given[0], labels[0])
    # object 1 is in this mask, too, but is given only in its first frame
    np.testing.assert_array_equal(given[2], np.where(labels[2] == 2, 2, 0))


def test_perfect_masks_score_1_in_each_frame_after_an_objects_first(tmp_path):
    labels = youtube_vos(tmp_path)
    sequence = VOS.read(tmp_path)[0]
    scores = VOS.score(sequence, labels)
    assert {name: len(score["J"]) for name, score in scores.items()} == {
        "0a1b2c3d4e_1-seen": 4,
        "0a1b2c3d4e_2-unseen": 2,
    }
    assert VOS.figures(scores) == {
        "Overall": 1,
        "J_seen": 1,
        "J_unseen": 1,
        "F_seen": 1,
        "F_unseen": 1,
    }


def test_the_figures_of_copied_masks_equal_those_computed_by_hand(tmp_path):
    youtube_vos(tmp_path)
    first, alone = VOS.read(tmp_path)
    scores = VOS.score(first, carried(VOS.initial_labels(first), 5))
    # the object is 12 pixels wide and has moved by 2n pixels after n frames, so the intersection
    # has 12 - 2n columns and the union 12 + 2n
    by_hand = [10 / 14, 8 / 16, 6 / 18, 4 / 20]
    assert scores["0a1b2c3d4e_1-seen"]["J"] == pytest.approx(by_hand)
    assert scores["0a1b2c3d4e_2-unseen"]["J"] == [1, 1]
    # the other video has only the given frame, so it adds no score
    scores |= VOS.score(alone, list(VOS.initial_labels(alone).values()))
    figures = VOS.figures(scores)
    assert figures["J_seen"] == pytest.approx(np.mean(by_hand))
    assert (figures["J_unseen"], figures["F_unseen"]) == (1, 1)
    assert figures["Overall"] == pytest.approx((figures["J_seen"] + figures["F_seen"] + 2) / 4)


def test_the_validation_split_is_packed_for_submission_without_scores(tmp_path):
    youtube_vos(tmp_path / "valid", truth=False)
    sequence = VOS.read(tmp_path)[0]
    given = VOS.initial_labels(sequence)
    assert list(given) == [0, 2]
    predicted = carried(given, 6)
    assert VOS.score(sequence, predicted) == {}
    out = tmp_path / "out"
    # a download of all frames also has frames for which the server needs no mask
    dense = replace(sequence, paths=(*sequence.paths, Path("00021.jpg")))
    VOS.write_predictions(dense, predicted, out)
    VOS.write_tables([dense], {}, out)
    before = (out / "submission.zip").read_bytes()
    VOS.write_tables([dense], {}, out)
    assert (out / "submission.zip").read_bytes() == before
    with zipfile.ZipFile(out / "submission.zip") as archive:
        assert archive.namelist() == [f"Annotations/0a1b2c3d4e/{5 * t:05d}.png" for t in range(5)]
        with archive.open("Annotations/0a1b2c3d4e/00015.png") as file, Image.open(file) as image:
            assert (image.mode, image.size, image.getpalette()) == ("P", (64, 48), PALETTE)
            np.testing.assert_array_equal(np.asarray(image), predicted[3])
    assert not (out / "global_results.csv").exists()


def test_masks_of_first_frames_alone_do_not_count_as_truth(tmp_path):
    youtube_vos(tmp_path, truth=False)
    # two of the three frames that are left have a mask, because an object first appears there
    for number in (15, 20):
        (tmp_path / f"JPEGImages/0a1b2c3d4e/{number:05d}.jpg").unlink()
    edit_meta(
        tmp_path,
        lambda o: [
            o["1"].update(frames=["00000", "00005", "00010"]),
            o["2"].update(frames=["00010"]),
        ],
    )
    assert [sequence.has_truth for sequence in VOS.read(tmp_path)] == [False, False]


def test_a_split_with_only_some_true_masks_is_refused(tmp_path):
    youtube_vos(tmp_path)
    for number in (5, 10):  # further frames of the other video, without true masks
        save(tmp_path / f"JPEGImages/ff00ff00ff/{number:05d}.jpg", squares())
    with pytest.raises(
        InputError,
        match=r"2 of 5 masks .* are missing \(ff00ff00ff/00005.png, ff00ff00ff/00010.png\)",
    ):
        VOS.read(tmp_path)


def test_tables_have_a_row_for_each_scored_video(tmp_path):
    labels = youtube_vos(tmp_path)
    sequence = VOS.read(tmp_path)[0]
    VOS.write_predictions(sequence, labels, tmp_path / "out")
    VOS.write_tables([sequence], VOS.score(sequence, labels), tmp_path / "out")
    assert (tmp_path / "out/global_results.csv").read_text().splitlines()[
        0
    ] == "Overall,J_seen,J_unseen,F_seen,F_unseen"
    assert (
        (tmp_path / "out/per-sequence_results.csv")
        .read_text()
        .splitlines()[1]
        .startswith("0a1b2c3d4e,1.000000,1.000000")
    )


def test_training_has_65_categories():
    assert len(SEEN_CATEGORIES) == 65


def edit_meta(root, change):
    meta = json.loads((root / "meta.json").read_text())
    change(meta["videos"]["0a1b2c3d4e"]["objects"])
    (root / "meta.json").write_text(json.dumps(meta))


def blank(folder):
    for path in folder.iterdir():
        write_mask(path, squares())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda r: (r / "Annotations/0a1b2c3d4e/00015.png").unlink(),
            "Annotations: 1 of 3 masks after the first of an object are missing "
            "(0a1b2c3d4e/00015.png): expected all",
        ),
        (
            lambda r: [
                (r / f"Annotations/0a1b2c3d4e/{n}.png").unlink() for n in ("00005", "00015")
            ],
            "2 of 3 masks after the first of an object are missing (0a1b2c3d4e/00005.png, "
            "0a1b2c3d4e/00015.png)",
        ),
        (
            lambda r: (r / "Annotations/0a1b2c3d4e/00000.png").unlink(),
            "0a1b2c3d4e: mask 00000.png is missing: meta.json says that object 1 is first there",
        ),
        (
            lambda r: write_mask(r / "Annotations/0a1b2c3d4e/00010.png", squares((1, 14, 8, 12))),
            "00010.png: does not hold object 2: meta.json says that it is first there",
        ),
        (
            lambda r: edit_meta(r, lambda o: o["2"].update(frames=[])),
            "video 0a1b2c3d4e: expected objects with category and frames",
        ),
        (
            lambda r: (r / "JPEGImages/0a1b2c3d4e/00015.jpg").unlink(),
            "JPEGImages/0a1b2c3d4e: frame 00015 is missing, which meta.json",
        ),
        (
            lambda r: (r / "JPEGImages/ff00ff00ff/00000.jpg").unlink(),
            "ff00ff00ff: no numbered .jpg or .jpeg or .png files there",
        ),
        (
            lambda r: (r / "meta.json").unlink(),
            "meta.json: no such file: expected a split of YouTube-VOS",
        ),
        (
            lambda r: (r / "meta.json").write_text("{}"),
            "meta.json: expected videos, each with objects by number",
        ),
        (
            lambda r: edit_meta(r, lambda o: o["2"].pop("category")),
            "video 0a1b2c3d4e: expected objects with category and frames",
        ),
        (
            lambda r: edit_meta(r, lambda o: o.update({"3": o["1"]})),
            "0a1b2c3d4e/00000.png: does not hold object 3",
        ),
        (
            lambda r: blank(r / "Annotations/0a1b2c3d4e"),
            "Annotations/0a1b2c3d4e/00000.png: does not hold object 1",
        ),
        (
            lambda r: (blank(r / "Annotations/0a1b2c3d4e"), edit_meta(r, dict.clear)),
            "0a1b2c3d4e: no mask holds an object: nothing to track",
        ),
        (
            lambda r: edit_meta(r, lambda o: o.pop("2")),
            "00010.png: holds object 2: meta.json has [1]",
        ),
        (
            lambda r: write_mask(r / "Annotations/0a1b2c3d4e/00010.png", squares(width=60)),
            "00010.png is 60x48: expected 64x48",
        ),
        (
            lambda r: save(r / "JPEGImages/0a1b2c3d4e/00010.jpg", squares(width=60)),
            "00010.jpg is 60x48: expected 64x48",
        ),
    ],
)
def test_each_defect_of_a_split_is_reported_in_one_line(tmp_path, spoil, words):
    youtube_vos(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError) as error:
        for sequence in VOS.read(tmp_path):
            VOS.initial_labels(sequence)
            list(VOS.frames(sequence))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
