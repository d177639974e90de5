"""Which law survived? Tests of the three invariances, one for each kind of drift, and the fit that needs no labels.

Under covariate shift P(Y|X) stays, under label shift P(X|Y), under concept drift P(X) (Moreno-Torres et al. 2012 for the
terms). Only the kind that is true has a true null hypothesis, so the kinds that are not refuted at level alpha hold
it with probability 1 - alpha, without correction for their number. All is closed form, on bounded
:class:`~detectors.encoding.Encoded` columns, so that heavy tails do not spoil the chi-squared limits.
"""

from __future__ import annotations

import msgspec
import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import chdtrc, expit, ndtri

from detectors.encoding import Encoded
from detectors.rows import Float64
from detectors.two_sample import bonferroni, distances, kolmogorov_p

ENOUGH = 4  # rows a moment, for its covariance to be inverted
WIDE = 16  # columns from which on the nuisance models make do with a smaller basis
RIDGE = 1.0
ITERATIONS = 15
TINY = 1e-10  # of the mean variance, added so that a constant column does no harm


class Fit(msgspec.Struct, frozen=True):
    """The label-free fit: its ``p``, the prior that fits best and the standard error of that."""

    p: float
    prior: float
    error: float


def p_features(reference: Encoded, window: Encoded) -> float:
    """P(X) is the same: first and second moments of all columns together, and each column's whole distribution."""
    parts = [kolmogorov(reference, window)]
    if (found := _moments(reference, window)) is not None:
        parts.append(_chi2(*found))
    return bonferroni(parts)


def p_features_by_label(reference: Encoded, window: Encoded) -> float | None:
    """P(X|Y) is the same: as :func:`p_features`, class by class; None if the window has too few of both."""
    statistic, degrees = 0.0, 0
    parts: list[float] = []
    for label in (0.0, 1.0):
        before, now = reference[reference.label == label], window[window.label == label]
        if len(before) < 2 * ENOUGH or len(now) < 2 * ENOUGH:
            continue
        parts.append(kolmogorov(before, now))
        if (found := _moments(before, now)) is not None:
            statistic, degrees = statistic + found[0], degrees + found[1]
    if not parts:
        return None
    return bonferroni([bonferroni(parts), *([_chi2(statistic, degrees)] if degrees else [])])


def p_label_given_features(reference: Encoded, window: Encoded) -> tuple[float, float]:
    """P(Y|X) is the same, by the generalised covariance measure; and the :func:`overlap` of the two.

    The products of what is left of Y and of window membership once X is known have mean 0 (Shah and Peters 2020),
    in every direction of X (Scheidegger, Hörrmann and Bühlmann 2022). Both are fitted on the other half of the rows by
    ridge logistic regression, so either may be a little wrong.
    """
    n = len(reference) + len(window)
    label = np.concatenate([reference.label, window.label])
    odds = np.concatenate([reference.odds, window.odds])[:, None]
    columns = np.concatenate([reference.columns, window.columns])
    features, late, served = _nuisance(reference, window)
    expected = _crossed(features, label, served)
    membership = _crossed(features, late, np.zeros(len(served)))
    directions = np.concatenate([np.ones((n, 1)), odds / max(float(odds.std()), 1e-9), columns], axis=1)
    directions = directions[:, np.append(True, directions[:, 1:].std(axis=0) > 1e-9)]
    left = ((late - membership) * (label - expected))[:, None] * directions
    mean = left.mean(axis=0)
    p = _chi2(float(mean @ _solve(np.cov(left.T).reshape(len(mean), -1) / n, mean)), len(mean))
    return p, _shared(membership, len(reference))


def overlap(reference: Encoded, window: Encoded) -> float:
    """The share of the window that lies where the reference does, by estimated densities: 1 alike, 0 apart."""
    features, late, served = _nuisance(reference, window)
    return _shared(_crossed(features, late, np.zeros(len(served))), len(reference))


def _nuisance(reference: Encoded, window: Encoded) -> tuple[Float64, Float64, Float64]:
    """What the nuisance models are linear in, [n + m, P]; which rows are the window's; and the model that is served, [P]."""
    columns = np.concatenate([reference.columns, window.columns])
    odds = np.concatenate([reference.odds, window.odds])[:, None]
    late = np.concatenate([np.zeros(len(reference)), np.ones(len(window))])
    features = np.concatenate([_basis(columns, reference.ranked), odds, np.maximum(odds, 0)], axis=1)
    served = np.zeros(features.shape[1])
    served[-2] = 1.0
    return features, late, served


def _crossed(features: Float64, target: Float64, start: Float64) -> Float64:
    """The expected ``target`` of every row, by a model that was fitted to the other half, from ``start`` [P] on."""
    fold = np.random.default_rng(0).integers(0, 2, len(target))
    expected = np.empty(len(target))
    for half in (0, 1):
        fitted = _logistic(features[fold != half], target[fold != half], start)
        expected[fold == half] = expit(features[fold == half] @ fitted)
    return expected


def _shared(membership: Float64, n: int) -> float:
    """The overlap coefficient, the integral of the lesser density, as a mean over the window's rows."""
    now = np.clip(membership[n:], 1e-9, 1)
    return float(np.minimum(1.0, (1 - now) / now * (len(now) / n)).mean())


