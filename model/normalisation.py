"""How numbers are scaled before a model multiplies them: learnt once, from the rows that are fitted.

Called by :mod:`model.network`, which carries it in the graph, and by :mod:`model.baselines`. Without TensorFlow.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.features import Float32

CLIP = 8.0  # standard deviations at most, whatever the range; a broken unit stays a finite logit
MIN_STD = 0.01  # of the scaled logarithm: a column that varies by 1 %; less would blow rounding up
TAIL = 0.03  # of the values fitted on, at either end, count as the one where it begins


class Normalisation(msgspec.Struct, frozen=True):
    """How each of F numeric columns is scaled: by ``scale``, then, after the signed logarithm, by ``mean`` and ``std``.

    Standardised values are clipped to ``low`` … ``high``, about the range that was fitted on: beyond it a network's
    lines run on to where nothing was learnt. On OULAD, whose later years bring longer tenures and other courses,
    that costs .01 of log-loss.
    """

    scale: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, numeric: Float32) -> Normalisation:
        """Learn from float32 [n, F]; NaN and infinity are left out.

        ``scale`` is the median size of the values other than 0, so that the logarithm bends where the values
        are, whatever their unit. It also keeps the argument away from 1, where LiteRT's logarithm is off by 1e-7:
        enough to move the score of a column of values near 1e-4 by 1e-4.
        """
        values = np.where(np.isfinite(numeric), numeric, np.nan).astype(np.float64)  # [n, F]
        scale = [_median(column[(column != 0) & ~np.isnan(column)]) for column in np.abs(values).T]
        values = np.sign(values) * np.log1p(np.abs(values) / scale)
        seen = np.maximum((~np.isnan(values)).sum(axis=0), 1)  # [F]
        mean = np.nansum(values, axis=0) / seen
        std = np.maximum(np.sqrt(np.nansum((values - mean) ** 2, axis=0) / seen), MIN_STD)
        low, high = np.array([_range(column) for column in values.T]).reshape(-1, 2).T
        ends = (np.clip((end - mean) / std, -CLIP, CLIP) for end in (low, high))
        return cls(tuple(scale), *(tuple(each.tolist()) for each in (mean, std, *ends)))

    def __call__(self, numeric: Float32) -> Float32:
        """``numeric`` [n, F] as the network sees it: signed logarithm, standardised and clipped, 0 where missing."""
        scale, mean, std, low, high = (np.array(getattr(self, name)) for name in self.__struct_fields__)
        present = np.where(np.isnan(numeric), 0.0, numeric) / scale
        value = np.clip((np.sign(present) * np.log1p(np.abs(present)) - mean) / std, low, high)
        scaled: Float32 = np.where(np.isnan(numeric), 0.0, value).astype(np.float32)
        return scaled


def _median(sizes: NDArray[np.float64]) -> float:
    return max(float(np.median(sizes)), 1e-30) if len(sizes) else 1.0  # float32 inverts 1e-30, not much less


def _range(column: NDArray[np.float64]) -> tuple[float, float]:
    """Where the tails of ``column`` begin; 0, of which a rare count mostly consists, is no part of them, but within."""
    others = column[(column != 0) & ~np.isnan(column)]
    ends = np.quantile(others, [TAIL, 1 - TAIL]).tolist() if len(others) else [0.0, 0.0]
    zero = [0.0] if (column == 0).any() else []
    return min(ends + zero), max(ends + zero)
