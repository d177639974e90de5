"""Units: numeric columns that came to be counted in another unit, which no drift of the world does to them.

A change of unit makes the new values an exact image of the old: multiplied by a factor, or by one and moved by an
offset. But so does many a drift: prices that double, a normal column whose mean moves. What tells them apart is that
a unit changes far and exactly:

* By a well-known factor of ``FACTORS`` - what stands between two units of time, length, weight or money, or a share and
  its per cent - that takes nearly all values to where hardly any were: a Kolmogorov-Smirnov distance of .95 between
  the reference and its image, which is 3.9 sd of a normal column or of the logarithm of a lognormal one. With .5,
  of up to 14 lognormal columns that moved by 3 sd one at least was taken for another unit in 39 of 60 episodes, with
  .95 in none.
* Half apart is enough if the new values, divided by a factor of ``LARGE`` or more, are values that the reference has:
  counts of minutes that were counts of hours are whole multiples of 60.
* From °C to °F, from °C to K and back, nearly apart.
* By any factor from ``LEAST_FACTOR`` on, or any factor and offset, only if old and new lie clean apart and the fit is
  close: three standard deviations of a normal column, or the doubling of its scale, are drifts.

A column whose values repeat, counts or prices, must be an image to six digits: so what is rounded after it was
converted is not recognised, nor what drifts at the same time. Zero is zero in every unit, so factors are sought among
the values other than zero: of a count that is 0 in 95 rows of 100, the others tell. Rows may be mixed, some old, some
new: faults set in within the window, or in one of several producers. So the window is compared with a mixture of the
reference and its image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.rows import Float64
from detectors.verdict import Fault

CHECK = "unit-change"
# Of lengths and weights; of times, shares, money and multiples: bits, dozens, hours a day and a week, minutes a day, seconds
# an hour and a day, ms an hour and a day, and powers of ten.
_MEASURES = (2.2046, 2.54, 3.2808)
_MULTIPLES = (7, 8, 12, 24, 60, 168, 1440, 3600, 86_400, 3.6e6, 8.64e7, 10, 100, 1e3, 1e4, 1e6, 1e9)
FACTORS = (*_MEASURES, *_MULTIPLES)
OFFSETS = ((1.8, 32.0), (1 / 1.8, -32 / 1.8), (1.0, 273.15), (1.0, -273.15))  # °C and °F, °C and K
LARGE = 8.0
LEAST_FACTOR = 3.0
# Of the rows: .6 have the fault, less the sixth of the window before it set in, and .1 for error.
LEAST_SHARE = 0.4
# The distance of the window from the mixture, at most: against noise, √(1/n + 1/m), and against what it explains. On
# Electricity, of 400 columns in another unit the worst had 1.07 and .082; of 750 permutations of columns, which give some
# a distribution like their own but elsewhere, the best had 1.14 and .104, .78 and .104, 1.50 and .093, and with a fitted
# factor .64 and .082.
MISFIT, MISFIT_KNOWN, MISFIT_FREE = 1.3, 0.09, 0.05
# Kolmogorov-Smirnov distances of reference and image: of a known factor, of °C and °F (12 and 54 with an sd of 8 and 14
# are .94), of a fitted factor, and of a known one whose values are recognised.
APART, NEARLY_APART, CLEAN, RECOGNISED = 0.95, 0.9, 0.98, 0.5
LEAST_ROWS = 30  # values of a column, without which nothing can be told
_KEPT = 1000  # rows of the reference, about, that are compared with
_POINTS = 40  # at which distributions are compared
_SCALES: Float64 = np.log(np.concatenate([FACTORS, 1 / np.array(FACTORS)]))  # [K]


def unit_changes(names: Sequence[str], reference: Float64, window: Float64) -> list[Fault]:
    """The columns of ``window`` [m, F] in another unit than those of ``reference`` [n, F]; NaN is left out."""
    thin = reference[:: max(1, len(reference) // _KEPT)]
    columns = zip(names, thin.T, window.T, strict=True)
    found = [
        (name, _change(*(np.sort(c[np.isfinite(c)]) for c in (before, after))))
        for name, before, after in columns
    ]
    return [Fault(CHECK, name, detail) for name, detail in found if detail]


def _change(before: Float64, after: Float64) -> str | None:
    """What was done to ``before``, sorted, to give ``after``; None if it was no change of unit."""
    if min(len(before), len(after)) < LEAST_ROWS or before[0] == before[-1]:
        return None  # of a constant that is another now nothing says what it means
    return _factor(before[before != 0], after[after != 0]) or _offset(before, after)


def _factor(before: Float64, after: Float64) -> str | None:
    if min(len(before), len(after)) < LEAST_ROWS or abs((before < 0).mean() - (after < 0).mean()) > 0.2:
        return None
    # Columns around 0 are half as far apart as their logarithms.
    if _gone(before, after, _between(before)) < LEAST_SHARE * RECOGNISED * 0.45:
        return None
    # Of the logarithms a factor is an offset, and a column around 0 is apart from its thousandfold.
    old, new = np.sort(np.log(np.abs(before))), np.sort(np.log(np.abs(after)))
    free = _middle(new, old) - old[len(old) // 2], _most_frequent(new) - _most_frequent(old)
    by = np.concatenate([_SCALES, free])  # [K]
    fits = _Fits(old, new, np.ones(len(by)), by, np.arange(len(by)) < len(_SCALES))
    far = np.abs(fits.b) >= np.log(np.where(fits.known, LARGE, LEAST_FACTOR)) - 1e-9
    best = fits.best((fits.apart >= np.where(fits.known, APART, CLEAN)) & (fits.known | far))
    recognised = best is None
    if best is None:
        best = fits.best(fits.known & far & (fits.apart >= RECOGNISED))
    if best is None:
        return None
    factor, share = float(np.exp(fits.b[best])), float(fits.share[best])
    if recognised and _seen(before, after / factor) < 0.8 * share:
        return None
    if fits.known[best] and not _exact(before, after / factor, share):
        return None
    return f"{share:.0%} of the values are as if multiplied by {factor:.4g}"


def _offset(before: Float64, after: Float64) -> str | None:
    width = _width(before)
    if not width or _gone(before, after, _between(before)) < LEAST_SHARE * NEARLY_APART * 0.9:
        return None
    outside = after[(after < before[0]) | (after > before[-1])]
    new = outside if len(outside) >= LEAST_SHARE * len(after) else after
    slope = _width(new) / width or 1.0
    free = slope, float(new[len(new) // 2] - slope * before[len(before) // 2])
    a, b = np.array([*OFFSETS, free]).T  # [K]
    fits = _Fits(before, after, a, b, np.arange(len(a)) < len(OFFSETS))
    low, high = before[len(before) // 100], before[-1 - len(before) // 100]
    # The gap between old and new against the wider of them: of a normal column 1 is a shift of 9 sd.
    gap = np.maximum(fits.a * low + fits.b - high, low - (fits.a * high + fits.b))
    best = fits.best(
        np.where(fits.known, fits.apart >= NEARLY_APART, gap >= np.maximum(fits.a, 1) * (high - low))
    )
    if best is None:
        return None
    factor, offset, share = float(fits.a[best]), float(fits.b[best]), float(fits.share[best])
    if fits.known[best] and not _exact(before, (after - offset) / factor, share, 2e-7 * abs(offset) / factor):
        return None
    return f"{share:.0%} of the values are as if multiplied by {factor:.4g} and moved by {offset:.4g}"


class _Fits:
    """How well ``after``, sorted, is a mixture of ``before``, sorted, and its images a·before + b, for each of K (a, b).

    Of those given only such are kept as can be.
    """

    a: Float64  # [K]
    b: Float64  # [K]
    known: NDArray[np.bool_]  # [K] rather than fitted
    share: Float64  # [K] of the image
    apart: Float64  # [K] Kolmogorov-Smirnov distance of before and its image
    _misfit: Float64  # [K] Kolmogorov-Smirnov distance of after and the mixture

    def __init__(
        self, before: Float64, after: Float64, a: Float64, b: Float64, known: NDArray[np.bool_]
    ) -> None:
        # Nine tenths of an image lie here, so .36 of the window's rows at least; .06 are left to chance.
        ends = before[len(before) // 20] - 1e-9, before[-1 - len(before) // 20] + 1e-9
        low, high = (a * end + b for end in ends)
        can = _below(after, high + 1e-9 * np.abs(high)) - _below(after, low - 1e-9 * np.abs(low)) >= 0.3
        self.a, self.b, self.known = a, b, known = a[can], b[can], known[can]
        points = _between(before)  # [P]
        image = a[:, None] * points + b[:, None]  # [K, P]
        preimage = (points - b[:, None]) / a[:, None]
        shape = preimage.shape
        plain = _below(before, points)
        # At points of the image, and at points of the reference.
        of_before = np.hstack([_below(before, image), np.broadcast_to(plain, shape)])
        of_image = np.hstack([np.broadcast_to(plain, shape), _below(before, preimage)])
        of_after = np.hstack([_below(after, image), np.broadcast_to(_below(after, points), shape)])
        way, gone = of_image - of_before, of_after - of_before
        self.share = np.clip((way * gone).sum(axis=1) / np.maximum((way * way).sum(axis=1), 1e-12), 0, 1)
        self.apart = np.abs(way).max(axis=1)
        self._misfit = np.abs(gone - self.share[:, None] * way).max(axis=1)
        self._noise = np.sqrt(1 / len(before) + 1 / len(after))

    def best(self, allowed: NDArray[np.bool_]) -> int | None:
        """The ``allowed`` image [K] that fits best, if it fits."""
        most = np.where(self.known, MISFIT_KNOWN, MISFIT_FREE) * self.share * self.apart
        fits = (
            allowed & (self.share >= LEAST_SHARE) & (self._misfit <= np.minimum(most, MISFIT * self._noise))
        )
        return int(np.where(fits, self._misfit, np.inf).argmin()) if fits.any() else None


def _below(ordered: Float64, points: Float64) -> Float64:
    return np.asarray(ordered.searchsorted(points) / len(ordered), np.float64)


def _between(ordered: Float64) -> Float64:
    """Points [P] between values of ``ordered``, and on either side of all.

    Not at values: those that are frequent would be missed by the last digit when they are multiplied. Nor in the middle
    between values: of whole numbers that is one again.
    """
    values = ordered[np.linspace(0, len(ordered) - 1, _POINTS).astype(int)]
    values = values[np.concatenate([[True], values[1:] > values[:-1]])]
    edge = (values[-1] - values[0]) * 1e-3 + 1e-9
    inner = values[:-1] + 0.382 * np.diff(values)
    return np.concatenate([[values[0] - edge], inner, [values[-1] + edge]])


def _gone(before: Float64, after: Float64, points: Float64) -> float:
    """The Kolmogorov-Smirnov distance of what is now to what was."""
    return float(np.abs(_below(after, points) - _below(before, points)).max())


def _exact(before: Float64, values: Float64, share: float, error: float = 0.0) -> bool:
    """Whether of ``values`` a ``share`` may well be of ``before``, in which they then repeat as it does itself.

    ``error`` is what float32 loses when an offset is added.
    """
    repeated = _seen(before[::2], before[1::2])
    return repeated < 0.2 or _seen(before, values, error) >= 0.5 * share * repeated


def _seen(before: Float64, values: Float64, error: float = 0.0) -> float:
    """The share of ``values`` that are among ``before``, sorted, but for ``error`` and the seventh digit, float32's last."""
    wide = 1e-6 * np.abs(values) + error
    return float((before.searchsorted(values + wide) > before.searchsorted(values - wide)).mean())


def _middle(new: Float64, old: Float64) -> float:
    """The median of the values outside the range of ``old``, if they are many; else of all."""
    outside = new[(new < old[0]) | (new > old[-1])]
    chosen = outside if len(outside) >= LEAST_SHARE * len(new) else new
    return float(chosen[len(chosen) // 2])


def _most_frequent(ordered: Float64) -> float:
    begins = np.flatnonzero(np.concatenate([[True], np.diff(ordered) > 1e-9]))
    return float(ordered[begins[np.diff(begins, append=len(ordered)).argmax()]])


def _width(ordered: Float64) -> float:
    """The width of ``ordered`` without a tenth on either side."""
    cut = len(ordered) // 10
    return float(ordered[-1 - cut] - ordered[cut])
