"""Injection: faults put into rows, and the four drifts of the KDD 2026 protocol put into a data set, by seed.

The drifts are those of Cerqueira et al., "A Framework for Evaluating and Benchmarking Concept Drift Detection Methods"
(KDD 2026, arXiv 2606.07789). Used by the benchmark and by ``tests/test_faults_of_data.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.rows import Float64, Rows

DRIFTS = ("x_exceed_skip", "y_prior_skip", "y_swaps", "x_permutations")  # covariate, label, concept, mixed
UNITS = (
    (60.0, 0.0),
    (1000.0, 0.0),
    (0.001, 0.0),
    (1.8, 32.0),
    (100.0, 0.0),
    (0.01, 0.0),
    (24.0, 0.0),
)  # factor, offset
HOUR = 3_600_000  # ms
BURST = 5  # times the pace

Int64 = NDArray[np.int64]
Random = np.random.Generator


def inject_drift(
    features: Float64, label: Float64 | Int64, kind: str, rng: Random, width: int
) -> tuple[Float64, Float64, Int64, int]:
    """``features`` [n, F] and ``label`` [n] (0 or 1), shuffled, with a drift between .5 and .8 of the stream.

    ``width`` rows long the drift sets in, row by row with growing probability; 0 is abrupt. Kinds: ``x_exceed_skip``
    leaves out rows above the median of one column, ``y_prior_skip`` three in four of one class, ``y_swaps`` gives one
    class the other's label, ``x_permutations`` permutes the columns.

    Returns features and labels of the rows that are left, the index of each in the shuffled stream before any was left
    out, and the index there at which the drift begins.
    """
    n = len(features)
    order = rng.permutation(n)
    x, y = features[order].copy(), label[order].astype(np.float64)
    location = int(n * rng.uniform(0.5, 0.8))
    of_class = rng.integers(0, 2)
    columns = rng.permutation(x.shape[1])
    column = rng.integers(0, x.shape[1])
    above = x[:, column] > np.median(x[:, column])
    skipped = rng.random(n) < 0.75
    at = np.arange(n)
    on = at >= location
    if width:
        on &= rng.random(n) < np.clip((at - location) / width, 0, 1)
    kept = np.ones(n, np.bool_)
    if kind == "x_exceed_skip":
        kept = ~(on & above)
    elif kind == "y_prior_skip":
        kept = ~(on & (y == of_class) & skipped)
    elif kind == "y_swaps":
        y[on & (y == of_class)] = 1 - of_class
    elif kind == "x_permutations":
        x[on] = x[on][:, columns]
    else:
        raise ValueError(f"unknown drift {kind!r}: one of {DRIFTS}")
    index = np.flatnonzero(kept)
    return x[index], y[index], index, location


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """What a fault does; None: drawn at random."""

    share: float | None = None  # of the rows from its begin on that it concerns
    column: int | None = None  # numeric, of unknown-values categorical
    unit: tuple[float, float] | None = None  # factor and offset of unit-change
    hours: float | None = None  # that clocks run ahead; below 0: behind
    last: bool | None = None  # frozen at the value before its begin, rather than at one of any row


def inject_fault(rows: Rows, begin: int, kind: str, rng: Random, how: Injection | None = None) -> Rows:
    """``rows`` with the fault ``kind``, of ``FAULTS``, from row ``begin`` on."""
    how = how or Injection()
    low, high = _SHARES[kind]
    share = rng.uniform(low, high) if how.share is None else how.share
    hit = np.zeros(len(rows), np.bool_)
    hit[begin:] = rng.random(len(rows) - begin) < share
    return FAULTS[kind](rows, hit, begin, rng, how)


def _column(columns: int, rng: Random, how: Injection) -> int:
    return int(rng.integers(columns)) if how.column is None else how.column


def _numeric(rows: Rows, column: int, hit: NDArray[np.bool_], values: Float64 | float) -> Rows:
    numeric = rows.numeric.copy()
    numeric[hit, column] = values
    return msgspec.structs.replace(rows, numeric=numeric)


def _unit_change(rows: Rows, hit: NDArray[np.bool_], begin: int, rng: Random, how: Injection) -> Rows:  # noqa: ARG001
    column = _column(rows.numeric.shape[1], rng, how)
    factor, offset = UNITS[rng.integers(len(UNITS))] if how.unit is None else how.unit
    return _numeric(rows, column, hit, rows.numeric[hit, column] * factor + offset)


def _frozen_field(rows: Rows, hit: NDArray[np.bool_], begin: int, rng: Random, how: Injection) -> Rows:
    column = _column(rows.numeric.shape[1], rng, how)
    known = rows.numeric[:, column]
    known = known[~np.isnan(known)]
    last = bool(rng.integers(2)) if how.last is None else how.last
    at = max(0, min(begin, len(known)) - 1) if last else rng.integers(len(known))
    return _numeric(rows, column, hit, float(known[at]))


def _null_field(rows: Rows, hit: NDArray[np.bool_], begin: int, rng: Random, how: Injection) -> Rows:  # noqa: ARG001
    return _numeric(rows, _column(rows.numeric.shape[1], rng, how), hit, np.nan)


def _unknown_values(rows: Rows, hit: NDArray[np.bool_], begin: int, rng: Random, how: Injection) -> Rows:  # noqa: ARG001
    column = _column(rows.categorical.shape[1], rng, how)
    categorical = rows.categorical.copy()
    values = categorical[hit, column]
    categorical[hit, column] = [None if value is None else f"{value}/v2" for value in values]
    return msgspec.structs.replace(rows, categorical=categorical)


def _duplicate_flood(rows: Rows, hit: NDArray[np.bool_], begin: int, rng: Random, how: Injection) -> Rows:  # noqa: ARG001
    sources = np.flatnonzero(~hit[begin:]) + begin
    copied = np.arange(len(rows))
    copied[hit] = rng.choice(sources if len(sources) else copied[begin : begin + 1], int(hit.sum()))
    return msgspec.structs.replace(
        rows,
        numeric=rows.numeric[copied],
        categorical=rows.categorical[copied],
        score=rows.score[copied],
        label=rows.label[copied],
    )


def _bot_burst(rows: Rows, hit: NDArray[np.bool_], begin: int, rng: Random, how: Injection) -> Rows:  # noqa: ARG001
    """All rows come at ``BURST`` times the pace, and those hit are one row, jittered by a hundredth of an sd."""
    bot = rng.integers(len(rows))
    numeric, categorical = rows.numeric.copy(), rows.categorical.copy()
    jitter = (
        0.01
        * np.nan_to_num(np.nanstd(rows.numeric, axis=0))
        * rng.normal(size=(int(hit.sum()), numeric.shape[1]))
    )
    numeric[hit] = rows.numeric[bot] + jitter
    categorical[hit] = rows.categorical[bot]
    time, received = rows.time.copy(), rows.received.copy()
    start = time[: begin + 1].max()  # the newest: a row that comes late is none to count from
    time[begin:] = start + (time[begin:] - start) // BURST
    received[begin:] += np.where(received[begin:] > 0, time[begin:] - rows.time[begin:], 0)
    return msgspec.structs.replace(
        rows, numeric=numeric, categorical=categorical, time=time, received=received
    )


def _clock_skew(rows: Rows, hit: NDArray[np.bool_], begin: int, rng: Random, how: Injection) -> Rows:  # noqa: ARG001
    hours = (
        float(np.exp(rng.uniform(0, np.log(72)))) * rng.choice((-1, 1)) if how.hours is None else how.hours
    )
    return msgspec.structs.replace(rows, time=rows.time + np.where(hit, int(hours * HOUR), 0))


_Fault = Callable[[Rows, NDArray[np.bool_], int, Random, Injection], Rows]
FAULTS: dict[str, _Fault] = {
    "unit-change": _unit_change,
    "frozen-field": _frozen_field,
    "null-field": _null_field,
    "unknown-values": _unknown_values,
    "duplicate-flood": _duplicate_flood,
    "bot-burst": _bot_burst,
    "clock-skew": _clock_skew,
}
_SHARES = {  # of the rows that a fault concerns, drawn between
    "unit-change": (0.6, 1.0),
    "frozen-field": (1.0, 1.0),
    "null-field": (0.6, 1.0),
    "unknown-values": (0.6, 1.0),
    "duplicate-flood": (0.4, 0.8),
    "bot-burst": (0.5, 0.8),
    "clock-skew": (0.5, 1.0),
}
