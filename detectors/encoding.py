"""Encoding: rows as bounded numbers, which the tests of :mod:`detectors.invariance` can take moments of.

A numeric column becomes its rank in the reference, from -√3 to √3, so that it has mean 0 and variance 1 there; missing
values become 0, with an indicator column beside them where they are neither rare nor the rule; a category becomes an
indicator of each of its frequent values. Nothing depends on a column's unit or tails.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from detectors.channels import frequent
from detectors.rows import Float64, Rows

SOME = 0.01  # least share of a value, or of missing ones, that gets an indicator
LEAST_ODDS = 1e-4


class Encoded(msgspec.Struct, frozen=True, eq=False):
    """``columns`` [n, D], of which the first ``ranked`` are ranks and the others indicators; ``odds`` and ``label`` [n]."""

    columns: Float64
    ranked: int
    odds: Float64  # log-odds of the score
    label: Float64

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: slice | NDArray[np.bool_] | NDArray[np.int64]) -> Encoded:
        return Encoded(self.columns[rows], self.ranked, self.odds[rows], self.label[rows])


class Encoding:
    """The encoding that ``reference`` defines."""

    def __init__(self, reference: Rows) -> None:
        self._sorted = [np.sort(column[~np.isnan(column)]) for column in reference.numeric.T]
        # Among values that are all different the middle of equals is half a row: not worth the look.
        self._ties = [bool((known[1:] == known[:-1]).any()) for known in self._sorted]
        missing = np.isnan(reference.numeric).mean(axis=0)
        self._missing = np.flatnonzero((missing >= SOME) & (missing <= 1 - SOME))
        self._values: list[tuple[int, str | None]] = []
        for j, values in enumerate(reference.categorical.T):
            shares = {value: float((values == value).mean()) for value in frequent(values)}
            kept = [value for value, share in shares.items() if SOME <= share <= 1 - SOME]
            self._values += [(j, value) for value in kept]

    def __call__(self, rows: Rows) -> Encoded:
        """``rows``, encoded."""
        ranks = np.zeros(rows.numeric.shape)
        for j, (known, ties) in enumerate(zip(self._sorted, self._ties, strict=True)):
            if len(known):
                column = rows.numeric[:, j]
                left = known.searchsorted(column, "left")
                middle = left + known.searchsorted(column, "right") if ties else 2 * left + 1
                ranks[:, j] = middle / len(known) - 1  # -1 … 1
        ranks[np.isnan(rows.numeric)] = 0
        indicators = [np.isnan(rows.numeric[:, self._missing]).astype(np.float64)]
        indicators += [
            (rows.categorical[:, j] == value).astype(np.float64)[:, None] for j, value in self._values
        ]
        return Encoded(
            columns=np.concatenate([ranks * np.sqrt(3), *indicators], axis=1),
            ranked=ranks.shape[1],
            odds=logit(np.clip(rows.score, LEAST_ODDS, 1 - LEAST_ODDS)),
            label=rows.label,
        )
