"""Profiles of one partition: users to rows, exactly once by offset, restored and evicted in batches.

``stream/table.py`` keeps one :class:`Profiles` a partition behind Faust's table; replay keeps one for all users.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.features import Features
from model.usecase import UseCase
from stream.events import Columns
from stream.fold import Rows, fold, read
from stream.layout import NEVER, Layout, layout_of

GROWTH = 1.25  # each growth copies or remaps; memory stays within a quarter of what is used
SMALLEST_CAPACITY = 1024


class ChangelogError(ValueError):
    """The changelog does not fit: other features, or other events; the text says what to do."""


class Folded(msgspec.Struct, frozen=True):
    """What a batch did: the decisions in it, by position, with the features of each, and the rows it changed."""

    decisions: NDArray[np.int64]  # positions in the batch
    features: Features
    offsets: NDArray[np.int64]  # the source offset that each decision's profile stood at, -1 for a new user
    keys: list[bytes]  # u users, each once
    rows: list[bytes]  # u changelog values
    skipped: int  # events that had been folded before


class Profiles:
    """The profiles of one partition, as columns.

    An event with an offset at or below the one folded last into its user's row is skipped: a user's events
    stand in one partition, so that is exactly once per user.
    """

    def __init__(self, usecase: UseCase, layout: Layout | None = None) -> None:
        self._usecase = usecase
        self._layout = layout or layout_of(usecase)
        self._idle_ms = float(usecase.profile.idle_after) * 1000
        self._is_decision = np.array([name in usecase.decisions for name in usecase.events])
        self._rows = self._layout.blank(0)
        self._keys: list[bytes | None] = []  # by row, None where the row is free
        self._index: dict[bytes, int] = {}
        self._free: list[int] = []
        self.watermark = NEVER  # ms, the latest event time folded here

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._index)

    def __contains__(self, key: object) -> bool:
        return key in self._index

    @property
    def nbytes(self) -> int:
        """Bytes held by rows, not counting the index."""
        return int(self._rows.nbytes)

    @property
    def last_offset(self) -> int:
        """The highest source offset folded into any profile; -1 for none."""
        used = np.fromiter(self._index.values(), np.int64, len(self._index))
        return int(self._rows["offset"][used].max(initial=-1))

    def row(self, key: bytes) -> Rows | None:
        """A copy of one user's row [1], or None."""
        at = self._index.get(key)
        return None if at is None else self._rows[at : at + 1].copy()

    def warm(self) -> None:
        """Load or compile the fold now, before the first batch waits for it; for profiles that nobody uses."""
        self._grow(1)  # rows that exist have another memory layout, for the compiler, than none
        none = np.empty(0, np.int64)
        self.fold(
            Columns(
                keys=[],
                offsets=none,
                sent=none,
                codes=none,
                times=none,
                values=np.empty(0, np.float64),
                events=[],
            )
        )

    def fold(self, columns: Columns) -> Folded:
        """Fold a batch of one partition, in offset order."""
        at = self._places(columns.keys)
        folds = fold(self._layout, self._idle_ms, self._rows, at, columns, self._is_decision)
        if len(columns):
            self.watermark = max(self.watermark, int(columns.times.max()))
        return Folded(
            decisions=folds.decisions,
            features=read(
                self._usecase,
                self._layout,
                folds.snapshots,
                columns.times[folds.decisions],
                [columns.events[position] for position in folds.decisions],
            ),
            offsets=folds.snapshots["offset"],
            keys=[columns.keys[position] for position in folds.touched],
            rows=_cut(self._rows[at[folds.touched]]),
            skipped=folds.skipped,
        )

    def restore(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Apply changelog records in their order; a row older than what is here is ignored, None deletes.

        Raises :class:`ChangelogError` when a row was written with other features.
        """
        deletions = [position for position, value in enumerate(values) if value is None]
        for begin, end in pairwise([-1, *deletions, len(values)]):
            self._restore(keys[begin + 1 : end], values[begin + 1 : end])
            if end < len(values):
                self._delete(keys[end])

    def _restore(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        if not keys:
            return
        size = self._layout.dtype.itemsize
        buffer = b"".join(values)  # type: ignore[arg-type]  # the caller cut at each None
        rows = (
            np.frombuffer(buffer, self._layout.dtype)
            if len(buffer) == size * len(keys)
            else self._layout.blank(0)
        )
        if len(rows) != len(keys) or (rows["layout"] != self._layout.digest).any():
            raise ChangelogError(
                "the profiles' changelog was written with other features than the use case declares; set another "
                "engine.id to rebuild the profiles from the events, or go back to the features it was written with"
            )
        at = self._places(keys)
        newer = np.flatnonzero(rows["offset"] >= self._rows["offset"][at])
        newer = newer[np.argsort(rows["offset"][newer], kind="stable")]  # of one user's rows the newest stays
        self._rows[at[newer]] = rows[newer]
        self.watermark = max(self.watermark, int(rows["latest"].max()))

    def evict(self, committed: int) -> list[bytes]:
        """Forget the users idle for longer than the use case allows, and return them for their tombstones.

        Only users whose last event lies below the ``committed`` source offset go: one that may be replayed
        must be recognised.
        """
        used = np.fromiter(self._index.values(), np.int64, len(self._index))
        idle = self.watermark - self._rows["latest"][used] > self._idle_ms
        idle &= self._rows["offset"][used] < committed
        gone = [key for key in (self._keys[at] for at in used[idle]) if key is not None]
        for key in gone:
            self._delete(key)
        return gone

    def _delete(self, key: bytes) -> None:
        at = self._index.pop(key, None)
        if at is not None:
            self._rows[at : at + 1] = self._layout.blank(1)
            self._keys[at] = None
            self._free.append(at)

    def _places(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """The row of each key, a new blank one for each new user."""
        find = self._index.get
        places = [find(key, -1) for key in keys]
        if -1 in places:
            for position, place in enumerate(places):
                if place < 0:
                    places[position] = self._place(keys[position])
            if len(self._keys) > len(self._rows):
                self._grow(len(self._keys))
        return np.array(places, np.int64)

    def _place(self, key: bytes) -> int:
        """The row of ``key``, a new one unless an earlier event of the batch took it."""
        at = self._index.get(key)
        if at is None:
            if self._free:
                at = self._free.pop()
                self._keys[at] = key
            else:
                at = len(self._keys)
                self._keys.append(key)
            self._index[key] = at
        return at

    def _grow(self, least: int) -> None:
        before = len(self._rows)
        after = max(SMALLEST_CAPACITY, least, int(before * GROWTH))
        # In place where the allocator can remap, so that growing does not hold two copies.
        self._rows.resize(after, refcheck=False)
        for begin in range(before, after, 65_536):
            end = min(begin + 65_536, after)
            self._rows[begin:end] = self._layout.blank(end - begin)


def _cut(rows: Rows) -> list[bytes]:
    """Each row's bytes."""
    size, buffer = rows.dtype.itemsize, rows.tobytes()
    return [buffer[begin : begin + size] for begin in range(0, len(buffer), size)]
