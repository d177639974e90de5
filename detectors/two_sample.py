"""Two samples, column by column: Kolmogorov-Smirnov and total variation, for all columns of a window at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import kolmogorov

from detectors.rows import Float64


def distances(reference: Float64, window: Float64) -> Float64:
    """Kolmogorov-Smirnov distance [F] of the columns of ``reference`` [n, F] and ``window`` [m, F]; NaN is left out."""
    both = np.concatenate([reference, window])
    order = np.argsort(both, axis=0)  # NaN last
    ordered = np.take_along_axis(both, order, axis=0)
    known = ~np.isnan(ordered)
    late = order >= len(reference)
    old, new = known & ~late, known & late
    # A step up for each row of the reference and down for each of the window, so that both add up to 1.
    steps = old / np.maximum(old.sum(axis=0), 1) - new / np.maximum(new.sum(axis=0), 1)
    apart = np.abs(np.cumsum(steps, axis=0))
    # Among equals only the last has the whole step.
    apart[:-1][ordered[:-1] == ordered[1:]] = 0
    empty = (old.sum(axis=0) == 0) | (new.sum(axis=0) == 0)
    return np.where(empty, 0.0, np.where(known, apart, 0.0).max(axis=0, initial=0.0))


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
