"""Rows: what the detectors see of decisions, as arrays. Everything in ``detectors`` speaks of these.

A row whose ``label`` is NaN is a decision whose outcome is not known yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


class Schema(msgspec.Struct, frozen=True):
    """The columns, by name: F ``numeric`` and C ``categorical``."""

    numeric: tuple[str, ...]
    categorical: tuple[str, ...] = ()


class Rows(msgspec.Struct, frozen=True, eq=False):
    """n decisions in their order.

    ``numeric`` [n, F] has NaN for missing, ``categorical`` [n, C] holds strings, None for missing. ``score`` [n] is the
    model's probability, ``label`` [n] 0, 1 or NaN. ``time`` [n] is the decision's, ``received`` [n] when its event was sent,
    both ms, 0 where that is not known. ``key`` [n] numbers the decision: it seeds what is drawn at random for the row,
    so that a row read again is treated alike.
    """

    numeric: Float64
    categorical: NDArray[np.object_]
    score: Float64
    label: Float64
    time: NDArray[np.int64]
    received: NDArray[np.int64]
    key: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, rows: slice | NDArray[np.bool_] | NDArray[np.int64]) -> Rows:
        return Rows(*(getattr(self, name)[rows] for name in self.__struct_fields__))


def concatenate(parts: Sequence[Rows]) -> Rows:
    """The rows of ``parts``, at least one, one after another."""
    return Rows(*(np.concatenate([getattr(each, name) for each in parts]) for name in Rows.__struct_fields__))


def rows_of(
    numeric: Float64,
    score: Float64,
    label: Float64 | None = None,
    categorical: NDArray[np.object_] | None = None,
    time: NDArray[np.int64] | None = None,
    first_key: int = 0,
) -> Rows:
    """Rows from arrays, with what is not given unknown: for files, benchmarks and tests. Keys count from ``first_key``."""
    n = len(score)
    return Rows(
        numeric=np.asarray(numeric, np.float64),
        categorical=np.empty((n, 0), np.object_) if categorical is None else categorical,
        score=np.asarray(score, np.float64),
        label=np.full(n, np.nan) if label is None else np.asarray(label, np.float64),
        time=np.zeros(n, np.int64) if time is None else time,
        received=np.zeros(n, np.int64),
        key=np.arange(first_key, first_key + n, dtype=np.uint64),
    )
