import os
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from miniatures import tapvid

from corrflow import InputError
from corrflow.benchmarks.tapvid import TapVid

TAPVID = TapVid()


def located(xy_nt2, visible_nt):
    return [
        SimpleNamespace(xy=xy, visible=visible)
        for xy, visible in zip(xy_nt2.swapaxes(0, 1), visible_nt.T, strict=True)
    ]


def static_points(sequence):
    """Predict that each point stays where it was given and is always visible."""
    xy_nt2 = np.full(sequence.xy_nt2.shape, np.nan)
    for frame, xy_n2 in TAPVID.initial_labels(sequence).items():
        new = ~np.isnan(xy_n2[:, 0])
        xy_nt2[new, frame:] = xy_n2[new, None]
    return located(xy_nt2, ~np.isnan(xy_nt2[..., 0]))


def test_the_pickle_is_read_as_downloaded(tmp_path):
    path = tapvid(tmp_path / "tapvid_davis.pkl")
    goat, still = TAPVID.read(tmp_path)
    assert [s.name for s in TAPVID.read(path)] == ["goat", "still"]
    assert (goat.length, still.length) == (5, 1)
    assert {frame.shape for frame in TAPVID.frames(goat)} == {(256, 256, 3)}
    given = TAPVID.initial_labels(goat)
    assert list(given) == [0, 2]
    # positions are from the corner in the pickle, but from the centre of the first pixel here; the
    # point that is never visible is left out
    np.testing.assert_allclose(given[0], [(63.5, 63.5), (99.5, 99.5), (np.nan, np.nan)], atol=1e-4)
    np.testing.assert_allclose(
        given[2], [(np.nan, np.nan), (np.nan, np.nan), (29.5, 199.5)], atol=1e-4
    )


def test_perfect_tracks_score_1(tmp_path):
    tapvid(tmp_path / "tapvid_davis.pkl")
    goat, _ = TAPVID.read(tmp_path)
    scores = TAPVID.score(goat, located(goat.xy_nt2, goat.visible_nt))
    assert set(TAPVID.figures(scores).values()) == {1.0}


def test_the_figures_of_static_points_equal_those_computed_by_hand(tmp_path):
    tapvid(tmp_path / "tapvid_davis.pkl")
    goat, _ = TAPVID.read(tmp_path)
    figures = TAPVID.figures(TAPVID.score(goat, static_points(goat)))
    # scored frames: point 0 in 1 to 4, hidden in 4; point 1 in 1 to 4, at distances of 3, 6, 9 and
    # 12; point 2 in 3 and 4. All are predicted to be visible
    assert figures["occlusion_accuracy"] == pytest.approx(9 / 10)
    # nine are visible: three of point 0 and two of point 2, all hit; of point 1 none is within 1
    # and 2, one within 4, two within 8, four within 16
    within = {1: 5 / 9, 2: 5 / 9, 4: 6 / 9, 8: 7 / 9, 16: 9 / 9}
    # false positives: the hidden one, and those of point 1 that are too far away
    jaccard = {1: 5 / (9 + 5), 2: 5 / (9 + 5), 4: 6 / (9 + 4), 8: 7 / (9 + 3), 16: 9 / (9 + 1)}
    assert figures["average_pts_within_thresh"] == pytest.approx(np.mean(list(within.values())))
    assert figures["average_jaccard"] == pytest.approx(np.mean(list(jaccard.values())))
    assert figures["pts_within_4"] == pytest.approx(within[4])
    assert figures["jaccard_8"] == pytest.approx(jaccard[8])


