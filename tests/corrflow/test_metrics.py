import csv

import numpy as np
import pytest
from conftest import DATA, SHARED

from corrflow import InputError
from corrflow.metrics import (
    bootstrap_mean,
    boundary_accuracy,
    boundary_map,
    mean,
    mean_over,
    region_similarity,
    summarise,
)

FIXTURE = np.load(DATA / "e_metrics.npz")


@pytest.mark.parametrize(
    "index", range(len(FIXTURE["names"])), ids=lambda i: str(FIXTURE["names"][i])
)
def test_metrics_equal_the_official_ones(index):
    name = FIXTURE["names"][index]
    height, width = FIXTURE[f"shape/{name}"]
    pred, true = (
        np.unpackbits(FIXTURE[f"{side}/{name}"])[: height * width].reshape(height, width)
        for side in ("pred", "gt")
    )
    assert region_similarity(pred, true) == pytest.approx(FIXTURE["J_official"][index], abs=1e-12)
    assert boundary_accuracy(pred, true) == pytest.approx(FIXTURE["F_official"][index], abs=1e-12)


def test_a_worked_example_of_region_similarity():
    pred, true = np.zeros((4, 4)), np.zeros((4, 4))
    pred[0, :3], true[0, 1:] = 1, 1  # two of four pixels in common
    assert region_similarity(pred, true) == 0.5


def test_a_worked_example_of_the_boundary_map():
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    expected = np.array([[c == "#" for c in row] for row in ["###.", "#.#.", "###.", "...."]])
    np.testing.assert_array_equal(boundary_map(mask), expected)


def test_a_boundary_is_matched_within_the_tolerance_and_not_beyond():
    true, pred = np.zeros((100, 100)), np.zeros((100, 100))
    true[:, :50], pred[:, :53] = 1, 1
    assert boundary_accuracy(pred, true, tolerance=3) == 1.0
    assert boundary_accuracy(pred, true, tolerance=2) == 0.0


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(InputError, match=r"\[3, 4\] and \[4, 4\]"):
        region_similarity(np.ones((3, 4)), np.ones((4, 4)))


def test_decay_is_the_mean_of_the_first_quarter_minus_that_of_the_last():
    mean, recall, decay = summarise([1.0, 1.0, 0.9, 0.6, 0.5, 0.5, 0.1, 0.0, 0.0])
    assert (mean, recall) == (pytest.approx(4.6 / 9), pytest.approx(4 / 9))
    assert decay == pytest.approx(np.mean([1.0, 1.0, 0.9]) - np.mean([0.1, 0.0, 0.0]))


@pytest.mark.skipif(
    not (SHARED / "data/davis16-dev").exists(),
    reason="the DAVIS development sequences are not here",
)
def test_the_identity_baseline_has_the_expected_figures(tmp_path):
    from evaluating import evaluate_job

    from corrflow.benchmarks.davis import statistics
    from launch.configs.evaluate import EvalJob

    result = evaluate_job(
        EvalJob("davis2016", SHARED / "data/davis16-dev", tmp_path, protocol="identity")
    )
    with (SHARED / "oracle/identity_baseline_davis16.csv").open() as file:
        expected = {row["sequence"]: row for row in csv.DictReader(file)}
    assert len(result.scores) == 5
    for name, score in result.scores.items():
        for kind, found in zip("JF", statistics(score), strict=True):
            for column, value in found._asdict().items():
                assert value == pytest.approx(
                    float(expected[name][f"{kind}_{column}"]), abs=1e-4
                ), (name, kind, column)


def test_means_ignore_nan():
    nan = np.nan
    np.testing.assert_array_equal(mean_over([[1.0, nan, nan], [3.0, 5.0, nan]]), [2, 5, nan])
    assert mean([nan, 1.0, 2.0]) == 1.5
    assert np.isnan([mean([]), mean([nan])]).all()


def test_the_bootstrap_interval_is_close_to_the_normal_approximation():
    values = np.random.default_rng(1).normal(0.3, 0.1, 40)
    interval = bootstrap_mean(values)
    assert interval.mean == pytest.approx(values.mean())
    # for this many values, the normal approximation is close
    half = 1.96 * values.std() / np.sqrt(len(values))
    bounds = pytest.approx((values.mean() - half, values.mean() + half), abs=0.003)
    assert (interval.low, interval.high) == bounds
    assert interval.excludes_zero
    assert not bootstrap_mean(values - 0.3).excludes_zero
    assert bootstrap_mean([*values, np.nan]) == interval
    alone = bootstrap_mean([0.5, np.nan])
    assert alone.mean == 0.5
    assert np.isnan([alone.low, alone.high]).all()
    assert not alone.excludes_zero
