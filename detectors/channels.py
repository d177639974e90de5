"""Channels: what is watched of each row, as bounded statistics around a reference.

Of a scored row each numeric column and the score are watched for location and spread, by the row's rank in the
reference (a conformal p-value, Vovk 2021: uniform whatever the column's distribution), each categorical column for the
share of every value, and every column for missing values. Of a row with a label are watched the label, the residual
(label minus score), and the residual in either half of every column: a concept drift need not change the error
rate, but it does change where the errors are.

Values come in standard deviations, less a :func:`margin`: the reference is a sample, and without
the margin its own error, small as it is, would be betted on for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.rows import Float64, Rows, Schema

MARGIN = 2.0  # standard errors of the reference, at least
VALUES = 16  # of a category that are watched one by one; the rest together
SCORE, LABEL = "score", "label"
_OTHER = "\0other"

_Columns = Callable[[Rows], Float64]


class Name(NamedTuple):
    """A channel: of which ``column`` it watches ``what``, and for a change ``to`` what."""

    column: str
    what: str
    to: str

    def __str__(self) -> str:
        return f"{self.what} of {self.column} {self.to}"


class Channels:
    """Names, lowest values [K] and weights [K] (adding up to 1) of K channels; :meth:`__call__` gives their values."""

    def __init__(self, parts: Sequence[_Part], rows: int) -> None:
        self._parts = parts
        self.names = [name for part in parts for name in part.names]
        lowest = np.concatenate([part.lowest for part in parts])
        self._margin = margin(len(self.names), rows)
        self.lowest: Float64 = lowest - self._margin
        shares = np.concatenate([np.full(len(part.names), part.weight / len(part.names)) for part in parts])
        self.weight: Float64 = shares / shares.sum()

    def __call__(self, rows: Rows) -> Float64:
        """Values [n, K] of ``rows``: in standard deviations of the reference, the margin taken off."""
        values = np.concatenate([part(rows) for part in self._parts], axis=1)
        values -= self._margin
        return values


class _Part:
    """Channels of one kind; ``weight`` is the share of the kind."""

    names: list[Name]
    lowest: Float64
    weight: float

    def __call__(self, rows: Rows) -> Float64:
        raise NotImplementedError


def margin(channels: int, rows: int) -> float:
    """What each of so many ``channels`` gives away, for the error of a reference of so many ``rows``.

    Of K standard errors the largest is about √(2 ln K).
    """
    return max(MARGIN, float(np.sqrt(2 * np.log(channels)))) / float(np.sqrt(rows))


def of_scored(reference: Rows, schema: Schema) -> Channels:
    """The channels of rows without a label, from ``reference``."""
    numeric = (
        [_Ranks(schema.numeric, reference.numeric, lambda rows: rows.numeric, 0.5)] if schema.numeric else []
    )
    score = _Ranks((SCORE,), reference.score[:, None], lambda rows: rows.score[:, None], 0.25)
    parts: list[_Part] = [*numeric, score]
    if schema.numeric:
        parts.append(_Missing(schema.numeric, reference.numeric))
    if schema.categorical:
        parts.append(_Shares(schema.categorical, reference.categorical))
    return Channels(parts, len(reference))


def of_labelled(reference: Rows, schema: Schema) -> Channels:
    """The channels of rows with a label, from ``reference``, whose rows all have one."""
    shares, residuals = (
        [Name(column, what, to) for to in ("up", "down")]
        for column, what in ((LABEL, "share"), (SCORE, "residual"))
    )
    share = _proportion(reference.label.sum(keepdims=True).astype(np.int64), len(reference))
    everywhere = np.ones((len(reference), 1))
    contexts = _Contexts(reference, schema)
    parts: list[_Part] = [
        _Centred(shares, _label, 0.3, *share),
        _Centred(residuals, _residual, 0.3, *_moments(reference, everywhere)),
        _Centred(contexts.names, contexts, 0.4, *_moments(reference, contexts.where(reference))),
    ]
    return Channels(parts, len(reference))


class _Ranks(_Part):
    """Location and spread of columns, by rank."""

    def __init__(self, columns: Sequence[str], reference: Float64, of: _Columns, weight: float) -> None:
        self._of, self.weight = of, weight
        self._sorted = [np.sort(column[~np.isnan(column)]) for column in reference.T]
        self._count = np.array([len(each) for each in self._sorted]) + 1.0
        # By kind first: [n, 4, F] is filled without copying.
        self.names = [
            Name(column, what, to)
            for what, to in (
                ("location", "up"),
                ("location", "down"),
                ("spread", "wider"),
                ("spread", "narrower"),
            )
            for column in columns
        ]
        # sd of 2u - 1 is 3 ** -.5, of 6 (u - .5)² - .5 it is .2 ** .5
        least = (-np.sqrt(3), -np.sqrt(3), -0.5 / np.sqrt(0.2), -1 / np.sqrt(0.2))
        self.lowest = np.repeat(least, len(columns))

    def __call__(self, rows: Rows) -> Float64:
        values = self._of(rows)  # [n, F]
        n, columns = values.shape
        low, high = np.empty((n, columns)), np.empty((n, columns))
        for j, known in enumerate(self._sorted):
            low[:, j] = known.searchsorted(values[:, j], "left")
            high[:, j] = known.searchsorted(values[:, j], "right")
        # Among equals the rank is drawn: so it is uniform, and a column of few values is watched like any other.
        rank = (low + _uniform(rows.key, columns) * (high - low + 1)) / self._count
        centred = rank - 0.5
        centred[np.isnan(values)] = np.nan
        found = np.empty((n, 4, columns))
        found[:, 0] = centred * (2 * np.sqrt(3))
        found[:, 1] = -found[:, 0]
        found[:, 2] = (6 * centred**2 - 0.5) / np.sqrt(0.2)
        found[:, 3] = -found[:, 2]
        return np.nan_to_num(found.reshape(n, 4 * columns), copy=False)


class _Missing(_Part):
    """The share of missing values of numeric columns."""

    def __init__(self, columns: Sequence[str], reference: Float64) -> None:
        self.weight = 0.1
        self._share, self._sd = _proportion(np.isnan(reference).sum(axis=0), len(reference))
        self.names = [Name(column, "missing values", to) for to in ("more", "fewer") for column in columns]
        self.lowest = np.concatenate([-self._share, self._share - 1]) / np.tile(self._sd, 2)

    def __call__(self, rows: Rows) -> Float64:
        more = (np.isnan(rows.numeric) - self._share) / self._sd  # [n, F]
        return np.concatenate([more, -more], axis=1)


class _Shares(_Part):
    """The share of every frequent value of categorical columns, of the other values, and of missing ones."""

    def __init__(self, columns: Sequence[str], reference: NDArray[np.object_]) -> None:
        self.weight = 0.25
        self._codes: list[dict[str | None, int]] = []
        self.names, counts = [], []
        for column, values in zip(columns, reference.T, strict=True):
            found = frequent(values)
            self._codes.append({value: len(self.names) + at for at, value in enumerate(found)})
            told = dict.fromkeys(found, 0)
            for value in values.tolist():
                told[value if value in told else _OTHER] += 1
            self.names += [Name(column, f"share of {shown(value)}", "up") for value in found]
            counts += list(told.values())
        self._share, self._sd = _proportion(np.array(counts), len(reference))
        self.names += [name._replace(to="down") for name in self.names]
        self.lowest = np.concatenate([-self._share, self._share - 1]) / np.tile(self._sd, 2)

    def __call__(self, rows: Rows) -> Float64:
        n = len(rows)
        indicators = np.zeros((n, len(self._share)))
        for values, codes in zip(rows.categorical.T, self._codes, strict=True):
            other = codes[_OTHER]
            indicators[np.arange(n), [codes.get(value, other) for value in values.tolist()]] = 1
        up = (indicators - self._share) / self._sd
        return np.concatenate([up, -up], axis=1)


class _Centred(_Part):
    """Statistics of rows with a label that lie within -1 and 1, less their ``mean`` [C] and in their ``sd`` [C], either way."""

    def __init__(self, names: list[Name], of: _Columns, weight: float, mean: Float64, sd: Float64) -> None:
        self._of, self.names, self.weight = of, names, weight
        self._mean, self._sd = mean, sd
        self.lowest = np.concatenate([-1 - self._mean, self._mean - 1]) / np.tile(self._sd, 2)

    def __call__(self, rows: Rows) -> Float64:
        up = (self._of(rows) - self._mean) / self._sd
        return np.concatenate([up, -up], axis=1)


class _Contexts:
    """The residual where a column is in its upper half, and reversed in its lower; and within each frequent value."""

    def __init__(self, reference: Rows, schema: Schema) -> None:
        self._medians = np.array([_median(column) for column in _columns(reference).T])
        self._values = [
            (j, value)
            for j in range(len(schema.categorical))
            for value in frequent(reference.categorical[:, j])
            if value != _OTHER
        ]
        columns = [(name, f"residual by {name}") for name in (*schema.numeric, SCORE)]
        columns += [(schema.categorical[j], f"residual at {shown(value)}") for j, value in self._values]
        self.names = [Name(column, what, to) for to in ("up", "down") for column, what in columns]

    def __call__(self, rows: Rows) -> Float64:
        return np.asarray(self.where(rows) * _residual(rows))

    def where(self, rows: Rows) -> Float64:
        """What the residual is multiplied by, [n, C]: 1, -1 or 0."""
        side = np.nan_to_num(np.sign(_columns(rows) - self._medians))
        inside = [(rows.categorical[:, j] == value)[:, None] for j, value in self._values]
        return np.concatenate([side, *inside], axis=1)


def frequent(values: NDArray[np.object_]) -> list[str | None]:
    """The most frequent of ``values`` [n], at most ``VALUES``, in a stable order, None if any is missing, and _OTHER."""
    found, counts = np.unique([value for value in values.tolist() if value is not None], return_counts=True)
    order = np.lexsort((found, -counts))[:VALUES]
    missing: list[str | None] = [None] if None in values.tolist() else []
    return [*(str(value) for value in found[order]), *missing, _OTHER]


def shown(value: str | None) -> str:
    """``value`` of a category, for people."""
    return "missing" if value is None else "other values" if value == _OTHER else repr(value)


def _columns(rows: Rows) -> Float64:
    return np.concatenate([rows.numeric, rows.score[:, None]], axis=1)


def _median(column: Float64) -> float:
    known = column[~np.isnan(column)]
    return float(np.median(known)) if len(known) else 0.0


def _label(rows: Rows) -> Float64:
    return rows.label[:, None]


def _residual(rows: Rows) -> Float64:
    return (rows.label - rows.score)[:, None]


def _moments(reference: Rows, where: Float64) -> tuple[Float64, Float64]:
    """Mean and sd [C] of the residual, taken ``where`` [n, C] says: 1, -1 or 0.

    The sd is never below the model's own, by which a label is drawn with the score's probability, nor below that of a
    label seen in half a row; within a context, of its share of the rows. The sample's own is too small where outcomes are
    rare: of 300 rows at a rate of .003 there is no positive in 4 samples of 10, and then the next one is a miracle.
    """
    half = 0.5 / (len(reference) + 1)
    residual = _residual(reference)
    by_model = float((reference.score * (1 - reference.score)).mean())
    usual = max(by_model, float(residual.var()), half * (1 - half))
    share, _ = _proportion(np.count_nonzero(where, axis=0), len(reference))
    found = where * residual
    return found.mean(axis=0), np.sqrt(np.maximum(found.var(axis=0), share * usual))


def _proportion(count: NDArray[np.int64], n: int) -> tuple[Float64, Float64]:
    """Shares and their standard deviations; what was never seen has half a row, so that seeing it is no miracle."""
    share = (count + 0.5) / (n + 1)
    return share, np.sqrt(share * (1 - share))


def _uniform(key: NDArray[np.uint64], columns: int) -> Float64:
    """Numbers [n, columns] between 0 and 1 that depend on the key alone: splitmix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        x = key[:, None] * np.uint64(0x9E3779B97F4A7C15) + np.arange(
            1, columns + 1, dtype=np.uint64
        ) * np.uint64(0xD1342543DE82EF95)
        x ^= x >> np.uint64(30)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(27)
        x *= np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53
