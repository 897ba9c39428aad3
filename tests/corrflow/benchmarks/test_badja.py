import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from miniatures import badja, save, squares

from corrflow import InputError
from corrflow.benchmarks.badja import Badja

BADJA = Badja()


def located(xy_tk2):
    return [SimpleNamespace(xy=xy_k2, visible=~np.isnan(xy_k2[:, 0])) for xy_k2 in xy_tk2]


def truth(sequence):
    """The labelled joints; between two labelled frames, those of the earlier one."""
    return np.stack([sequence.labels[frame // 2].xy_k2 for frame in range(5)])


def test_videos_are_read_from_the_first_labelled_frame_to_the_last(tmp_path):
    badja(tmp_path)
    (sequence,) = BADJA.read(tmp_path)  # without the tiger, whose frames are not distributed
    assert (sequence.name, sequence.length) == ("horse", 5)
    assert BADJA.frame_names(sequence) == ["00002", "00003", "00004", "00005", "00006"]
    assert {frame.shape for frame in BADJA.frames(sequence)} == {(320, 512, 3)}
    given = BADJA.initial_labels(sequence)
    assert list(given) == [0]
    assert given[0].shape == (20, 2)
    # row 40 and column 30 + 3 x 2 at 256 x 160 are the centre of a pixel; resizing doubles its
    # distance from the corner
    np.testing.assert_allclose(given[0][0], (36.5 * 2 - 0.5, 40.5 * 2 - 0.5))
    assert np.flatnonzero(~np.isnan(given[0][:, 0])).tolist() == [0, 6]


def test_perfect_joints_score_1(tmp_path):
    badja(tmp_path)
    (sequence,) = BADJA.read(tmp_path)
    predicted = truth(sequence)
    predicted[0] = 0  # the first labelled frame is not scored
    scores = BADJA.score(sequence, located(predicted))
    assert BADJA.figures(scores) == {"PCK@0.2": 1}
    # the neck is hidden in the last labelled frame
    assert scores["horse_neck"]["PCK@0.2"] == pytest.approx([1, np.nan], nan_ok=True)
    # the nose appears later, so it was not given
    assert list(scores) == ["horse_upper-right-1", "horse_neck"]


def test_the_figure_of_static_joints_equals_that_computed_by_hand(tmp_path):
    badja(tmp_path)
    (sequence,) = BADJA.read(tmp_path)
    scores = BADJA.score(sequence, located(truth(sequence)[:1].repeat(5, 0)))
    # the limit is 20; the true joint is 12 away after two frames, and 24 after four, where the neck
    # is hidden
    assert scores["horse_upper-right-1"]["PCK@0.2"] == [1, 0]
    assert BADJA.figures(scores)["PCK@0.2"] == pytest.approx(2 / 3)


def test_each_video_has_the_same_weight():
    scores = {"bear_nose": [1.0, 1.0, 1.0], "bear_jaw": [0.0], "rs_dog_nose": [0.0]}
    assert BADJA.figures({name: {"PCK@0.2": hits} for name, hits in scores.items()})[
        "PCK@0.2"
    ] == pytest.approx((3 / 4 + 0) / 2)


def test_an_extra_video_is_read_if_its_frames_exist(tmp_path):
    badja(tmp_path)
    for t in range(7, 10):
        save(tmp_path / f"extra_videos/tiger/rgb/{t:04d}.png", squares(height=80, width=128))
        save(
            tmp_path / f"extra_videos/tiger/segmentations/{t:04d}.png",
            squares(height=80, width=128),
        )
    labels = json.loads((tmp_path / "joint_annotations/tiger.json").read_text())[:2]
    for label, t in zip(labels, (7, 9), strict=True):
        label["image_path"] = f"extra_videos/tiger/rgb/{t:04d}.png"
        label["segmentation_path"] = f"extra_videos/tiger/segmentations/{t:04d}.png"
    (tmp_path / "joint_annotations/tiger.json").write_text(json.dumps(labels))
    assert [(s.name, s.length) for s in BADJA.read(tmp_path)] == [("horse", 5), ("tiger", 3)]


def edit(root, change):
    """Change the first label of the horse."""
    path = root / "joint_annotations/horse.json"
    labels = json.loads(path.read_text())
    change(labels[0])
    path.write_text(json.dumps(labels))


FRAMES = "DAVIS/JPEGImages/Full-Resolution/horse"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda r: (r / FRAMES / "00004.jpg").unlink(),
            "00004.jpg: no such file: horse.json labels it",
        ),
        (
            lambda r: (r / FRAMES / "00003.jpg").unlink(),
            "horse: 4 frames from 2 to 6, which horse.json labels: expected 5",
        ),
        (
            lambda r: (r / "DAVIS/Annotations/Full-Resolution/horse/00006.png").unlink(),
            "00006.png: no such file",
        ),
        (lambda r: shutil.rmtree(r / "DAVIS"), "horse/00002.jpg: no such file"),
        (
            lambda r: (r / "joint_annotations/horse.json").write_text("[{}]"),
            "labels .*horse.json: expected a list of image_path",
        ),
        (
            lambda r: (r / "joint_annotations/horse.json").write_text("[]"),
            "labels .*horse.json: no labelled frame",
        ),
        (
            lambda r: edit(r, lambda label: label.update(image_path="DAVIS/cover.jpg")),
            "image_path .*cover.jpg: expected a name that ends with",
        ),
        (
            lambda r: edit(r, lambda label: label["joints"].__setitem__(3, [1])),
            "horse.json: expected joints as 37 rows of two numbers",
        ),
        (
            lambda r: edit(r, lambda label: label["joints"].__setitem__(3, ["a", 1])),
            "horse.json: expected joints as 37 rows of two numbers",
        ),
        (
            lambda r: (r / FRAMES / "00002.jpg").write_bytes(b"no picture"),
            "horse/00002.jpg: not a readable image",
        ),
        (
            lambda r: (r / "joint_annotations/horse.json").unlink(),
            "no ANIMAL.json there whose frames are in ",
        ),
        (
            lambda r: shutil.rmtree(r / "joint_annotations"),
            "joint_annotations: no such folder: expected BADJA with",
        ),
    ],
)
def test_each_defect_of_badja_is_reported(tmp_path, spoil, words):
    badja(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=words):
        BADJA.read(tmp_path)


def test_a_frame_of_another_size_is_refused_before_it_is_resized(tmp_path):
    badja(tmp_path)
    save(tmp_path / FRAMES / "00004.jpg", squares(height=160, width=200))
    (sequence,) = BADJA.read(tmp_path)
    with pytest.raises(InputError, match=r"horse/00004.jpg is 200x160: expected 256x160"):
        list(BADJA.frames(sequence))


def test_an_animal_without_a_visible_joint_is_refused(tmp_path):
    badja(tmp_path)
    edit(tmp_path, lambda label: label.update(visibility=[False] * 37))
    (sequence,) = BADJA.read(tmp_path)
    with pytest.raises(
        InputError,
        match=r"labels of horse: 00002.jpg: no point is visible in the picture: nothing to track",
    ):
        BADJA.initial_labels(sequence)


def test_labels_with_another_number_of_joints_are_refused(tmp_path):
    badja(tmp_path)
    path = tmp_path / "joint_annotations/horse.json"
    labels = json.loads(path.read_text())
    labels[1]["joints"].pop()
    path.write_text(json.dumps(labels))
    with pytest.raises(InputError, match=r"horse.json: \[36, 2\] joints: expected \[37, 2\]"):
        BADJA.read(tmp_path)
