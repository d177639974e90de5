"""Gathering: the rows that come after an alarm, until they are enough to be diagnosed and to be a new reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.collection import Collection
from detectors.diagnosis import p_same
from detectors.rows import Rows

RESTLESS = 3  # times that gathering goes on because the rows are not at rest
REST = 0.05  # p-value below which they are not
ALWAYS = -(1 << 62)  # ms, before any row


class Kept(msgspec.Struct):
    """What the changelog keeps of a gathering, its rows apart."""

    since: int | None
    asked: int
    restless: int
    pieces: list[int]


class Gathering:
    """Rows with a label, or without one; ``steps`` are numbers of rows at which something is to be done.

    ``since`` (ms) is the time of the decisions from which on rows are gathered; None if none are. ``asked`` counts the
    diagnoses made of them.
    """

    def __init__(self, *, labelled: bool, steps: Sequence[int]) -> None:
        self._labelled, self._steps = labelled, steps
        self.stop()

    def __len__(self) -> int:
        return len(self.collection)

    @property
    def rows(self) -> Rows:
        """All that are gathered; there must be some."""
        return self.collection.rows

    def stop(self) -> None:
        """Forget the rows, and gather no more."""
        self.begin(None)

    def begin(self, since: int | None = ALWAYS) -> None:
        """Forget the rows, and gather those of decisions since then."""
        self.since = since
        self.asked = self._restless = 0
        self.again()

    def again(self) -> None:
        """Forget the rows."""
        self.collection = Collection()

    def add(self, rows: Rows) -> None:
        """Gather what is to be gathered of ``rows``."""
        if self.since is not None:
            self.collection.add(rows[self._mine(rows)])

    def until_enough(self, rows: Rows) -> int:
        """How many of ``rows`` to take until a step is reached."""
        limit = len(rows)
        if self.since is not None:
            at = np.flatnonzero(self._mine(rows))
            for step in self._steps:
                if 0 < step - len(self) <= len(at):
                    limit = min(limit, int(at[step - len(self) - 1]) + 1)
        return limit

    def at_rest(self) -> bool:
        """Whether both halves of the rows look alike; if not, the first is dropped, and gathering goes on."""
        if self._restless >= RESTLESS:
            return True
        rows = self.rows
        half = len(rows) // 2
        if p_same(rows[:half], rows[half:]) >= REST:
            return True
        self.collection.drop_first(half)
        self._restless += 1
        return False

    def kept(self) -> Kept:
        """What :meth:`resume` takes."""
        return Kept(self.since, self.asked, self._restless, self.collection.pieces)

    def resume(self, kept: Kept, collection: Callable[[Sequence[int]], Collection]) -> None:
        """Go on from ``kept``; ``collection`` makes one of its pieces."""
        self.since, self.asked, self._restless = kept.since, kept.asked, kept.restless
        self.collection = collection(kept.pieces)

    def _mine(self, rows: Rows) -> NDArray[np.bool_]:
        if not self._labelled:
            return np.isnan(rows.label)
        # Labels that become known first are of decisions from before.
        return ~np.isnan(rows.label) & (rows.time >= (self.since or ALWAYS))
