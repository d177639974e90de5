"""Evaluation: how good scores are, once the labels are known. Pure functions on arrays, without TensorFlow.

Called by :mod:`model.training`, on the validation rows, and by whoever compares two models on the same examples. A score
is the probability of the outcome, so every decision counts alike here, whatever weight it was fitted with, as online
(``stream/quality.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.features import Float32

Float64 = NDArray[np.float64]

LEAST = 1e-7  # probability given to what happened, as far as the log-loss goes: one row costs at most 16
CALIBRATION_BINS = 20  # of the score, of equal width
RESAMPLES = 200  # of the users, for the intervals
LEVEL = 0.95  # of the intervals
SLICE_ROWS = 100  # a smaller slice says nothing
MISSING = "missing"  # the slice of the rows without a value


class Measure(NamedTuple):
    """A figure and its 95 % interval; ``low`` and ``high`` are NaN where none could be had."""

    value: float
    low: float
    high: float


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """How good scores are on ``rows`` examples; ``base_rate`` is their share of positive ones.

    ``ece`` is :func:`calibration_error` less what chance adds to it; precision, recall and F1 are
    those of calling a score from the threshold up positive.
    """

    rows: int
    auc: Measure
    log_loss: Measure
    ece: Measure
    precision: Measure
    recall: Measure
    f1: Measure
    base_rate: Measure


class Reliability(NamedTuple):
    """What was scored and what came, in bins of the score: all [BINS], NaN in an empty one; ``weight`` sums to 1."""

    score: Float64
    rate: Float64
    weight: Float64


def log_loss(label: Float32, score: Float32, weight: Float32 | None = None) -> float:
    """The weighted mean of -log of the probability that ``score`` gave to what happened; lower is better.

    ``label`` [n] is 0 or 1, ``score`` [n] the probability of 1, ``weight`` [n] how much each row counts: None for
    equally, else finite, from 0 and not 0 throughout. A score that is not a number makes the loss none, too.

    >>> round(log_loss(np.array([1, 0], np.float32), np.array([0.8, 0.5], np.float32)), 3)
    0.458
    """
    return float(np.average(surprise(label, score), weights=weight))


def auc(label: Float32, score: Float32, weight: Float32 | None = None) -> float:
    """The weighted share of pairs of a positive and a negative that ``score`` orders rightly; a tie counts half.

    Arguments as for :func:`log_loss`. 1 is perfect, 0.5 is chance; NaN when there is no pair, one label being absent.
    That is the area under the ROC curve (Hanley and McNeil 1982).

    >>> auc(np.array([1, 0, 0], np.float32), np.array([0.5, 0.5, 0.1], np.float32))
    0.75
    """
    counts = np.ones(len(label)) if weight is None else weight.astype(np.float64)
    _, rank = np.unique(score, return_inverse=True)
    positive = np.bincount(rank, counts * label).astype(np.float64)  # [distinct scores]
    negative = np.bincount(rank, counts * (1 - label)).astype(np.float64)
    return _ordered(positive, negative)


def reliability(label: Float32, score: Float32, weight: Float32 | None = None) -> Reliability:
    """Mean score and rate of positives in :data:`CALIBRATION_BINS` bins; arguments as for :func:`log_loss`."""
    counts = np.ones(len(label)) if weight is None else weight.astype(np.float64)
    bins = _bins(score)
    mass, scored, happened = (
        np.bincount(bins, counts * x, CALIBRATION_BINS) for x in (np.ones(len(label)), score, label)
    )
    with np.errstate(invalid="ignore"):
        return Reliability(scored / mass, happened / mass, mass / mass.sum())


def calibration_error(label: Float32, score: Float32, weight: Float32 | None = None) -> float:
    """The mean distance of score and rate over the bins of :func:`reliability`, each by its weight; 0 is perfect.

    It is the expected calibration error (Naeini, Cooper and Hauskrecht 2015) as it is found, so few rows leave some by
    chance alone; :func:`evaluate` takes that off.

    >>> round(calibration_error(np.array([1, 0], np.float32), np.array([0.9, 0.2], np.float32)), 3)
    0.15
    """
    found = reliability(label, score, weight)
    return float(np.nansum(np.abs(found.score - found.rate) * found.weight))


def evaluate(
    label: Float32,
    score: Float32,
    user: NDArray[np.int64],
    threshold: float,
    rng: np.random.Generator,
) -> Evaluation:
    """Measure ``score`` [n] on examples of ``user`` [n]; the first two arguments as for :func:`log_loss`.

    The intervals are percentiles over :data:`RESAMPLES` resamples of whole users, since one user's examples are alike:
    each user counts Poisson(1) times, which is the bootstrap for many (Chamandy et al. 2012). The calibration error is
    a distance, to which chance only adds, so it and its interval come from :func:`_calibration` instead.
    """
    _, codes = np.unique(user, return_inverse=True)
    times = rng.poisson(1.0, (RESAMPLES, int(codes.max()) + 1))  # [resamples, users]
    times = times[times.any(axis=1)]  # of few users, none may be drawn
    order = np.argsort(score, kind="stable")
    rows, codes = _Rows(label[order], score[order], threshold), codes[order]
    values, gaps = rows.measures(np.ones(len(label)))
    resampled = [rows.measures(each[codes].astype(np.float64)) for each in times]
    ends = map(_percentiles, np.array([each for each, _ in resampled]).T)
    found = {name: Measure(value, *end) for name, value, end in zip(_NAMES, values, ends, strict=True)}
    ece = _calibration(gaps, np.array([each for _, each in resampled]))
    return Evaluation(rows=len(label), ece=ece, **found)


def by_slice(
    column: Sequence[str | None] | NDArray[np.object_],
    label: Float32,
    score: Float32,
    user: NDArray[np.int64],
    threshold: float,
    rng: np.random.Generator,
) -> dict[str, Evaluation]:
    """:func:`evaluate` on the rows of each value of ``column`` [n], the largest slice first; None is :data:`MISSING`.

    Slices of fewer than :data:`SLICE_ROWS` rows, or of one label alone, are left out.
    """
    named = np.array([MISSING if value is None else value for value in column], dtype=np.str_)
    names, counts = np.unique(named, return_counts=True)
    found = {}
    for name in names[np.argsort(-counts, kind="stable")]:
        rows = named == name
        if rows.sum() >= SLICE_ROWS and len(np.unique(label[rows])) == 2:
            found[str(name)] = evaluate(label[rows], score[rows], user[rows], threshold, rng)
    return found


def fitted_rate(label: Float32, weight: Float32, importance: Float32 | None = None) -> float:
    """The share of positive ones among the rows that have any ``weight`` [n], each by its ``importance`` [n]: the level of scores.

    Without importance each counts once.
    """
    counted = weight > 0
    if importance is None:
        return float(label[counted].mean(dtype=np.float64))
    return float(np.average(label[counted], weights=importance[counted].astype(np.float64)))


def log_odds_shift(label: Float32, weight: Float32, importance: Float32 | None = None) -> float:
    """By how much the log-odds of the weighted share of positive ones exceed those of :func:`fitted_rate`.

    A model that is fitted to weighted rows learns log-odds that are too high by that (King and Zeng 2001, section 4.1).
    """
    counts = weight.astype(np.float64) if importance is None else weight.astype(np.float64) * importance
    weighted, rate = np.average(label, weights=counts), fitted_rate(label, weight, importance)
    return float(np.log(weighted / (1 - weighted)) - np.log(rate / (1 - rate)))


_NAMES = tuple(name for name in Evaluation.__struct_fields__ if name not in {"rows", "ece"})


class _Rows:
    """Rows in order of score, with all that does not change with their weights."""

    def __init__(self, label: Float32, score: Float32, threshold: float) -> None:
        self._label, self._score = label.astype(np.float64), score.astype(np.float64)
        self._surprise = surprise(label, score)
        self._bins = np.searchsorted(_bins(score), np.arange(CALIBRATION_BINS + 1))  # where each bin begins
        self._ties = np.flatnonzero(np.diff(score, prepend=-1.0))  # where each distinct score begins
        self._called = int(np.searchsorted(score, threshold))  # the first row called positive

    def measures(self, weight: Float64) -> tuple[tuple[float, ...], Float64]:
        """The measures in the order of :data:`_NAMES`, with ``weight`` [n] in the same order of score.

        And the gaps [bins]: how far the rate lies above the score in each bin, times its share of the weight.
        """
        positive = weight * self._label
        total, hits = weight.sum(), positive.sum()
        tied = np.add.reduceat(positive, self._ties), np.add.reduceat(weight, self._ties)
        right, called = positive[self._called :].sum(), weight[self._called :].sum()
        measures = (
            _ordered(tied[0], tied[1] - tied[0]),
            float((weight * self._surprise).sum() / total),
            float(right / called) if called else np.nan,
            float(right / hits) if hits else np.nan,
            float(2 * right / (called + hits)) if called + hits else np.nan,
            float(hits / total),
        )
        return measures, _sums(weight * (self._label - self._score), self._bins) / total


def _calibration(gaps: Float64, resampled: Float64) -> Measure:
    """The calibration error of ``gaps`` [bins] without what chance adds; ``resampled`` [resamples, bins] tell how much.

    Chance moves each gap as resampling does. So for errors from 0 on, in the proportions of the gaps that were found,
    we know what would be found, and that may be told from what was: the value is the error that would have it as its
    median, the interval holds those that would have it within their middle 95 %.
    """
    found, noise = np.abs(gaps).sum(), resampled - gaps
    if not found:
        return Measure(0.0, 0.0, 0.0)
    errors = np.linspace(0, found + 3 * np.abs(noise).sum(axis=1).mean(), 100)
    sums = np.abs(errors[:, None, None] / found * gaps + noise).sum(axis=2)  # [errors, resamples]
    ends = np.quantile(sums, [(1 + LEVEL) / 2, 0.5, (1 - LEVEL) / 2], axis=1)
    low, value, high = (float(np.interp(found, each, errors)) for each in np.maximum.accumulate(ends, axis=1))
    return Measure(value, low, high)


def surprise(label: Float32, score: Float32) -> Float64:
    """What each row adds to :func:`log_loss`, [n]; arguments as there."""
    p = np.clip(np.where(label == 1, score, 1 - score).astype(np.float64), LEAST, 1)
    lost: Float64 = -np.log(p)
    return lost


def _ordered(positive: Float64, negative: Float64) -> float:
    """The share of ordered pairs of ``positive`` and ``negative`` weights, a distinct score each, in its order."""
    below = np.cumsum(negative) - negative / 2
    pairs = positive.sum() * negative.sum()
    return float((positive * below).sum() / pairs) if pairs else float("nan")


def _bins(score: Float32) -> NDArray[np.int64]:
    bins: NDArray[np.int64] = np.minimum(
        (score.astype(np.float64) * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1
    )
    return bins


def _sums(values: Float64, begins: NDArray[np.int64]) -> Float64:
    """The sum of ``values`` in each run of rows; ``begins`` has one more entry, the end."""
    running = np.concatenate([[0.0], np.cumsum(values)])
    sums: Float64 = np.diff(running[begins])
    return sums


def _percentiles(values: Float64) -> tuple[float, float]:
    kept = values[~np.isnan(values)]
    if not len(kept):
        return float("nan"), float("nan")
    low, high = np.percentile(kept, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