def label_fit(reference: Encoded, window: Encoded) -> Fit | None:
    """The window is a mixture of the reference's two classes: the prior by the method of moments, and Hansen's J test.

    Needs no labels in the window (Hansen 1982; the idea of black-box shift estimation, Lipton et al. 2018). None if
    the reference has too few rows of a class.
    """
    classes = [reference[reference.label == label] for label in (0.0, 1.0)]
    least = min(len(each) for each in (*classes, window))
    sides = [
        _features(each, second=least >= ENOUGH * (2 * each.columns.shape[1] + 1))
        for each in (*classes, window)
    ]
    if least < ENOUGH * sides[0].shape[1]:
        return None
    m0, m1, mean = (side.mean(axis=0) for side in sides)
    c0, c1, c = (np.cov(side.T).reshape(len(mean), -1) / len(side) for side in sides)
    apart = m1 - m0
    prior = float(reference.label.mean())
    for _ in range(4):  # the weights depend on the prior a little
        covariance = c + (1 - prior) ** 2 * c0 + prior**2 * c1
        direction = _solve(covariance, apart)
        information = float(apart @ direction)
        if information < 1e-9:  # the classes look alike
            return None
        prior = float(np.clip(direction @ (mean - m0) / information, 0.005, 0.995))
    left = mean - (1 - prior) * m0 - prior * m1
    return Fit(_chi2(float(left @ _solve(covariance, left)), len(left) - 1), prior, information**-0.5)


def p_label(reference: Encoded, window: Encoded) -> float:
    """P(Y) is the same: two proportions."""
    n, m = len(reference), len(window)
    before, now = float(reference.label.mean()), float(window.label.mean())
    pooled = (n * before + m * now) / (n + m)
    variance = pooled * (1 - pooled) * (1 / n + 1 / m)
    return 1.0 if variance == 0 else _chi2((now - before) ** 2 / variance, 1)


def smallest_shift(n: int, m: int, looks: int) -> float:
    """Standard deviations by which a mean must differ between n and m rows to be seen 4 times in 5, at level .01 of ``looks``."""
    return float((-ndtri(0.005 / looks) + ndtri(0.8)) * np.sqrt(1 / n + 1 / m))


def kolmogorov(reference: Encoded, window: Encoded) -> float:
    """The smallest p-value over the columns, of Kolmogorov-Smirnov or of two proportions, corrected for their number."""
    n, m, ranked = len(reference), len(window), reference.ranked
    found = kolmogorov_p(distances(reference.columns[:, :ranked], window.columns[:, :ranked]), n, m)
    before, now = reference.columns[:, ranked:].mean(axis=0), window.columns[:, ranked:].mean(axis=0)
    pooled = (n * before + m * now) / (n + m)
    variance = np.maximum(pooled * (1 - pooled), 1e-12) * (1 / n + 1 / m)
    return bonferroni([*found.tolist(), *chdtrc(1, (now - before) ** 2 / variance).tolist()])


def _moments(reference: Encoded, window: Encoded) -> tuple[float, int] | None:
    """Hotelling's statistic of first and second moments, or of the first if the rows do not allow for both."""
    least = min(len(reference), len(window))
    columns = reference.columns.shape[1]
    if least < ENOUGH * columns:
        return None
    second = least >= ENOUGH * 2 * columns and columns <= 4 * WIDE
    sides = [_features(each, second=second, odds=False) for each in (reference, window)]
    varied = sides[0].std(axis=0) + sides[1].std(axis=0) > 1e-9
    sides = [side[:, varied] for side in sides]
    if not varied.any():
        return 0.0, 1
    difference = sides[0].mean(axis=0) - sides[1].mean(axis=0)
    size = len(difference)
    before, now = (np.cov(side.T).reshape(size, size) / len(side) for side in sides)
    return float(difference @ _solve(before + now, difference)), size


def _features(rows: Encoded, *, second: bool, odds: bool = True) -> Float64:
    parts = [rows.columns]
    if second:
        parts.append(rows.columns[:, : rows.ranked] ** 2)  # of an indicator it says nothing new
    if odds:
        parts.append(rows.odds[:, None])
    return np.concatenate(parts, axis=1)


def _basis(columns: Float64, ranked: int) -> Float64:
    """1, z, and of ranks z² and, where they are few, steps."""
    ranks = columns[:, :ranked]
    steps = () if ranked > WIDE else (-0.5, 0.0, 0.5)
    parts = [np.ones((len(columns), 1)), columns, ranks**2]
    parts += [(ranks > step * np.sqrt(3)).astype(np.float64) for step in steps]
    return np.concatenate(parts, axis=1)


def _logistic(features: Float64, label: Float64, start: Float64) -> Float64:
    """Coefficients of a ridge logistic regression, by Newton's method with the curvature of ``start`` throughout.

    The curvature is taken half way to its bound of 1/4, so that it is never below half the true one: then every step
    goes down (Böhning and Lindsay 1988), and one factorisation does for all of them.
    """
    penalty = np.full(features.shape[1], RIDGE)
    penalty[0] = 1e-6
    probability = expit(features @ start)
    weight = (probability * (1 - probability) + 0.25) / 2
    single = features.astype(np.float32)  # half the time, and the curvature need not be exact
    curvature = ((single * weight.astype(np.float32)[:, None]).T @ single).astype(np.float64)
    factor = cho_factor(curvature + np.diag(penalty), check_finite=False)
    found = start.copy()
    for _ in range(ITERATIONS):
        step = cho_solve(
            factor,
            features.T @ (label - expit(features @ found)) - penalty * (found - start),
            check_finite=False,
        )
        found += step
        if np.abs(step).max() < 1e-3:
            break
    return found


def _solve(covariance: Float64, vector: Float64) -> Float64:
    size = len(vector)
    return np.linalg.solve(
        covariance + TINY * max(np.trace(covariance) / size, 1e-300) * np.eye(size), vector
    )


def _chi2(statistic: float, degrees: int) -> float:
    return float(chdtrc(degrees, max(statistic, 0.0)))
