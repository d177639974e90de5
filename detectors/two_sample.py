"""Two samples, column by column: Kolmogorov-Smirnov and total variation, for all columns of a window at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import kolmogorov

from detectors.rows import Float64


def distances(reference: Float64, window: Float64) -> Float64:
    """Kolmogorov-Smirnov distance [F] of the columns of ``reference`` [n, F] and ``window`` [m, F]; NaN is left out."""
    return np.array([_distance(a, b) for a, b in zip(reference.T, window.T, strict=True)])


def _distance(reference: Float64, window: Float64) -> float:
    a, b = np.sort(reference[~np.isnan(reference)]), np.sort(window[~np.isnan(window)])
    if not len(a) or not len(b):
        return 0.0
    both = np.concatenate([a, b])
    below = a.searchsorted(both, "right") / len(a) - b.searchsorted(both, "right") / len(b)
    return float(np.abs(below).max())


def kolmogorov_p(distance: Float64, n: int, m: int) -> Float64:
    """p-values of ``distance`` between n and m rows: Kolmogorov's limit, with Stephens' (1970) correction for small ones."""
    root = np.sqrt(n * m / (n + m))
    return np.asarray(kolmogorov((root + 0.12 + 0.11 / root) * distance), np.float64)


def total_variation(reference: NDArray[np.object_], window: NDArray[np.object_]) -> float:
    """Half the sum of the differences of every value's share."""
    shares: dict[object, float] = {}
    for values, sign in ((reference, 1 / len(reference)), (window, -1 / len(window))):
        for value in values.tolist():
            shares[value] = shares.get(value, 0.0) + sign
    return sum(map(abs, shares.values())) / 2


def bonferroni(p: Sequence[float]) -> float:
    """The smallest of ``p``, corrected for their number; 1 of none."""
    return min(1.0, min(p) * len(p)) if p else 1.0
