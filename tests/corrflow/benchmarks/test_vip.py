import shutil

import numpy as np
import pytest
from miniatures import save, squares, vip
from PIL import Image

from corrflow import InputError
from corrflow.benchmarks.vip import Vip, VipInstances
from corrflow.masks import PALETTE
from corrflow.pictures import read_labels, write_mask

PARTS, INSTANCES = Vip(), VipInstances()


def truth(sequence):
    return [read_labels(path) for path in sequence.labels]


def test_the_validation_videos_are_read_as_downloaded(tmp_path):
    vip(tmp_path)
    (sequence,) = PARTS.read(tmp_path)
    assert sequence == PARTS.read(tmp_path / "VIP_Fine")[0]
    (tmp_path / "VIP_Fine/lists/val_videos.txt").write_text("Images/videos10\n")
    assert PARTS.read(tmp_path) == [sequence]
    assert (sequence.name, sequence.length) == ("videos10", 3)
    assert PARTS.frame_names(sequence) == ["000000000001", "000000000026", "000000000051"]
    assert np.unique(PARTS.initial_labels(sequence)[0]).tolist() == [0, 2, 5]
    (instances,) = INSTANCES.read(tmp_path)
    assert np.unique(INSTANCES.initial_labels(instances)[0]).tolist() == [0, 1, 2, 3]
    assert len(list(PARTS.frames(sequence))) == 3


def test_perfect_labels_score_1(tmp_path):
    vip(tmp_path)
    for benchmark, headline in ((PARTS, "mIoU"), (INSTANCES, "AP^r")):
        (sequence,) = benchmark.read(tmp_path)
        assert benchmark.figures(benchmark.score(sequence, truth(sequence)))[headline] == 1


def test_the_mean_iou_of_copied_labels_equals_that_computed_by_hand(tmp_path):
    vip(tmp_path)
    (sequence,) = PARTS.read(tmp_path)
    figures = PARTS.figures(PARTS.score(sequence, truth(sequence)[:1] * 3))
    # hair: an 8 x 8 square stays where it is; another one moves by 4, so the intersections are 64,
    # 32 and 0, the unions 64, 96 and 128
    hair = (3 * 64 + 64 + 32) / (3 * 64 + 64 + 96 + 128)
    # clothes: a 16 x 16 square moves by 4: intersections of 16, 12 and 8 columns, unions of 16, 20
    # and 24
    clothes = (16 + 12 + 8) / (16 + 20 + 24)
    # background: all of 3 x 48 x 64 pixels are common, except those of either foreground
    either = 3 * 64 + (64 + 96 + 128) + 16 * (16 + 20 + 24)
    background = (3 * 48 * 64 - either) / (3 * 48 * 64 - (3 * 64 + 64 + 32 + 16 * (16 + 12 + 8)))
    assert figures["IoU-hair"] == pytest.approx(hair)
    assert figures["IoU-upper-clothes"] == pytest.approx(clothes)
    assert figures["IoU-background"] == pytest.approx(background)
    assert np.isnan(figures["IoU-hat"])
    assert figures["mIoU"] == pytest.approx((hair + clothes + background) / 3)


def test_the_precision_of_copied_instances_equals_that_computed_by_hand(tmp_path):
    vip(tmp_path)
    (sequence,) = INSTANCES.read(tmp_path)
    figures = INSTANCES.figures(INSTANCES.score(sequence, truth(sequence)[:1] * 3))
    # hair: 6 true and 6 predicted instances. The static one is always right, the other has IoUs of
    # 1, 1/3 and 0, so 5 are right up to a threshold of 0.3, then 4.
    # clothes: 3 true and 3 predicted instances with IoUs of 1, 3/5 and 1/3, so 3 are right up to
    # 0.3, 2 up to 0.5, then 1.
    # Precision equals recall, so AP is the square of the share that is right.
    hair = {t: (5 / 6 if t <= 0.3 else 4 / 6) ** 2 for t in np.arange(1, 10) / 10}
    clothes = {
        t: (1 if t <= 0.3 else 2 / 3 if t <= 0.5 else 1 / 3) ** 2 for t in np.arange(1, 10) / 10
    }
    assert figures["AP^r@0.5"] == pytest.approx((hair[0.5] + clothes[0.5]) / 2)
    assert figures["AP^r"] == pytest.approx(np.mean([(hair[t] + clothes[t]) / 2 for t in hair]))


