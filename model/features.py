"""The feature spec: which numbers and categories a use case's model reads, in which order.

Streaming, replay and training all lay features out by this one value, and every model bundle carries it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.usecase import Context, Item, TimeOfDay, UseCase, is_category

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


class Category(msgspec.Struct, frozen=True):
    """A categorical column: its name and its number of embedding rows; row 0 is *missing*."""

    name: str
    buckets: int


class FeatureSpec(msgspec.Struct, frozen=True):
    """Names of the model's inputs: ``numeric`` columns [n, F] with NaN for missing, ``categorical`` ids [n, C]."""

    numeric: tuple[str, ...]
    categorical: tuple[Category, ...]


class Features(msgspec.Struct, frozen=True):
    """Feature values of n decisions, as logged with each decision.

    ``numeric`` is float32 [n, F], NaN for missing; ``categorical`` holds C columns of n strings, None for missing.
    """

    numeric: Float32
    categorical: tuple[Sequence[str | None], ...]

    def __len__(self) -> int:
        return len(self.numeric)


def feature_spec(usecase: UseCase) -> FeatureSpec:
    """The spec of ``usecase``: columns in the order in which the file declares its features."""
    numeric: list[str] = []
    categorical: list[Category] = []
    for name, feature in usecase.features.items():
        if isinstance(feature, TimeOfDay):
            numeric += [f"{name}_sin", f"{name}_cos"]
        elif isinstance(feature, Item | Context) and is_category(usecase, name):
            categorical.append(Category(name, feature.buckets))
        else:
            numeric.append(name)
    return FeatureSpec(tuple(numeric), tuple(categorical))


class CategoryHasher:
    """Category strings to embedding rows, outside the graph: 0 is missing, 1 … buckets-1 the CRC-32 of the string.

    Remembers up to ``limit`` strings a column, so that a known one costs one dictionary look-up.
    """

    def __init__(self, spec: FeatureSpec, limit: int = 65_536) -> None:
        self._columns = spec.categorical
        self._limit = limit
        self._seen: list[dict[str | None, int]] = [{None: 0} for _ in spec.categorical]

    def __call__(self, categorical: Sequence[Sequence[str | None]], n: int) -> Int32:
        """Ids int32 [n, C] of C columns of ``n`` strings."""
        ids = np.zeros((n, len(self._columns)), np.int32)
        for j, (column, seen, values) in enumerate(zip(self._columns, self._seen, categorical, strict=True)):
            try:
                ids[:, j] = [seen[value] for value in values]
            except KeyError:
                if len(seen) > self._limit:
                    seen.clear()
                    seen[None] = 0
                for value in set(values).difference(seen):
                    assert value is not None  # None is always in `seen`
                    seen[value] = 1 + zlib.crc32(value.encode()) % (column.buckets - 1)
                ids[:, j] = [seen[value] for value in values]
        return ids
