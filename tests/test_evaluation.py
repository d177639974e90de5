"""Facts about model/evaluation.py."""

from __future__ import annotations

import doctest
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from model import evaluation
from model.evaluation import auc, log_loss
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
