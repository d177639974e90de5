"""Pace: how fast the rows of a block arrive, and how late. :mod:`detectors.faults` compares that before an alarm and after."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.rows import Float64, Rows

HOUR = 3_600_000  # ms
LATE = 600_000  # ms behind the newest event time, after which a row counts as late


class Pace(msgspec.Struct, frozen=True):
    """What arrival was like; None where nothing is known of it, as of ``received`` in a replay."""

    rate: float | None  # rows per hour of event time
    lag: float | None  # ms from event time to receipt: the median
    lag_spread: float | None  # ms between its quartiles
    late: float  # share of rows whose event time lay more than ``LATE`` behind the newest before them
    middle: tuple[float, float] | None = None  # the median receipt and the median event time, ms
    # How many times as fast as clocks event time passed; None where nothing is known. Where history is sent again,
    # a year may pass in a minute.
    speed: float | None = None


def pace_of(rows: Rows, newest: int | None = None) -> Pace | None:
    """The pace of ``rows``, in the order in which they arrived; None of none. ``newest`` is the newest event time before."""
    if not len(rows):
        return None
    known, speed, centre = lags(rows.time, rows.received), None, None
    both = (rows.time > 0) & (rows.received > 0)
    if both.sum() >= 2:
        order = np.argsort(rows.received[both], kind="stable")
        time, received = rows.time[both][order], rows.received[both][order]
        half = len(order) // 2
        centre = _middle(time, received)
        speed = _speed(_middle(time[:half], received[:half]), _middle(time[half:], received[half:]))
    low, middle, high = np.quantile(known, (0.25, 0.5, 0.75)).tolist() if len(known) else (None,) * 3
    return Pace(
        rate=rate(rows.time),
        lag=middle,
        lag_spread=None if low is None else high - low,
        late=float((behind_newest(rows, newest) > LATE).mean()),
        middle=centre,
        speed=speed,
    )


def following(before: Pace | None, now: Pace) -> Pace:
    """``now`` with the speed at which event time passed since the block ``before``, if that is greater than within it."""
    if before is None or before.middle is None or now.middle is None:
        return now
    since = _speed(before.middle, now.middle)
    return msgspec.structs.replace(now, speed=max(now.speed or 0.0, since))


def _middle(time: NDArray[np.int64], received: NDArray[np.int64]) -> tuple[float, float]:
    return float(np.median(received)), float(np.median(time))


def _speed(first: tuple[float, float], then: tuple[float, float]) -> float:
    return (then[1] - first[1]) / max(1.0, then[0] - first[0])  # ms of event time in a ms of the clock


def rate(time: NDArray[np.int64]) -> float | None:
    """Rows per hour of event ``time`` [n], ms; None where that cannot be told: of less than 20 rows or all at one time.

    The first and last tenth are left out: one row with a wild clock would make the span what it likes.
    """
    if len(time) < 20:
        return None
    first, last = np.quantile(time, (0.1, 0.9)).tolist()
    return 0.8 * len(time) * HOUR / (last - first) if last > first else None


def lags(time: NDArray[np.int64], received: NDArray[np.int64]) -> Float64:
    """``received`` minus ``time``, ms, of the rows of which both are known."""
    known = (time > 0) & (received > 0)
    return (received[known] - time[known]).astype(np.float64)


def behind_newest(rows: Rows, newest: int | None = None) -> NDArray[np.int64]:
    """How many ms [n] each row lies behind the newest event time until then; ``newest`` is that before the first."""
    reached = np.maximum.accumulate(rows.time)
    return np.asarray((reached if newest is None else np.maximum(reached, newest)) - rows.time, np.int64)
