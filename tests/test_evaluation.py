"""Facts about model/evaluation.py."""

from __future__ import annotations

import doctest
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from model import evaluation
from model.evaluation import (
    CALIBRATION_BINS,
    auc,
    by_slice,
    calibration_error,
    evaluate,
    log_loss,
    log_odds_shift,
    reliability,
)
from model.features import Float32


def drawn(n: int, seed: int = 0) -> tuple[Float32, Float32, Float32]:
    """Draw labels, scores with many ties, none of them 0 or 1, and weights; all [n]."""
    random = np.random.default_rng(seed)
    label, score, weight = random.integers(0, 2, n), random.integers(1, 9, n) / 9, random.random(n)
    return label.astype(np.float32), score.astype(np.float32), weight.astype(np.float32)


def test_the_examples_in_the_docstrings_hold() -> None:
    """Each example gives the output that stands below it."""
    failed, tried = doctest.testmod(evaluation)
    assert failed == 0
    assert tried > 0


def test_auc_is_the_share_of_pairs_in_order() -> None:
    """The area is that of counting every pair, ties half, weights multiplied."""
    label, score, weight = drawn(60)
    pairs = [(i, j) for i, j in itertools.product(range(60), repeat=2) if label[i] > label[j]]
    total = sum(weight[i] * weight[j] for i, j in pairs)
    right = sum(
        weight[i] * weight[j] * ((score[i] > score[j]) + (score[i] == score[j]) / 2) for i, j in pairs
    )
    assert auc(label, score, weight) == pytest.approx(right / total)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_without_a_pair_there_is_no_auc(label: float) -> None:
    """With one label alone nothing can be ordered."""
    assert math.isnan(auc(np.full(3, label, np.float32), np.array([0.1, 0.2, 0.3], np.float32)))


def test_log_loss_is_the_mean_surprise() -> None:
    """The loss is that of summing row by row, each by its weight."""
    label, score, weight = drawn(60)
    surprise = [-math.log(p if y else 1 - p) for y, p in zip(label, score.astype(float), strict=True)]
    expected = sum(w * s for w, s in zip(weight, surprise, strict=True)) / weight.sum()
    assert log_loss(label, score, weight) == pytest.approx(expected, rel=1e-5)


def test_a_certain_mistake_costs_no_more_than_16() -> None:
    """A score of 0 for what happened is a finite loss."""
    assert log_loss(np.ones(1, np.float32), np.zeros(1, np.float32)) == pytest.approx(16.1, abs=0.05)


def test_a_score_that_is_no_number_gives_no_loss() -> None:
    """NaN among the scores shows in the loss rather than being passed over."""
    assert math.isnan(log_loss(np.ones(2, np.float32), np.array([0.5, np.nan], np.float32)))


@pytest.mark.parametrize("measure", [auc, log_loss])
def test_a_weight_counts_rows(measure: Callable[..., float]) -> None:
    """A row of weight k is worth k equal rows, of weight 0 none, and without weights each is worth one."""
    label, score, _ = drawn(50)
    times = np.random.default_rng(1).integers(0, 4, 50)
    repeated = measure(np.repeat(label, times), np.repeat(score, times))
    assert measure(label, score, times.astype(np.float32)) == pytest.approx(repeated)


def users(n: int, of: int, seed: int = 0) -> NDArray[np.int64]:
    """Draw a user for each of ``n`` rows."""
    return np.random.default_rng(seed).integers(0, of, n)


def test_reliability_is_counted_bin_by_bin() -> None:
    """In each bin stand the weighted mean score and rate of its rows; an empty one has none."""
    label, score, weight = drawn(200)
    found = reliability(label, score, weight)
    for k in range(CALIBRATION_BINS):
        rows = (score >= k / CALIBRATION_BINS) & (score < (k + 1) / CALIBRATION_BINS)
        assert found.weight[k] == pytest.approx(weight[rows].sum() / weight.sum())
        if rows.any():
            assert found.score[k] == pytest.approx(np.average(score[rows], weights=weight[rows]))
            assert found.rate[k] == pytest.approx(np.average(label[rows], weights=weight[rows]))
        else:
            assert math.isnan(found.score[k])
            assert math.isnan(found.rate[k])


def test_a_score_of_1_has_a_bin() -> None:
    """The last bin ends with 1 included, and a certain score that comes true is calibrated."""
    assert calibration_error(np.ones(3, np.float32), np.ones(3, np.float32)) == 0


def test_the_calibration_error_is_what_scores_are_off_by() -> None:
    """Scores that are right leave little by chance, scores .2 too high leave .2."""
    random = np.random.default_rng(0)
    truth = random.uniform(0, 0.8, 20_000)
    label = (random.random(20_000) < truth).astype(np.float32)
    assert calibration_error(label, truth.astype(np.float32)) < 0.015
    assert calibration_error(label, (truth + 0.2).astype(np.float32)) == pytest.approx(0.2, abs=0.01)


