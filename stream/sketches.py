"""Small memories of long streams: hash samples, distinct counts, frequent values and random samples.

Each holds a bounded number of rows however long the stream is. Used by ``stream/explore.py``.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
_ALL = 2**64 - 1
DISTINCT_BOUND = (
    8192  # hashes held by a distinct count: it is exact up to here, then 1.6 % off at most on average
)
FREQUENT_BOUND = 2048  # values whose counts are kept


def hashes(values: Iterable[str]) -> Hashes:
    """64-bit hashes [n] of n strings, the same in every process."""
    digests = [blake2b(value.encode(), digest_size=8).digest() for value in values]
    return np.frombuffer(b"".join(digests), np.uint64)


def column_hashes(values: Iterable[str | None]) -> Hashes:
    """The same for a column [n] in which values repeat; a missing one is 0."""
    column = list(values)
    names = [value for value in dict.fromkeys(column) if value is not None]
    known: dict[str | None, int] = dict(zip(names, hashes(names).tolist(), strict=True))
    return np.array([known.get(value, 0) for value in column], np.uint64)


def number_hashes(values: NDArray[np.float64]) -> Hashes:
    """64-bit hashes [n] of numbers [n]: the finalizer of SplitMix64 (Steele et al. 2014)."""
    mixed = (values + 0.0).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)  # -0.0 is 0.0
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


class HashSample:
    """Rows whose key hashes below a limit, which halves whenever more than ``bound`` rows are held.

    A key is kept with all its rows or with none of them, whatever their order: adaptive sampling
    (Wegman; Flajolet 1990). Two runs over the same rows keep the same keys.
    """

    def __init__(self, bound: int) -> None:
        self._bound, self._limit, self._rows = bound, _ALL, 0
        self._parts: list[tuple[NDArray[np.generic], ...]] = []
        self.share = 1.0  # of all keys that are kept

    def add(self, keys: Hashes, *columns: NDArray[np.generic]) -> None:
        """Take rows: their hashed ``keys`` [n] and further ``columns`` [n], the same columns each time."""
        self._keep(keys <= np.uint64(self._limit), (keys, *columns))
        while self._rows > self._bound:
            self._limit //= 2
            self.share /= 2
            held, self._parts, self._rows = self.columns(), [], 0
            self._keep(held[0] <= np.uint64(self._limit), held)

    def _keep(self, which: NDArray[np.bool_], columns: tuple[NDArray[np.generic], ...]) -> None:
        self._parts.append(tuple(column[which] for column in columns))
        self._rows += int(which.sum())

    def columns(self) -> tuple[NDArray[np.generic], ...]:
        """The keys [k] and other columns [k] of the rows kept, in the order they came; none before any came."""
        return tuple(map(np.concatenate, zip(*self._parts, strict=True)))


class Distinct:
    """How many different keys came: exact up to ``DISTINCT_BOUND``, then by adaptive sampling of them."""

    def __init__(self) -> None:
        self._limit, self._times = _ALL, 1
        self._held = np.empty(0, np.uint64)

    def add(self, keys: Hashes) -> None:
        """Take hashed keys [n]."""
        self._held = np.union1d(self._held, keys[keys <= np.uint64(self._limit)])
        while len(self._held) > DISTINCT_BOUND:
            self._limit //= 2
            self._times *= 2
            self._held = self._held[self._held <= np.uint64(self._limit)]

    @property
    def count(self) -> int:
        """How many, about."""
        return len(self._held) * self._times

    @property
    def exact(self) -> bool:
        """Whether ``count`` is exact but for collisions of 64-bit hashes."""
        return self._times == 1


class Frequent:
    """The most frequent values: Misra-Gries counters, pruned in batches (Agarwal et al. 2012).

    A value's count is at most ``lost`` too small, and ``lost`` at most a 2048th of all that came.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self.lost = 0

    def add(self, counts: Mapping[str, int]) -> None:
        """Take values with how often each came."""
        self._counts.update(counts)
        if len(self._counts) > 2 * FREQUENT_BOUND:
            cut = sorted(self._counts.values(), reverse=True)[FREQUENT_BOUND]
            self._counts = Counter({value: n - cut for value, n in self._counts.items() if n > cut})
            self.lost += cut

    def top(self, n: int) -> tuple[tuple[str, int], ...]:
        """The ``n`` most frequent, with their counts; equal counts in order of the value."""
        return tuple(itertools.islice(sorted(self._counts.items(), key=lambda each: (-each[1], each[0])), n))


class Reservoir:
    """A uniform random sample of ``size`` numbers: those with the smallest of random marks (seeded)."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._random = size, np.random.default_rng(seed)
        self._marks = np.empty(0)
        self._values = np.empty(0)

    def add(self, values: NDArray[np.float64]) -> None:
        """Take numbers [n]."""
        marks = self._random.random(len(values))
        if len(self._marks) == self._size:
            below = marks < self._marks.max()
            marks, values = marks[below], values[below]
        self._marks = np.concatenate([self._marks, marks])
        self._values = np.concatenate([self._values, values])
        if len(self._marks) > self._size:
            kept = np.argpartition(self._marks, self._size)[: self._size]
            self._marks, self._values = self._marks[kept], self._values[kept]

    @property
    def values(self) -> NDArray[np.float64]:
        """The sample, up to [size]."""
        return self._values
