"""Facts about model/prior.py."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.evaluation import auc, log_loss
from model.prior import corrected, fitted

BEFORE, NOW = 0.3, 0.6


def shifted(n: int, share: float, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Labels [n] of which ``share`` are 1, and scores [n] that are calibrated where :data:`BEFORE` of them are.

    Given the label, x is normal about 1 or -1: the log-odds are 2 x, and those of the share.
    """
    random = np.random.default_rng(seed)
    label = (random.random(n) < share).astype(np.float32)
    x = random.normal(2 * label - 1)
    score = 1 / (1 + (1 - BEFORE) / BEFORE * np.exp(-2 * x))
    return label, score.astype(np.float32)


def test_a_known_shift_is_recovered_without_labels() -> None:
    """The share that 20 000 scores tell is the true one to the third digit or so, and lies in its interval."""
    _, score = shifted(20_000, NOW)
    found = fitted(score, BEFORE)
    assert found.value == pytest.approx(NOW, abs=0.01)
    assert found.low < NOW < found.high
    assert found.high - found.low < 0.03


def test_intervals_hold_the_share_as_often_as_they_say() -> None:
    """Of 200 intervals from 300 scores about 95 % hold the true share, without a shift and with one."""
    for share in (BEFORE, NOW, 0.05):
        found = [fitted(shifted(300, share, seed)[1], BEFORE) for seed in range(200)]
        held = sum(each.low <= share <= each.high for each in found)
        assert 180 <= held <= 199


def test_the_estimate_is_where_em_ends() -> None:
    """The estimate is a fixed point of the EM of Saerens et al.: the mean of the scores corrected to it."""
    _, score = shifted(5000, NOW)
    value = fitted(score.astype(np.float64), BEFORE).value
    assert corrected(score.astype(np.float64), BEFORE, value).mean() == pytest.approx(value, abs=1e-9)


def test_a_correction_is_worth_what_labels_would_be() -> None:
    """After a label shift of .30 the correction, from scores alone, comes near to the true law and leaves the order."""
    _, seen = shifted(2000, NOW, seed=1)
    label, score = shifted(20_000, NOW, seed=2)
    better = corrected(score, BEFORE, fitted(seen, BEFORE).value)
    best = corrected(score, BEFORE, NOW)
    assert log_loss(label, better) < log_loss(label, score) - 0.05
    assert log_loss(label, better) == pytest.approx(log_loss(label, best), abs=0.002)
    assert auc(label, better) == pytest.approx(auc(label, score), abs=1e-6)


def test_without_a_shift_there_is_little_to_correct() -> None:
    """Where nothing has changed, the interval holds the old share, and the correction costs nothing to speak of."""
    label, score = shifted(5000, BEFORE)
    found = fitted(score, BEFORE)
    assert found.low < BEFORE < found.high
    again = corrected(score, BEFORE, found.value)
    assert log_loss(label, again) == pytest.approx(log_loss(label, score), abs=0.001)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_shares_change_no_bit(dtype: type[np.float32]) -> None:
    """With the share that was, every score comes back as it is, in an array of its own."""
    score = np.random.default_rng(0).random(1000).astype(dtype)
    same = corrected(score, 0.37, 0.37)
    assert same is not score
    assert same.dtype == dtype
    np.testing.assert_array_equal(same, score)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("before", "now"), [(0.5, 0.1), (0.02, 0.9), (0.999, 0.001)])
def test_the_order_never_turns_round(dtype: type[np.float32], before: float, now: float) -> None:
    """Of neighbouring scores, down to one bit apart, the higher one never becomes the lower one."""
    random = np.random.default_rng(0)
    near = [np.nextafter(each, dtype(1), dtype=dtype) for each in (dtype(0), dtype(0.1), dtype(0.9))]
    score = np.sort(np.concatenate([random.random(1000), random.random(1000) ** 9, near]).astype(dtype))
    score = np.unique(np.concatenate([score, np.nextafter(score, dtype(1))]))
    assert (np.diff(corrected(score, before, now)) >= 0).all()


def test_there_and_back_is_where_it_began() -> None:
    """A correction is undone by the opposite one, up to rounding, and two in a row are one."""
    score = np.linspace(0, 1, 1001)
    there = corrected(score, 0.2, 0.7)
    np.testing.assert_allclose(corrected(there, 0.7, 0.2), score, atol=1e-12)
    np.testing.assert_allclose(corrected(there, 0.7, 0.4), corrected(score, 0.2, 0.4), atol=1e-12)


def test_odds_are_multiplied() -> None:
    """Even odds become those of the new share over those of the old one."""
    assert corrected(np.array([0.5]), 0.2, 0.5)[0] == pytest.approx(0.8)


def test_certain_scores_stay_certain() -> None:
    """0 stays 0, 1 stays 1 and what is not a number stays so, without a warning."""
    score = np.array([0, 1, np.nan], np.float32)
    np.testing.assert_array_equal(corrected(score, 0.9, 0.01), score)
    assert len(corrected(score[:0], 0.9, 0.01)) == 0


@pytest.mark.parametrize(("before", "now", "what"), [(0.0, 0.5, "before"), (0.5, 1.0, "now")])
def test_a_share_of_none_or_all_is_refused(before: float, now: float, what: str) -> None:
    """A share at an end would turn every score into 0 or 1, so it is an error that names the argument."""
    with pytest.raises(ValueError, match=f"`{what}` is a share between 0 and 1, got"):
        corrected(np.array([0.5]), before, now)


def test_certain_scores_count_as_labels() -> None:
    """Scores of 0 and 1 alone give their share, whatever it was before; of one kind alone, the end."""
    assert fitted(np.array([0.0] * 3 + [1.0]), 0.9).value == pytest.approx(0.25, abs=1e-12)
    nothing, everything = fitted(np.zeros(50), 0.5), fitted(np.ones(50), 0.5)
    assert (nothing.value, nothing.low) == (0, 0)
    assert nothing.high == pytest.approx(1 - np.exp(-1.9207 / 50), abs=1e-5)  # 50 log(1 - share) = -1.9207
    assert (everything.value, everything.high) == (1, 1)


def test_a_certain_score_keeps_the_share_off_the_end() -> None:
    """One score of 1 among many low ones leaves an estimate above 0, and an interval that leaves out 0."""
    found = fitted(np.array([0.001] * 100 + [1.0]), 0.5)
    assert 0 < found.low < found.value < 0.05


@pytest.mark.parametrize("score", [np.empty(0, np.float32), np.full(100, 0.2, np.float32)])
def test_scores_that_say_nothing_leave_the_share_as_it_was(score: NDArray[np.float32]) -> None:
    """No scores, or scores that are the old share throughout, give it back with all from 0 to 1 as the interval."""
    value, low, high = fitted(score, 0.2)
    assert (value, low, high) == (0.2, 0, 1)


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.5])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    """A score outside 0 to 1, or none at all, is an error that says what came."""
    with pytest.raises(ValueError, match=f"scores are probabilities, got {wrong}"):
        fitted(np.array([0.5, wrong]), 0.5)
