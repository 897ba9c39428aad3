import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from miniatures import jhmdb
from scipy.io import savemat

from corrflow import InputError
from corrflow.benchmarks.evaluation import evaluate
from corrflow.benchmarks.jhmdb import JOINTS, Jhmdb
from corrflow.propagation import PROTOCOLS

JHMDB = Jhmdb()
VIDEO = "wave/April_09_wave_u_nm_np1_ba_goo_0"


def located(xy_tk2):
    return [SimpleNamespace(xy=xy_k2, visible=~np.isnan(xy_k2[:, 0])) for xy_k2 in xy_tk2]


def test_the_test_videos_of_split_1_are_read_as_downloaded(tmp_path):
    joints_tk2 = jhmdb(tmp_path)
    (sequence,) = JHMDB.read(tmp_path)
    # the fifth frame has no joints
    assert (sequence.name, sequence.length) == (
        "wave-April_09_wave_u_nm_np1_ba_goo_0",
        4,
    )
    assert JHMDB.frame_names(sequence) == ["00001", "00002", "00003", "00004"]
    assert len(list(JHMDB.frames(sequence))) == 4
    given = JHMDB.initial_labels(sequence)[0]
    assert (given.dtype, given.shape) == (np.float32, (15, 2))
    np.testing.assert_allclose(given[:14], joints_tk2[0, :14])
    assert np.isnan(given[14]).all()  # outside the frame
    assert list(JHMDB.initial_labels(sequence)) == [0]


def test_perfect_joints_score_1_and_joints_not_given_are_ignored(tmp_path):
    joints_tk2 = jhmdb(tmp_path)
    (sequence,) = JHMDB.read(tmp_path)
    predicted = joints_tk2.copy()
    predicted[:, 14] = np.nan
    predicted[0] = 0  # the first frame is not scored
    scores = JHMDB.score(sequence, located(predicted))
    assert list(scores) == [f"{sequence.name}_{joint}" for joint in JOINTS[:14]]
    assert JHMDB.figures(scores) == {f"PCK@{alpha}": 1 for alpha in (0.1, 0.2, 0.3, 0.4, 0.5)}


def test_the_figures_of_static_joints_equal_those_computed_by_hand(tmp_path):
    joints_tk2 = jhmdb(tmp_path)
    (sequence,) = JHMDB.read(tmp_path)
    # the box's diagonal is 50, and 0.6 of it is 30, so the limits are 3, 6, 9, 12 and 15; the true
    # joints move away by 2.5, 5 and 7.5
    figures = JHMDB.figures(JHMDB.score(sequence, located(joints_tk2[:1].repeat(4, 0))))
    assert figures == pytest.approx(
        {"PCK@0.1": 1 / 3, "PCK@0.2": 2 / 3, "PCK@0.3": 1, "PCK@0.4": 1, "PCK@0.5": 1}
    )
    lost = joints_tk2.copy()
    lost[3, 0] = np.nan  # the neck is missed in one of three frames
    figures = JHMDB.figures(JHMDB.score(sequence, located(lost)))
    assert figures["PCK@0.5"] == pytest.approx((13 + 2 / 3) / 14)


def test_each_joint_has_the_same_weight_in_any_number_of_videos():
    # the neck is hit in 1 of 3 frames of two videos, the belly in all frames of one
    scores = {"a_neck": [0.0, 0.0], "b_neck": [1.0], "a_belly": [1.0, 1.0]}
    figures = JHMDB.figures(
        {
            name: {f"PCK@{alpha}": hits for alpha in (0.1, 0.2, 0.3, 0.4, 0.5)}
            for name, hits in scores.items()
        }
    )
    assert figures["PCK@0.1"] == pytest.approx((1 / 3 + 1) / 2)


def test_a_video_of_one_frame_has_no_score(tmp_path):
    joints_tk2 = jhmdb(tmp_path)
    savemat(
        tmp_path / f"joint_positions/{VIDEO}/joint_positions.mat", {"pos_img": joints_tk2[0].T + 1}
    )
    (sequence,) = JHMDB.read(tmp_path)
    assert sequence.length == 1
    scores = JHMDB.score(sequence, located(joints_tk2[:1]))
    assert all(np.isnan(value) for value in JHMDB.figures(scores).values())


