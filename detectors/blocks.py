"""Blocks: decisions are watched a block of event time at a time, in an order drawn at random within it.

What is told of a day's decisions must not depend on the hour: devices, items and people differ between night and noon,
and an alarm that reads them in order of time takes every evening for a drift. In random order the decisions of a block
are exchangeable, and what differs between blocks is what is left to find. The price is a delay of up to a block.

A block is over when the clock of its kind passes its end: for scored decisions the latest decision's time, of any model;
for those with a label the time up to which the labels of every type of decision are final, or the types that are known
first would be watched alone. What comes later still is watched with the next. The rows that wait are in no state:
whoever goes on from a :class:`Mark` reads them from the topic again.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.pace import Pace, pace_of
from detectors.rows import Rows, concatenate

NEVER = -(1 << 62)


class Mark(msgspec.Struct, frozen=True):
    """Up to where blocks are over: the latest one's number, the offset that ended it, and the newest time seen, ms."""

    block: int
    offset: int
    newest: int | None


START = Mark(NEVER, -1, None)


class Clock(NamedTuple):
    """How far event time is, ms [m], at each of the offsets ``at`` [m] of samples of one kind, rising."""

    at: NDArray[np.int64]
    time: NDArray[np.int64]


class Released(NamedTuple):
    """The rows of a block in the order in which they are watched, how they arrived, and the offset that ended it."""

    rows: Rows
    pace: Pace | None
    offset: int


class Blocks:
    """Gathers rows, of one kind and model, by blocks of ``length`` ms."""

    def __init__(self, length: int, mark: Mark = START) -> None:
        self._length = length
        self.mark = mark
        self._waiting: list[tuple[Rows, NDArray[np.int64]]] = []
        self._now = mark.block + 1  # the block that the clock is in

    @property
    def first(self) -> int | None:
        """The offset of the first row that waits; None if none does."""
        return min((int(at.min()) for _, at in self._waiting), default=None)

    def add(self, rows: Rows, at: NDArray[np.int64], clock: Clock) -> list[Released]:
        """Take in ``rows``, which came at the offsets ``at`` [n], rising, and return the blocks that ``clock`` ends.

        Rows that were released before the mark, and are read again, are passed over.
        """
        found: list[Released] = []
        seen = (at <= self.mark.offset) & (rows.time // self._length <= self.mark.block)
        if seen.any():
            rows, at = rows[~seen], at[~seen]
        begin = 0
        latest = np.maximum.accumulate(np.append(self._now, clock.time // self._length))
        for turn in np.flatnonzero(latest[1:] > latest[:-1]).tolist():
            offset, self._now = int(clock.at[turn]), int(latest[turn + 1])
            end = int(at.searchsorted(offset))
            self._wait(rows[begin:end], at[begin:end])
            found += self._release(self._now - 1, offset)
            begin = end
        self._wait(rows[begin:], at[begin:])
        return found

    def finish(self) -> list[Released]:
        """Release what waits, though its block is not over: there are no more rows."""
        return self._release(np.iinfo(np.int64).max, self.mark.offset)

    def _wait(self, rows: Rows, at: NDArray[np.int64]) -> None:
        if len(rows):
            self._waiting.append((rows, at))

    def _release(self, block: int, offset: int) -> list[Released]:
        """Release what waits of blocks up to ``block``; ``offset`` is that of the sample which ends it."""
        self.mark = Mark(block, offset, self.mark.newest)
        if not self._waiting:
            return []
        rows = concatenate([each for each, _ in self._waiting])
        at = np.concatenate([each for _, each in self._waiting])
        number = rows.time // self._length
        over = number <= block
        self._waiting = []
        self._wait(rows[~over], at[~over])
        if not over.any():
            return []
        rows, number = rows[over], number[over]
        newest = self.mark.newest
        pace = pace_of(rows, newest)
        latest = int(rows.time.max())
        self.mark = Mark(block, offset, latest if newest is None else max(latest, newest))
        return [Released(rows[np.lexsort((rows.key, number))], pace, offset)]
