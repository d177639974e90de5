"""The fold: events change profile rows; and the read: a row at a decision becomes features.

Pure functions on numpy rows of a :class:`stream.layout.Layout`, called by ``stream/profiles.py`` for streaming,
replay and training alike. The arithmetic of a user's row depends on that user's events and their order alone, never
on how they were batched, so a replay after a crash gives the same bits.

Events out of time order give the same profile as in order, but for the rounding of single precision (1e-5
relative) and for two documented cases: a gap longer than ``idle_after`` forgets the profile only when it is seen
as a gap, and a decision never sees events that arrive after it, whatever their time.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.features import Features
from model.usecase import Context, Feature, Item, Ratio, Tenure, TimeOfDay, UseCase, Value
from stream.events import Columns, Event
from stream.layout import NEVER, Layout

Rows = NDArray[np.void]
DAY_MS = 86_400_000
SMALLEST = 1e-30  # a divisor below it is 0: what has decayed that far is rounding


def fold(
    layout: Layout,
    idle_ms: float,
    table: Rows,
    at: NDArray[np.int64],
    columns: Columns,
    decision: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], Rows, Rows]:
    """Fold ``columns`` (n events) into the rows of ``table`` that they stand ``at`` [n].

    Returns (position [u] of each user's first event, the users' rows as they are now [u], copies of the rows as
    they stood just before each event that ``decision`` [n] marks, in the events' order); ``table`` is only read.

    Works in rounds: round k takes every user's k-th event, so that a round's users are distinct and a user's
    events are taken one after the other.
    """
    n = len(columns)
    order = np.argsort(at, kind="stable")
    starts = np.flatnonzero(np.diff(at[order], prepend=-1))  # [u] where each user's events begin
    sizes = np.diff(starts, append=n)
    first = order[starts]
    rows = table[at[first]]
    snapshots = np.empty(int(decision.sum()), layout.dtype)
    place = np.cumsum(decision) - 1
    hashes = _hashes(layout, columns)
    users = np.arange(len(starts))  # of this round
    for round_ in range(int(sizes.max(initial=0))):
        if round_:
            users = users[sizes[users] > round_]
        events = order[starts[users] + round_]
        # The first round is every user once: it works on the rows themselves.
        here = rows[users] if round_ else rows
        times = columns.times[events]
        forgotten = (times - here["latest"] > idle_ms) & (here["latest"] != NEVER)
        if forgotten.any():
            here[forgotten] = layout.blank(int(forgotten.sum()))
        wanted = decision[events]
        if wanted.any():
            snapshots[place[events[wanted]]] = here[wanted]
        _step(layout, here, columns.codes[events], times, columns.values[events], hashes[events])
        here["offset"] = columns.offsets[events]
        if round_:
            rows[users] = here
    return first, rows, snapshots


def _step(
    layout: Layout,
    rows: Rows,
    codes: NDArray[np.int64],
    times: NDArray[np.int64],
    values: NDArray[np.float64],
    hashes: NDArray[np.uint64],
) -> None:
    """One event into each of n distinct ``rows``, in place."""
    latest = rows["latest"].copy()
    known = latest != NEVER
    if layout.minus_rates.size:
        elapsed = np.where(known, times - latest, 0) / 1000.0  # [n] seconds, negative for a late event
        fade = np.exp2(np.abs(elapsed)[:, None] * layout.minus_rates)  # [n, H]
        added = (np.nan_to_num(values)[:, None] * layout.sums[codes] + layout.counts[codes])[
            :, layout.decayed_add
        ]
        state = rows["decayed"].astype(np.float64).reshape(len(rows), -1)  # [n, D]
        fade = fade[:, layout.decayed_half_life]  # [n, D]
        late = elapsed < 0
        if late.any():
            # Whichever of state and event is older is brought forward to the other's time.
            fresh = ~late
            state[fresh] *= fade[fresh]
            added[late] *= fade[late]
        else:
            state *= fade
        state += added
        rows["decayed"] = state
    rows["latest"] = np.maximum(latest, times)
    rows["first"] = np.where(known, np.minimum(rows["first"], times), times)
    for slot in range(layout.seen.shape[1]):
        seen = rows["seen"][:, slot]
        rows["seen"][:, slot] = np.where(layout.seen[codes, slot], np.maximum(seen, times), seen)
    for slot in range(layout.last.shape[1]):
        old, at, value = rows["last"][:, slot], rows["at"][:, slot], values.astype(np.float32)
        # Of two values at one time the larger stays, whichever came first.
        newer = (times > at) | ((times == at) & (value > old))
        newer &= layout.last[codes, slot] & ~np.isnan(value)
        rows["last"][newer, slot] = value[newer]
        rows["at"][newer, slot] = times[newer]
    for mask, word, size in layout.bits:
        hit = np.flatnonzero(mask[codes] & (hashes != 0))
        bit = hashes[hit] % np.uint64(size)
        at_word = word + (bit >> np.uint64(6)).astype(np.int64)
        rows["bits"][hit, at_word] |= np.uint64(1) << (bit & np.uint64(63))


def _hashes(layout: Layout, columns: Columns) -> NDArray[np.uint64]:
    """The CRC-32 of each event's item where a distinct count needs it; 0 where there is none."""
    if not layout.bits:
        return np.zeros(len(columns), np.uint64)
    items = [event.item or "" for event in columns.events]
    return np.fromiter(map(zlib.crc32, map(str.encode, items)), np.uint64, len(items))


def read(
    usecase: UseCase, layout: Layout, rows: Rows, times: NDArray[np.int64], events: Sequence[Event]
) -> Features:
    """Features of n decisions from their users' ``rows``, at ``times`` [n] ms, of decision ``events``."""
    state = _State(layout, rows, times)
    numeric: list[NDArray[np.float64]] = []
    categorical: list[Sequence[str | None]] = []
    for name, feature in usecase.features.items():
        if isinstance(feature, Item):
            categorical.append([event.item for event in events])
        elif isinstance(feature, Context):
            found = [getattr(event.context, feature.field, None) for event in events]
            if usecase.context[feature.field] == "number":
                numeric.append(np.array(found, np.float64))
            else:
                categorical.append([_category(value) for value in found])
        elif isinstance(feature, Value):
            numeric.append(np.array([event.value for event in events], np.float64))
        elif isinstance(feature, TimeOfDay):
            angle = 2 * np.pi * (times % DAY_MS) / DAY_MS
            numeric += [np.sin(angle), np.cos(angle)]
        else:
            numeric.append(state.value(name, feature))
    matrix = np.empty((len(rows), len(numeric)), np.float32)
    for j, column in enumerate(numeric):
        matrix[:, j] = column
    return Features(numeric=matrix, categorical=tuple(categorical))


class _State:
    """What n profile ``rows`` say at ``times`` [n] ms.

    A decision that arrives late reads the profile as it stands, never a future extrapolated backwards.
    """

    def __init__(self, layout: Layout, rows: Rows, times: NDArray[np.int64]) -> None:
        self._layout, self._rows, self._times = layout, rows, times
        elapsed = np.nan_to_num(self._since(rows["latest"]))
        self._fade: NDArray[np.float64] = np.exp2(elapsed[:, None] * layout.minus_rates)  # [n, H]

    def value(self, name: str, feature: Feature) -> NDArray[np.float64]:
        """The values [n] of the feature ``name``, NaN for missing."""
        if isinstance(feature, Ratio):
            divisor = self._decayed(feature.denominator)
            usable = np.abs(divisor) > SMALLEST
            return np.where(usable, self._decayed(feature.numerator) / np.where(usable, divisor, 1.0), np.nan)
        if isinstance(feature, Tenure):
            return self._since(self._rows["first"])
        field, index = self._layout.slots[name]
        if field == "decayed":
            return self._decayed(name)
        if field == "seen":
            return self._since(self._rows["seen"][:, index])
        if field == "last":
            return self._rows["last"][:, index].astype(np.float64)
        return _distinct(self._rows["bits"], *self._layout.bits[index][1:])

    def _decayed(self, name: str) -> NDArray[np.float64]:
        index = self._layout.slots[name][1]
        value: NDArray[np.float64] = (
            self._rows["decayed"][:, index] * self._fade[:, self._layout.decayed_half_life[index]]
        )
        return value

    def _since(self, past: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds [n] since ``past``, NaN where it never was."""
        happened = past != NEVER
        return np.where(
            happened, np.maximum(self._times - np.where(happened, past, self._times), 0) / 1000.0, np.nan
        )


def _category(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else None


def _distinct(bits: NDArray[np.uint64], first: int, size: int) -> NDArray[np.float64]:
    """Linear counting: -m ln(share of the m bits still unset); a full map counts as one bit unset."""
    words = np.ascontiguousarray(bits[:, first : first + size // 64])
    used = np.unpackbits(words.view(np.uint8), axis=1).sum(axis=1)
    count: NDArray[np.float64] = -size * np.log(np.maximum(size - used, 1) / size)
    return count