def test_each_video_has_the_same_weight_except_those_of_one_frame(tmp_path):
    tapvid(tmp_path / "tapvid_davis.pkl")
    goat, still = TAPVID.read(tmp_path)
    scores = TAPVID.score(goat, static_points(goat))
    alone = TAPVID.score(still, static_points(still))
    assert all(np.isnan(value) for value in TAPVID.figures(alone).values())
    assert TAPVID.figures(scores | alone) == TAPVID.figures(scores)
    perfect = {
        name.replace("goat", "sheep"): score
        for name, score in TAPVID.score(goat, located(goat.xy_nt2, goat.visible_nt)).items()
    }
    assert TAPVID.figures(scores | perfect)["occlusion_accuracy"] == pytest.approx((9 / 10 + 1) / 2)


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def of_goat(video=(2, 8, 8, 3), points=(1, 2, 2), occluded=(1, 2), at=0.5, name="goat"):
    """A pickle of one video with arrays of these shapes."""
    return pickle.dumps(
        {
            name: {
                "video": np.zeros(video, np.uint8),
                "points": np.full(points, at),
                "occluded": np.zeros(occluded, bool),
            }
        }
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            pickle.dumps({"goat": Harmful()}),
            r"not TAP-Vid's pickle of arrays \(it holds posix.system\)",
        ),
        (b"no pickle", "not TAP-Vid's pickle of arrays"),
        (pickle.dumps([1]), "list: expected a dictionary of videos"),
        (
            pickle.dumps({"goat": {}}),
            "video goat: expected a dictionary of video, points and occluded",
        ),
        (
            of_goat(points=(1, 3, 2), occluded=(1, 3)),
            r"video goat: points \[1, 3, 2\], occluded \[1, 3\]: expected \[N, 2, 2\] and \[N, 2\]",
        ),
        (
            of_goat(video=(2, 8, 8, 4)),
            r"video goat: video uint8 \[2, 8, 8, 4\]: expected uint8 \[T, H, W, 3\]",
        ),
        (
            of_goat(video=(0, 8, 8, 3)),
            r"video goat: video uint8 \[0, 8, 8, 3\]: expected uint8 \[T, H, W, 3\]",
        ),
        (of_goat(points=(2,), occluded=()), r"video goat: points \[2\], occluded \[\]: expected"),
        (
            of_goat(points=(1, 2, 1, 2), occluded=(1, 2, 1)),
            r"video goat: points \[1, 2, 1, 2\], occluded \[1, 2, 1\]: expected",
        ),
        (of_goat(at=np.nan), "video goat: a visible point is at NaN or infinity"),
        (
            of_goat(at=(0.5, 130)),
            r"video goat: a visible point is at 0.5, 130: expected x and y in \[0, 1\], of width",
        ),
        (of_goat(at=-0.6), "video goat: a visible point is at -0.6, -0.6: expected"),
        (of_goat(name="../../goat"), r"sequence '../../goat': expected a file name"),
        (of_goat(name=7), "sequence 7: expected a file name"),
        (
            pickle.dumps(
                {
                    "goat": {
                        "video": np.zeros((2, 8, 8, 3), np.uint8),
                        "points": [["a"]],
                        "occluded": [[1], [2, 3]],
                    }
                }
            ),
            "video goat: expected a dict",
        ),
        (
            pickle.dumps(
                {
                    "goat": {
                        "video": np.zeros((2, 8, 8, 3), np.uint8),
                        "points": [[["a"] * 2] * 2],
                        "occluded": [[0, 0]],
                    }
                }
            ),
            "video goat: points <U1, occluded int64: expected numbers",
        ),
        (
            pickle.dumps(
                {
                    "goat": {
                        "video": np.zeros((2, 8, 8, 3), np.uint8),
                        "points": np.zeros((1, 2, 2)),
                        "occluded": np.ones((1, 2)),
                    }
                }
            ),
            "video goat: no point is ever visible",
        ),
    ],
)
def test_defects_of_a_pickle_are_reported_and_code_in_it_does_not_run(
    tmp_path, monkeypatch, content, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tapvid_davis.pkl").write_bytes(content)
    with pytest.raises(InputError, match=words):
        TAPVID.read(tmp_path)
    assert not (tmp_path / "harmed").exists()


def test_visible_points_slightly_outside_the_frame_are_read(tmp_path):
    (tmp_path / "tapvid_davis.pkl").write_bytes(of_goat(at=(-0.1, 1.1)))
    (goat,) = TAPVID.read(tmp_path)
    np.testing.assert_allclose(goat.xy_nt2[0, 0], (-26.1, 281.1))


def test_a_folder_without_the_pickle_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"tapvid_davis.pkl: no such file: expected tapvid_davis.pkl of TAP-Vid"
    ):
        TAPVID.read(tmp_path)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_any_protocol_is_read(tmp_path, protocol):
    path = tapvid(tmp_path / "tapvid_davis.pkl")
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()), protocol))
    assert len(TAPVID.read(tmp_path)) == 2