def test_numbers_of_instances_may_change_from_frame_to_frame(tmp_path):
    vip(tmp_path)
    folder = tmp_path / "VIP_Fine/Annotations/Instance_ids/videos10"
    labels = read_labels(folder / "000000000026.png")
    write_mask(folder / "000000000026.png", np.array([0, 7, 8, 9], np.uint8)[labels])
    (folder / "000000000026.txt").write_text("7 2 1\n8 5 1\n9 2 2\n")
    (sequence,) = INSTANCES.read(tmp_path)
    predicted = truth(sequence)
    predicted[1] = labels
    assert INSTANCES.figures(INSTANCES.score(sequence, predicted))["AP^r"] == 1


def test_predictions_are_written_as_the_official_evaluation_reads_them(tmp_path):
    vip(tmp_path)
    (sequence,) = INSTANCES.read(tmp_path)
    INSTANCES.write_predictions(sequence, truth(sequence), tmp_path / "out")
    with Image.open(tmp_path / "out/masks/videos10/000000000026.png") as image:
        assert (image.mode, image.size, image.getpalette()) == ("P", (64, 48), PALETTE[:768])
    assert (tmp_path / "out/masks/videos10/000000000026.txt").read_text() == "2 1\n5 1\n2 1\n"


BASE = "VIP_Fine"
CATEGORIES = f"{BASE}/Annotations/Category_ids/videos10"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda r: (r / CATEGORIES / "000000000026.png").unlink(),
            "frame 000000000026.jpg has no labels 000000000026.png",
        ),
        (
            lambda r: (r / BASE / "Images/videos10/000000000026.jpg").unlink(),
            "frame 000000000026 is missing, but",
        ),
        (
            lambda r: shutil.rmtree(r / BASE / "Images"),
            "Images: no such folder: expected VIP_Fine with Images",
        ),
        (
            lambda r: (r / BASE / "lists/val_videos.txt").write_text(""),
            "val_videos.txt: names no video",
        ),
        (
            lambda r: (r / BASE / "lists/val_videos.txt").unlink(),
            "val_videos.txt: no such file: expected VIP_Fine",
        ),
        (
            lambda r: write_mask(r / CATEGORIES / "000000000026.png", squares(width=60)),
            "000000000026.png is 60x48: expected 64x48",
        ),
        (
            lambda r: save(r / BASE / "Images/videos10/000000000026.jpg", squares(width=60)),
            "000000000026.jpg is 60x48: expected 64x48",
        ),
    ],
)
def test_each_defect_of_vip_is_reported(tmp_path, spoil, words):
    vip(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError) as error:
        for sequence in PARTS.read(tmp_path):
            list(PARTS.frames(sequence))
            PARTS.score(sequence, [squares()] * 3)
    assert words in str(error.value)


def test_first_labels_without_a_part_are_refused(tmp_path):
    vip(tmp_path)
    (sequence,) = PARTS.read(tmp_path)
    write_mask(tmp_path / CATEGORIES / "000000000001.png", squares())
    with pytest.raises(InputError, match=r"000000000001.png: holds no part: nothing to track"):
        PARTS.initial_labels(sequence)


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (
            "1 2 1\n2 5 1\n",
            "000000000001.txt: 3, which 000000000001.png holds, is not in the list: expected 1 to "
            "19",
        ),
        (
            "1 2 1\n2 5 1\n3 20 2\n",
            "000000000001.txt: 3, which 000000000001.png holds, is of class 20: expected 1 to 19",
        ),
        (
            "11 2 1\n12 5 1\n",
            "000000000001.txt: 1, which 000000000001.png holds, is not in the list",
        ),
    ],
)
def test_an_instance_of_an_unknown_class_is_refused(tmp_path, listed, words):
    vip(tmp_path)
    (tmp_path / "VIP_Fine/Annotations/Instance_ids/videos10/000000000001.txt").write_text(listed)
    (sequence,) = INSTANCES.read(tmp_path)
    for call in (
        lambda: INSTANCES.initial_labels(sequence),
        lambda: INSTANCES.score(sequence, truth(sequence)),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_a_missing_or_malformed_list_of_instances_is_refused(tmp_path):
    vip(tmp_path)
    (sequence,) = INSTANCES.read(tmp_path)
    path = tmp_path / "VIP_Fine/Annotations/Instance_ids/videos10/000000000051.txt"
    for spoil, words in (
        (lambda: path.write_text("hair\n"), "expected lines of an instance's number"),
        (path.unlink, "no such file"),
    ):
        spoil()
        with pytest.raises(InputError, match=words):
            INSTANCES.score(sequence, truth(sequence))
