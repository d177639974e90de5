"""Blocks: decisions are watched a block of event time at a time, in an order drawn at random within it.

What is told of a day's decisions must not depend on the hour: devices, items and people differ between night and noon,
and an alarm that reads them in order of time takes every evening for a drift. In random order the decisions of a block
are exchangeable, and what differs between blocks is what is left to find. The price is a delay of up to a block.

A block is over when the first decision of a later one arrives; those that come later still are watched with the next. The
rows that wait are in no state: whoever goes on from a :class:`Mark` reads them from the topic again.
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
    """Up to where blocks are released: the latest one's number, the offset that ended it, and the newest time in it, ms."""

    block: int
    offset: int
    newest: int | None


START = Mark(NEVER, -1, None)


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
        self._newest = mark.block  # the latest block of which a row has come

    @property
    def first(self) -> int | None:
        """The offset of the first row that waits; None if none does."""
        return min((int(at.min()) for _, at in self._waiting), default=None)

    def add(self, rows: Rows, at: NDArray[np.int64]) -> list[Released]:
        """Take in ``rows``, which came at the offsets ``at`` [n], rising, and return the blocks that they end.

        Rows that were released before the mark, and are read again, are passed over.
        """
        found: list[Released] = []
        block = rows.time // self._length
        seen = (at <= self.mark.offset) & (block <= self.mark.block)
        if seen.any():
            rows, at, block = rows[~seen], at[~seen], block[~seen]
        begin = 0
        # Where a row is of a later block than all before it, those before it are complete.
        latest = np.maximum.accumulate(np.append(self._newest, block))
        for end in np.flatnonzero(latest[1:] > latest[:-1]).tolist():
            self._wait(rows[begin:end], at[begin:end])
            found += self._release(int(latest[end]), int(at[end]))
            begin = end
        self._wait(rows[begin:], at[begin:])
        self._newest = int(latest[-1])
        return found

    def finish(self) -> list[Released]:
        """Release what waits, though its block is not over: there are no more rows."""
        return self._release(self._newest, self.mark.offset)

    def _wait(self, rows: Rows, at: NDArray[np.int64]) -> None:
        if len(rows):
            self._waiting.append((rows, at))

    def _release(self, block: int, offset: int) -> list[Released]:
        """Release all that waits up to ``block``; ``offset`` is that of the row which ends it."""
        if not self._waiting:
            return []
        rows = concatenate([each for each, _ in self._waiting])
        self._waiting = []
        pace, newest = pace_of(rows, self.mark.newest), int(rows.time.max())
        self.mark = Mark(block, offset, max(newest, newest if self.mark.newest is None else self.mark.newest))
        return [Released(rows[np.argsort(rows.key, kind="stable")], pace, offset)]
