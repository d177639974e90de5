"""Two samples, column by column: Kolmogorov-Smirnov for numbers; for categories total variation and chi-squared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, kolmogorov

from detectors.rows import Float64

ENOUGH = 5.0  # expected rows of a value in the smaller sample, for the chi-squared limit to hold


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


def kolmogorov_p(distance: Float64, n: int | NDArray[np.int64], m: int | NDArray[np.int64]) -> Float64:
    """p-values [F] of ``distance`` [F] between n and m known values, of all columns or of each, [F].

    Kolmogorov's limit, with Stephens' (1970) correction for small samples. 1 where either has no value.
    """
    root = np.sqrt(np.maximum(n, 1) * np.maximum(m, 1) / np.maximum(n + m, 1))
    return np.asarray(kolmogorov((root + 0.12 + 0.11 / root) * distance), np.float64)


def total_variation(reference: NDArray[np.object_], window: NDArray[np.object_]) -> float:
    """Half the sum of the differences of every value's share."""
    shares: dict[object, float] = {}
    for values, sign in ((reference, 1 / len(reference)), (window, -1 / len(window))):
        for value in values.tolist():
            shares[value] = shares.get(value, 0.0) + sign
    return sum(map(abs, shares.values())) / 2


def homogeneity_p(reference: NDArray[np.object_], window: NDArray[np.object_]) -> float:
    """That both draw values from one law: Pearson's chi-squared over values, those too few for it pooled.

    Values are taken from the most frequent to the rarest, and put together until a cell has ``ENOUGH``. Which go together
    depends on the counts of both samples together alone, so that the level holds.
    """
    old, new = Counter(reference.tolist()), Counter(window.tolist())
    total = old + new
    n, m = len(reference), len(window)
    smaller = min(n, m) / max(1, n + m)
    cells: list[tuple[int, int]] = []
    before = now = 0
    for value in sorted(total, key=lambda each: (-total[each], each is not None, each or "")):
        before, now = before + old[value], now + new[value]
        if (before + now) * smaller >= ENOUGH:
            cells.append((before, now))
            before = now = 0
    if len(cells) < 2:
        return 1.0
    cells[-1] = cells[-1][0] + before, cells[-1][1] + now
    counts = np.array(cells, np.float64)  # [V, 2]
    expected = counts.sum(axis=1, keepdims=True) * np.array([n, m]) / (n + m)
    return float(chdtrc(len(cells) - 1, ((counts - expected) ** 2 / expected).sum()))


def bonferroni(p: Sequence[float]) -> float:
    """The smallest of ``p``, corrected for their number; 1 of none."""
    return min(1.0, min(p) * len(p)) if p else 1.0
