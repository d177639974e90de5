"""Faults: named checks that tell broken data from a drift of the world. The panel calls them, after an alarm and on every block.

A drift asks for another model, a fault for somebody who mends a pipeline; a model trained on faulty data is worse than
none. Each check looks for what a drift does not do, and needs no labels. Faults may set in shortly after the window's
begin, or concern only six rows in ten, so each asks for a share of the rows well below the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.pace import LATE, Pace, lags
from detectors.rows import Float64, Rows, Schema
from detectors.units import unit_changes
from detectors.verdict import Fault

Columns = Sequence[tuple[str, Float64, Float64]]  # name, values in the reference, values in the window

VARIETY = 2.5  # least number of values, were all alike frequent (1 / Σ share²), of a column that can freeze: no flags
RARE = 0.002  # share in the reference of a value that is no mode
FROZEN = 0.97  # share of the value of a frozen column in the window's last four fifths: faults set in after its begin
STUCK = 0.45  # the same in the whole window above that of the reference's mode, of a value that was rare
MORE_MISSING = 0.3
UNSEEN = 0.0005  # share in the reference below which a value has hardly ever been seen: of 1,000 rows in none
UNKNOWN = 0.4  # share of unknown values above what the reference has of its own; a new value at .3 is a drift
COPIES, FEW_COPIES = 0.2, 0.1  # share of rows that repeat one before: more in the window, most before
FASTER = 2.5  # the pace of a burst against that before
NEAR = 0.02  # mean distance over columns, in units of their 5 … 95 % range, of rows that are nearly identical
CROWD, EMPTY = 0.3, 0.01  # share of rows near one row: in the window, and at most in the reference
SKEWED = 0.3  # share of rows with a clock that is off; more than lie beyond a quartile
REPLAYED = 3.0  # times as fast or slow as clocks, that event time passes where it is not the clocks' (history sent again)
ALIKE = 0.2  # interquartile range of the lag of clocks that are behind, to its median
FAR = 5.0  # times the lag's interquartile range, and at least ``LATE``: how far off a clock is


class Usual(msgspec.Struct, frozen=True):
    """How far single blocks of what a model was trained on went, by column: the largest shares in one of them.

    Of ``missing`` values, of values that are ``alike``, and of ``strange`` ones, which the reference hardly has. What
    blocks did then is no fault now: a week in which all are newcomers has no history, and one assessment falls due on one day.
    """

    missing: dict[str, float] = {}
    alike: dict[str, float] = {}
    strange: dict[str, float] = {}


UNKNOWN_USUAL = Usual()  # nothing is known of what is usual


def column_faults(reference: Rows, window: Rows, schema: Schema, usual: Usual = UNKNOWN_USUAL) -> list[Fault]:
    """What is wrong with columns of ``window``, some 300 rows or more after an alarm, against ``reference`` (1,000 or more)."""
    numeric = list(zip(schema.numeric, reference.numeric.T, window.numeric.T, strict=True))
    codes = _coded(reference, window)
    categorical = [(name, old, new) for name, (old, new) in zip(schema.categorical, codes, strict=True)]
    return [
        *unit_changes(schema.numeric, reference.numeric, window.numeric),
        *_frozen_fields(numeric, FROZEN, usual),
        *_frozen_fields(categorical, 1.0, usual),
        *_null_fields([*numeric, *categorical], usual),
        *_unknown_values(categorical, usual),
    ]


def arrival_faults(reference: Rows, block: Rows, before: Pace | None, now: Pace | None) -> list[Fault]:
    """What is wrong with how the rows of ``block``, 300 or more, came: they may change no column, and so raise no alarm.

    ``now`` is their pace and ``before`` that of an earlier block; without these, or where times are not known, checks of
    time find nothing.
    """
    block = block[: len(reference)]  # of more rows, more are alike
    return [
        *_duplicate_flood(reference, block, _coded(reference, block)),
        *(_bot_burst(reference, block, before, now) if before and now else ()),
        *(_clock_skew(block, before, now) if before and now else ()),
    ]


def _coded(reference: Rows, window: Rows) -> list[list[Float64]]:
    return [_codes(*each) for each in zip(reference.categorical.T, window.categorical.T, strict=True)]


def _codes(*columns: NDArray[np.object_]) -> list[Float64]:
    """Numbers for the values of categorical ``columns``, the same in all; NaN for None."""
    values = [column.tolist() for column in columns]
    known = dict.fromkeys(chain(*values))
    number = dict(zip(known, map(float, range(len(known))), strict=True))
    if None in number:
        number[None] = np.nan
    return [np.array(list(map(number.__getitem__, each)), np.float64) for each in values]


def _frozen_fields(columns: Columns, least: float, usual: Usual) -> Iterator[Fault]:
    """Fields of which a share of ``least`` is one value: of a category all, as it may lose all values but one by drift."""
    for name, old, new in columns:
        if usual.alike.get(name, 0.0) >= FROZEN:
            continue
        present = ~np.isnan(new)
        frozen = _frozen(old, new[present], new[len(new) // 5 :][present[len(new) // 5 :]], least)
        if frozen:
            yield Fault("frozen-field", name, frozen)


def _frozen(old: Float64, new: Float64, last: Float64, least: float) -> str:
    """What is to be said of a column that has frozen; nothing of another.

    The world makes flags all alike (no campaign runs), and takes a count that is mostly 0 to 0; but a column of variety
    does not end at one value. That a value was rare and is half of all says it as well, unless it is 0, which all counts
    of newcomers are, or a value of that share there has been before and may have moved.
    """
    if len(last) < 50:
        return ""
    value = float(np.partition(last, len(last) // 2)[len(last) // 2])
    held, share = (float((each == value).mean()) for each in (last, new))
    if max(held, share) < STUCK:
        return ""
    old = old[~np.isnan(old)]
    if len(old) < 50:
        return ""
    known = float((old == value).mean())
    counts = np.unique(old, return_counts=True)[1] / len(old)
    stuck = share >= STUCK + counts.max() and known < RARE and value != 0 and len(counts) >= 20
    if not stuck and (held < least or (counts**2).sum() * VARIETY > 1):
        return ""
    return f"{held:.0%} of the values are one, before {known:.1%}"


def _null_fields(columns: Columns, usual: Usual) -> Iterator[Fault]:
    for name, old, new in columns:
        was, now = float(np.isnan(old).mean()), float(np.isnan(new).mean())
        was = max(was, usual.missing.get(name, 0.0))
        if now - was >= MORE_MISSING:
            yield Fault("null-field", name, f"{now:.0%} of the values are missing, before {was:.0%}")


def _unknown_values(columns: Columns, usual: Usual) -> Iterator[Fault]:
    for name, old, new in columns:
        values, others = (each[~np.isnan(each)].astype(np.int64) for each in (old, new))
        if min(len(values), len(others)) < 50:
            continue
        half = len(values) // 2  # of a column of many values one half holds some that the other has not
        own, unknown = _unknown(values[:half], values[half:]), _unknown(values, others)
        own = max(own, usual.strange.get(name, 0.0))
        if unknown - own >= UNKNOWN:
            yield Fault(
                "unknown-values", name, f"{unknown:.0%} of the values were hardly ever seen, before {own:.0%}"
            )


def _unknown(known: NDArray[np.int64], values: NDArray[np.int64]) -> float:
    counts = np.bincount(known, minlength=int(values.max()) + 1)
    return float((counts[values] < UNSEEN * len(known)).mean())


def _duplicate_flood(reference: Rows, window: Rows, codes: Sequence[list[Float64]]) -> Iterator[Fault]:
    n = len(window)  # as many rows of either: of more, more are alike
    old = np.column_stack([reference.numeric[:n], *(old[:n] for old, _ in codes)])
    was, now = _copies(old), _copies(np.column_stack([window.numeric, *(new for _, new in codes)]))
    if was <= FEW_COPIES and now - was >= COPIES:
        yield Fault(
            "duplicate-flood", "", f"{now:.0%} of the rows repeat another in all columns, before {was:.0%}"
        )


def _copies(values: Float64) -> float:
    """The share of the rows of ``values`` [n, D] that repeat one before; by hashes, wrong by a chance in 10¹³ a row."""
    odd = np.random.default_rng(0).integers(2**63, size=values.shape[1], dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
    bits = np.ascontiguousarray(np.where(np.isnan(values), np.nan, values + 0.0)).view(
        np.uint64
    )  # one NaN, one zero
    mixed = (bits ^ (bits >> np.uint64(32))) * odd  # round numbers end in zero bits, which a product keeps
    hashes = (mixed ^ (mixed >> np.uint64(29))).sum(axis=1, dtype=np.uint64)
    return 1 - len(np.unique(hashes)) / len(hashes)


def _bot_burst(reference: Rows, window: Rows, before: Pace, now: Pace) -> Iterator[Fault]:
    if not now.rate or not before.rate or now.rate < FASTER * before.rate:
        return
    known, some = reference[:: max(1, len(reference) // 1000)], window[:: max(1, len(window) // 300)]
    ordered, present = np.sort(known.numeric, axis=0), (~np.isnan(known.numeric)).sum(axis=0)
    low, high = (
        ordered[(q * np.maximum(present - 1, 0)).astype(int), range(len(present))] for q in (0.05, 0.95)
    )
    scale = np.where(high > low, high - low, 1.0)
    # That none of 12 rows lies in a crowd of .4 has the chance .002.
    anchors = some[np.linspace(0, len(some) - 1, 12).astype(np.int64)]
    crowd, k = max((_near(some, anchors[k : k + 1], scale), k) for k in range(12))
    visited = _near(known, anchors[k : k + 1], scale)
    if crowd >= CROWD and visited <= EMPTY:
        yield Fault(
            "bot-burst",
            "",
            f"{now.rate / before.rate:.1f} times as many rows an hour, {crowd:.0%} nearly identical, before {visited:.1%}",
        )


def _near(rows: Rows, anchor: Rows, scale: Float64) -> float:
    """The share of ``rows`` nearly identical to ``anchor``."""
    gone = np.minimum(np.abs(rows.numeric - anchor.numeric) / scale, 1.0)  # [n, F]
    unknown = np.isnan(rows.numeric) != np.isnan(anchor.numeric)
    gone = np.where(unknown, 1.0, np.nan_to_num(gone))
    distance = np.hstack([gone, rows.categorical != anchor.categorical]).mean(axis=1)
    return float((distance <= NEAR).mean())


def _clock_skew(window: Rows, before: Pace, now: Pace) -> Iterator[Fault]:
    """Clocks that run ahead, or behind by one and the same time.

    Events that are only sent later than they were, as after an outage or by the hour, are late by times of all lengths.
    Where it is not known when events came, their order has to tell.
    """
    lag = lags(window.time, window.received)
    if before.lag is None or before.lag_spread is None or len(lag) < 50:
        if now.late - before.late >= SKEWED:
            yield Fault(
                "clock-skew",
                "",
                f"{now.late:.0%} of the rows lie 10 min behind the newest, before {before.late:.1%}",
            )
        return
    if before.speed is None or not 1 / REPLAYED < before.speed < REPLAYED:
        return
    off = max(LATE, FAR * before.lag_spread)
    for way, wrong in (("ahead", lag < before.lag - off), ("behind", lag > before.lag + off)):
        share = float(wrong.mean())
        if share < SKEWED:
            continue
        low, middle, high = np.quantile(lag[wrong], (0.25, 0.5, 0.75)).tolist()
        if way == "ahead" or high - low <= ALIKE * (middle - before.lag):
            yield Fault(
                "clock-skew", "", f"{share:.0%} of the event times are {off / 6e4:.0f} min or more {way}"
            )
            return
