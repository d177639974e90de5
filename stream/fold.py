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
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
import numba
import numpy as np
from numpy.typing import NDArray

from model.features import Features
from model.usecase import Context, Feature, Item, Ratio, Tenure, TimeOfDay, UseCase, Value
from stream.events import Columns, Event
from stream.layout import NEVER, Layout

Rows = NDArray[np.void]
DAY_MS = 86_400_000
SMALLEST = 1e-30  # a divisor below it is 0: what has decayed that far is rounding
_compiled = cast(Callable[[Any], Any], numba.njit(cache=True, nogil=True))


class Folds(msgspec.Struct, frozen=True):
    """What a fold did."""

    touched: NDArray[np.int64]  # [u] position of the last event of each user whose row changed
    decisions: NDArray[np.int64]  # [d] positions of the decisions
    snapshots: Rows  # [d] each decision's row as it stood just before
    skipped: int  # events that had been folded before


def fold(
    layout: Layout,
    idle_ms: float,
    table: Rows,
    at: NDArray[np.int64],
    columns: Columns,
    is_decision: NDArray[np.bool_],
) -> Folds:
    """Fold ``columns`` (n events, in offset order) into the rows of ``table`` that they stand ``at`` [n], in place.

    ``is_decision`` [E] marks the event types at which a score is wanted. An event whose offset its user's row
    has seen is skipped.
    """
    n = len(columns)
    raw = table.view(np.uint8).reshape(len(table), table.dtype.itemsize)
    snapshots = np.empty(int(is_decision[columns.codes].sum()), table.dtype)
    touched, wanted = np.empty(n, np.int64), np.empty(len(snapshots), np.int64)
    users, decisions, skipped = _fold(
        *(table[name] for name in ("decayed", "last", "offset", "first", "latest", "seen", "at", "bits")),
        raw,
        layout.blank(1).view(np.uint8),
        snapshots.view(np.uint8).reshape(len(snapshots), table.dtype.itemsize),
        *(at, columns.offsets, columns.codes, columns.times, np.nan_to_num(columns.values)),
        *(np.isnan(columns.values), _hashes(layout, columns), is_decision, idle_ms),
        *(layout.minus_rates, layout.decayed_half_life, layout.decayed_add, layout.counts, layout.sums),
        *(layout.seen, layout.last, layout.bits, layout.bits_word, layout.bits_size),
        *(touched, wanted),
    )
    return Folds(touched[:users], wanted[:decisions], snapshots[:decisions], skipped)


# One event after another, compiled: in numpy a user's events would need a pass of the whole array each, and
# people's events come in bursts. Compiled once a machine (about 5 s), then loaded from numba's cache.
@_compiled
def _fold(  # type: ignore[no-untyped-def]  # noqa: ANN202, C901, PLR0912 — one loop, no calls
    decayed, last, offset, first, latest, seen, last_at, bits,  # noqa: ANN001 — columns of the table
    raw, blank, snapshots,  # noqa: ANN001 — rows as bytes
    at, offsets, codes, times, values, no_value, hashes, is_decision, idle_ms,  # noqa: ANN001 — events
    minus_rates, half_life_of, add_of, counts, sums, seen_by, last_by, bits_by, bits_word, bits_size,  # noqa: ANN001
    touched, wanted,  # noqa: ANN001 — results
):  # fmt: skip
    folded = decisions = skipped = 0
    fade = np.ones(len(minus_rates))
    for event in range(len(at)):
        row, time, code = at[event], times[event], codes[event]
        if offsets[event] <= offset[row]:
            skipped += 1
            continue
        if latest[row] != NEVER and time - latest[row] > idle_ms:
            raw[row] = blank
        if is_decision[code]:
            snapshots[decisions] = raw[row]
            wanted[decisions] = event
            decisions += 1
        elapsed = (
            0.0 if latest[row] == NEVER else (time - latest[row]) / 1000.0
        )  # seconds, negative when late
        for rate in range(len(minus_rates)):
            fade[rate] = np.exp2(abs(elapsed) * minus_rates[rate])
        for slot in range(decayed.shape[1]):
            add = counts[code, add_of[slot]] + sums[code, add_of[slot]] * values[event]
            # Whichever of state and event is older is brought forward to the other's time.
            if elapsed >= 0:
                decayed[row, slot] = decayed[row, slot] * fade[half_life_of[slot]] + add
            elif add != 0:
                decayed[row, slot] = decayed[row, slot] + add * fade[half_life_of[slot]]
        first[row] = time if latest[row] == NEVER else min(first[row], time)
        latest[row] = max(latest[row], time)
        for slot in range(seen.shape[1]):
            if seen_by[code, slot]:
                seen[row, slot] = max(seen[row, slot], time)
        for slot in range(last.shape[1]):
            if last_by[code, slot] and not no_value[event]:
                value = np.float32(values[event])
                # Of two values at one time the larger stays, whichever came first.
                if time > last_at[row, slot] or (time == last_at[row, slot] and value > last[row, slot]):
                    last[row, slot] = value
                    last_at[row, slot] = time
        for slot in range(len(bits_size)):
            if bits_by[code, slot] and hashes[event] != 0:
                bit = hashes[event] % bits_size[slot]
                bits[row, bits_word[slot] + bit // 64] |= np.uint64(1) << np.uint64(bit % 64)
        offset[row] = offsets[event]
        touched[folded] = event
        folded += 1
    users = 0
    for event in touched[:folded]:
        if offset[at[event]] == offsets[event]:  # the last of its user's
            touched[users] = event
            users += 1
    return users, decisions, skipped


def _hashes(layout: Layout, columns: Columns) -> NDArray[np.int64]:
    """The CRC-32 of each event's item where a distinct count needs it; 0 where there is none."""
    if not layout.bits.size:
        return np.zeros(len(columns), np.int64)
    items = [event.item or "" for event in columns.events]
    return np.fromiter(map(zlib.crc32, map(str.encode, items)), np.int64, len(items))


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
        return _distinct(self._rows["bits"], self._layout.bits_word[index], self._layout.bits_size[index])

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
