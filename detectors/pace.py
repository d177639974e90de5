"""Pace: how fast rows arrive and how late, before an alarm. The panel keeps it; :mod:`detectors.faults` compares with it."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.rows import Float64, Rows

HOUR = 3_600_000  # ms
LATE = 600_000  # ms behind the newest event time, after which a row counts as late
KEPT = 1000  # rows that a pace speaks of: the newest; 17 kB


class Pace(msgspec.Struct, frozen=True):
    """What arrival was like; None where nothing is known of it, as of ``received`` in a replay."""

    rate: float | None  # rows per hour of event time
    lag: float | None  # ms from event time to receipt: the median
    lag_spread: float | None  # ms between its quartiles
    late: float  # share of rows whose event time lay more than ``LATE`` behind the newest before them
    newest: int  # event time, ms


class Kept(msgspec.Struct, array_like=True):
    """What :meth:`Pacing.restore` takes: bytes of the newest rows' times, receipts and lateness."""

    time: bytes
    received: bytes
    behind: bytes
    newest: int | None


class Pacing:
    """The pace of the newest ``kept`` rows of a stream; a longer memory reacts later to a new time of the day."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._time: NDArray[np.int64] = np.empty(0, np.int64)
        self._received: NDArray[np.int64] = np.empty(0, np.int64)
        self._behind: NDArray[np.bool_] = np.empty(0, np.bool_)
        self._newest: int | None = None

    def add(self, rows: Rows) -> None:
        """Take note of the next rows: some 10 µs a batch."""
        if not len(rows):
            return
        behind = behind_newest(rows, self._newest) > LATE
        self._newest = max(int(rows.time.max()), int(rows.time[0]) if self._newest is None else self._newest)
        self._time = np.concatenate([self._time, rows.time])[-self._kept :]
        self._received = np.concatenate([self._received, rows.received])[-self._kept :]
        self._behind = np.concatenate([self._behind, behind])[-self._kept :]

    def value(self) -> Pace | None:
        """The pace; None before the first row."""
        if self._newest is None:
            return None
        known = lags(self._time, self._received)
        low, middle, high = np.quantile(known, (0.25, 0.5, 0.75)).tolist() if len(known) else (None,) * 3
        return Pace(
            rate=rate(self._time),
            lag=middle,
            lag_spread=None if low is None else high - low,
            late=float(self._behind.mean()),
            newest=self._newest,
        )

    def kept(self) -> Kept:
        """What :meth:`restore` takes."""
        return Kept(self._time.tobytes(), self._received.tobytes(), self._behind.tobytes(), self._newest)

    def restore(self, kept: Kept) -> None:
        """Go on from ``kept``."""
        self._time, self._received = (
            np.frombuffer(kept.time, np.int64),
            np.frombuffer(kept.received, np.int64),
        )
        self._behind, self._newest = np.frombuffer(kept.behind, np.bool_), kept.newest


def pace_of(rows: Rows) -> Pace | None:
    """The pace of ``rows``, all of them; None of none."""
    pacing = Pacing(max(1, len(rows)))
    pacing.add(rows)
    return pacing.value()


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


def behind_newest(rows: Rows, newest: int | None) -> NDArray[np.int64]:
    """How many ms [n] each row lies behind the newest event time before it, ``newest`` being that before the first."""
    before = np.concatenate([rows.time[:1] if newest is None else [newest], rows.time[:-1]]).astype(np.int64)
    return np.asarray(np.maximum.accumulate(before) - rows.time, np.int64)
