"""Importance: how many decisions of the world since a change one row stands for. Pure; called by :mod:`retrain.dataset`.

After a covariate drift old labels still hold, P(Y|X) being what it was, but most old rows are of cases that have become
rare. So each counts by how much more often its features come since the change than in all the rows together (Shimodaira
2000), which a logistic model of "since the change" tells (Bickel, Brückner and Scheffer 2009): the ratio to the whole
rather than to the rows before cannot exceed the inverse share of the rows since (Yamada et al. 2013), and so is steady.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from model.examples import Examples
from model.features import Float32
from model.normalisation import Normalisation

LEAST_ROWS = 100  # on either side of the change; from fewer no ratio can be told
MOST_ROWS = 50_000  # that the ratio is learnt from, drawn by chance
CATEGORIES = 32  # of a column that are told apart, the most frequent
PENALTY = 1.0  # L2, of weights of standardised columns: less lets a ratio follow chance
MOST = 20.0  # times that a row counts
# Rows, of whatever number: where the old world and the new one hardly overlap few rows count, and those are what is needed.
LEAST_EFFECTIVE = 500

Float64 = NDArray[np.float64]


class Importance(msgspec.Struct, frozen=True, eq=False):
    """``weight`` [n], 1 on average, or None where rows had better count alike; ``effective`` rows (Kish 1965); and why."""

    weight: Float32 | None
    effective: float
    reason: str


def importance(rows: Examples, since: int, seed: int) -> Importance:
    """Weigh ``rows`` so that they look like those from ``since`` (ms) on.

    By features alone, never by labels. Equal arguments give equal weights.
    """
    after = rows.time >= since
    n, k = len(rows), int(after.sum())
    if min(k, n - k) < LEAST_ROWS:
        return Importance(
            None,
            float(n),
            f"all rows count alike: {k} are of the time since the change and {n - k} of that before, and a density "
            f"ratio needs {LEAST_ROWS} of either",
        )
    columns = _columns(rows)
    chosen = np.random.default_rng(seed).permutation(n)[:MOST_ROWS]
    coefficients = _logistic(columns[chosen], after[chosen].astype(np.float64))
    ratio = expit(columns @ coefficients) * n / k
    weight = np.minimum(ratio, MOST)
    weight /= weight.mean()
    effective = float(weight.sum() ** 2 / (weight**2).sum())
    if effective < LEAST_EFFECTIVE:
        return Importance(
            None,
            effective,
            f"all rows count alike: weighted to look like those since the change, {n} rows would say as much as "
            f"{effective:.0f}, and a model needs {LEAST_EFFECTIVE}",
        )
    return Importance(
        weight.astype(np.float32),
        effective,
        f"{n} rows are weighted to look like the {k} since the change and say as much as {effective:.0f}",
    )


def _columns(rows: Examples) -> Float64:
    """What the ratio is linear in [n, D]: scaled numbers, which are missing, frequent categories, and 1."""
    missing = np.isnan(rows.numeric)
    parts: list[NDArray[Any]] = [Normalisation.of(rows.numeric)(rows.numeric), missing]
    for column in rows.categorical.T:
        ids, counts = np.unique(column, return_counts=True)
        parts.append(column[:, None] == ids[np.argsort(-counts, kind="stable")][:CATEGORIES])
    parts.append(np.ones((len(rows), 1)))
    return np.concatenate(parts, axis=1, dtype=np.float64)


def _logistic(x: Float64, y: Float64) -> Float64:
    """The coefficients [D] of a logistic regression of ``y`` [n] on ``x`` [n, D], whose last column is 1."""
    penalty = np.full(x.shape[1], PENALTY)
    penalty[-1] = 0.0

    def loss(w: Float64) -> tuple[float, Float64]:
        logit = x @ w
        value = float((np.logaddexp(0, logit) - y * logit).sum() + (penalty * w**2).sum() / 2)
        return value, x.T @ (expit(logit) - y) + penalty * w

    found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    coefficients: Float64 = found.x
    return coefficients