def test_an_evaluation_agrees_with_its_measures() -> None:
    """Each value is what its own function gives, precision and recall what counting gives."""
    label, score, _ = drawn(300)
    found = evaluate(label, score, users(300, 40), 5 / 9, np.random.default_rng(0))
    called = score >= np.float32(5 / 9)
    right = label[called].sum()
    precision, recall = right / called.sum(), right / label.sum()
    expected = {
        "auc": auc(label, score),
        "log_loss": log_loss(label, score),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "base_rate": label.mean(),
    }
    assert {name: getattr(found, name).value for name in expected} == pytest.approx(expected, rel=1e-5)
    for name in (*expected, "ece"):
        assert getattr(found, name).low <= getattr(found, name).value <= getattr(found, name).high


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of 100 draws whose users differ, about 95 intervals hold the real rate; users matter, not rows."""
    held = alone = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        user = np.repeat(np.arange(100), 10)
        label = (random.random(1000) < np.repeat(random.beta(2, 2, 100), 10)).astype(np.float32)
        score = np.full(1000, 0.5, np.float32)
        for number, who in enumerate((user, np.arange(1000))):
            found = evaluate(label, score, who, 0.5, random).base_rate
            inside = found.low <= 0.5 <= found.high
            held, alone = held + (inside and number == 0), alone + (inside and number == 1)
    assert 88 <= held <= 99
    assert alone < 85


@pytest.mark.parametrize(("error", "least"), [(0.0, 80), (0.03, 85), (0.1, 85)])
def test_the_calibration_error_is_told_from_chance(error: float, least: int) -> None:
    """Of 100 draws of 1,500 rows, of 400 users, the interval holds the real error in most; the value is near it."""
    held, values = 0, []
    for seed in range(100):
        random = np.random.default_rng(seed)
        truth = random.beta(2, 3, 1500) * 0.85
        label = (random.random(1500) < truth).astype(np.float32)
        found = evaluate(label, (truth + error).astype(np.float32), users(1500, 400, seed), 0.5, random).ece
        held += found.low <= error <= found.high
        values.append(found.value)
    assert held >= least
    assert np.mean(values) == pytest.approx(error, abs=0.015)  # plainly found, calibrated scores' is 0.035


def test_few_users_give_numbers() -> None:
    """Of two users, a resample may have neither; the intervals are had from the others."""
    label, score, _ = drawn(200)
    found = evaluate(label, score, np.arange(200) % 2, 0.5, np.random.default_rng(0))
    for measure in (found.auc, found.log_loss, found.ece, found.base_rate):
        assert measure.low <= measure.value <= measure.high


def test_the_shift_of_the_log_odds_is_that_of_the_weights() -> None:
    """Positive rows of weight 5 have five times the odds; a row of weight 0 is none."""
    label = np.array([1, 0, 0, 1], np.float32)
    weight = np.array([5, 1, 1, 0], np.float32)
    assert log_odds_shift(label, weight) == pytest.approx(math.log(5))
    assert log_odds_shift(label, np.full(4, 3, np.float32)) == 0


def test_importance_is_no_shift_of_the_log_odds() -> None:
    """Rows that stand for more of the world to come move the level of scores itself, and what weights shift is over that."""
    label, importance = np.array([1, 0, 0, 0], np.float32), np.array([3, 1, 1, 1], np.float32)
    ones = np.ones(4, np.float32)
    assert log_odds_shift(label, ones, importance) == pytest.approx(0, abs=1e-12)
    assert log_odds_shift(label, np.array([5, 1, 1, 1], np.float32), importance) == pytest.approx(math.log(5))
    assert evaluation.fitted_rate(label, ones, importance) == pytest.approx(0.5)


def test_equal_generators_give_equal_intervals() -> None:
    """The resamples are the generator's alone."""
    label, score, _ = drawn(200)
    one, two = (evaluate(label, score, users(200, 30), 0.5, np.random.default_rng(7)) for _ in range(2))
    assert one == two


def test_what_cannot_be_measured_is_nan() -> None:
    """Without a positive call there is no precision, without a negative example no AUC; the rest stands."""
    label, score = np.array([1, 1, 1], np.float32), np.array([0.1, 0.2, 0.3], np.float32)
    found = evaluate(label, score, users(3, 3), 0.9, np.random.default_rng(0))
    assert math.isnan(found.auc.value)
    assert math.isnan(found.auc.low)
    assert math.isnan(found.precision.value)
    assert found.recall.value == 0
    assert found.log_loss.value == pytest.approx(log_loss(label, score))


def test_slices_are_evaluated_by_themselves() -> None:
    """Each value of the column that has enough rows and both labels is measured on its rows, the largest first."""
    label, score, _ = drawn(1000)
    column = np.array(["b"] * 400 + ["a"] * 300 + [None] * 150 + ["one label"] * 100 + ["few"] * 50, object)
    label[850:950] = 1
    user = users(1000, 50)
    found = by_slice(column, label, score, user, 0.5, np.random.default_rng(0))
    assert list(found) == ["b", "a", "missing"]
    assert found["a"].rows == 300
    rows = column == "a"
    assert found["a"].auc.value == pytest.approx(auc(label[rows], score[rows]))