def test_predicted_joints_are_written_as_plain_json(tmp_path):
    joints_tk2 = jhmdb(tmp_path)
    (sequence,) = JHMDB.read(tmp_path)
    joints_tk2[1, 14] = np.nan
    JHMDB.write_predictions(sequence, located(joints_tk2), tmp_path / "out")
    stored = json.loads((tmp_path / f"out/points/{sequence.name}.json").read_text())
    assert [frame["frame"] for frame in stored] == ["00001", "00002", "00003", "00004"]
    assert (stored[1]["xy"][0], stored[1]["xy"][14], stored[1]["visible"][14]) == (
        [7.5, 3.0],
        [None, None],
        False,
    )


def test_videos_of_the_same_name_in_two_classes_are_distinguished(tmp_path):
    jhmdb(tmp_path)
    for folder in ("Rename_Images", "joint_positions"):
        shutil.copytree(tmp_path / folder / "wave", tmp_path / folder / "throw")
    shutil.copy(tmp_path / "splits/wave_test_split1.txt", tmp_path / "splits/throw_test_split1.txt")
    video = VIDEO.partition("/")[2]
    result = evaluate("jhmdb", tmp_path, None, PROTOCOLS["identity"], tmp_path / "out", "identity")
    assert list(result.sequences) == [f"throw-{video}", f"wave-{video}"]
    assert all((tmp_path / f"out/points/{name}.json").exists() for name in result.sequences)
    assert result.overall["PCK@0.1"] == pytest.approx(1 / 3)


def test_a_person_outside_the_first_frame_is_refused(tmp_path):
    joints_tk2 = jhmdb(tmp_path)
    savemat(
        tmp_path / f"joint_positions/{VIDEO}/joint_positions.mat",
        {"pos_img": joints_tk2.transpose(2, 1, 0) + 100},
    )
    (sequence,) = JHMDB.read(tmp_path)
    with pytest.raises(
        InputError, match=r"00001.png: no point is visible in the picture: nothing to track"
    ):
        JHMDB.initial_labels(sequence)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda r: (r / f"joint_positions/{VIDEO}/joint_positions.mat").unlink(),
            "joint_positions.mat: no such file",
        ),
        (
            lambda r: (r / f"joint_positions/{VIDEO}/joint_positions.mat").write_bytes(b"no"),
            "not a MATLAB file with pos_img",
        ),
        (
            lambda r: (r / f"Rename_Images/{VIDEO}/00003.png").unlink(),
            "frame 3 is missing after 00002.png",
        ),
        (
            lambda r: (r / "splits/wave_test_split1.txt").write_text("a.avi\n"),
            "wave_test_split1.txt: expected lines of a video's file and",
        ),
        (
            lambda r: (r / "splits/wave_test_split1.txt").write_text("a.avi 1\n"),
            "splits: no CLASS_test_split1.txt with a test video",
        ),
        (
            lambda r: (r / "splits/wave_test_split1.txt").write_text("gone.avi 2\n"),
            "Rename_Images/wave/gone: no such folder",
        ),
        (
            lambda r: (r / "splits").rename(r / "elsewhere"),
            "splits: no such folder: expected JHMDB with splits/",
        ),
        (
            lambda r: savemat(
                r / f"joint_positions/{VIDEO}/joint_positions.mat",
                {"pos_img": np.zeros((2, 14, 3))},
            ),
            "pos_img is [2, 14, 3]: expected [2, 15, frames]",
        ),
        (
            lambda r: savemat(
                r / f"joint_positions/{VIDEO}/joint_positions.mat",
                {"pos_img": np.zeros((2, 15, 9))},
            ),
            "5 frames and joints of 9",
        ),
    ],
)
def test_each_defect_of_jhmdb_is_reported(tmp_path, spoil, words):
    jhmdb(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError) as error:
        JHMDB.read(tmp_path)
    assert words in str(error.value)
