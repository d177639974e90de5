"""The layout of a profile row: which slots the use case's features need, and where each stands.

One structured numpy row a user, the same in memory and in the changelog. ``stream/fold.py`` reads and writes
rows by this value, ``stream/profiles.py`` keeps them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.usecase import DecayedCount, DecayedSum, DistinctItems, LastValue, Recency, UseCase

NEVER = np.iinfo(np.int64).min  # the time of what has not happened


class Layout(msgspec.Struct, frozen=True):
    """Where the slots of a row are.

    E event types, H half-lives, D decayed, A added, R recency, L last-value, B distinct counts on W words of bits.
    """

    dtype: np.dtype[np.void]
    digest: int  # of everything below; a row of another layout is never mistaken for ours
    minus_rates: NDArray[np.float64]  # [H] -1 / half-life in seconds
    decayed_half_life: NDArray[np.int64]  # [D] -> H
    decayed_add: NDArray[np.int64]  # [D] -> A, what is added: slots that differ in half-life alone share it
    counts: NDArray[np.float64]  # [E, A] 1 where the event type adds 1
    sums: NDArray[np.float64]  # [E, A] 1 where the event type adds its value
    seen: NDArray[np.bool_]  # [E, R]
    last: NDArray[np.bool_]  # [E, L]
    bits: NDArray[np.bool_]  # [E, B]
    bits_word: NDArray[np.int64]  # [B] first of its words
    bits_size: NDArray[np.int64]  # [B] number of bits
    slots: dict[str, tuple[str, int]]  # feature name -> (field, index)

    def blank(self, n: int) -> NDArray[np.void]:
        """``n`` rows of users that have done nothing yet."""
        rows = np.zeros(n, self.dtype)
        rows["layout"] = self.digest
        rows["offset"] = -1
        for field in ("first", "latest", "seen", "at"):
            rows[field] = NEVER
        rows["last"] = np.nan
        return rows


def layout_of(usecase: UseCase) -> Layout:
    """The layout that ``usecase`` needs; features that count the same thing share a slot."""
    codes = {name: code for code, name in enumerate(usecase.events)}

    def mask(events: Sequence[str]) -> NDArray[np.bool_]:
        return np.isin(np.arange(len(codes)), [codes[event] for event in events])

    half_lives: list[float] = []
    decayed: dict[tuple[str, tuple[str, ...], float], int] = {}
    seen: dict[tuple[str, ...], int] = {}
    last: dict[tuple[str, ...], int] = {}
    distinct: dict[tuple[tuple[str, ...], int], int] = {}
    slots: dict[str, tuple[str, int]] = {}
    for name, feature in usecase.features.items():
        if isinstance(feature, DecayedCount | DecayedSum):
            if feature.half_life not in half_lives:
                half_lives.append(float(feature.half_life))
            kind = "count" if isinstance(feature, DecayedCount) else "sum"
            key = (kind, tuple(sorted(feature.events)), float(feature.half_life))
            slots[name] = ("decayed", decayed.setdefault(key, len(decayed)))
        elif isinstance(feature, Recency):
            slots[name] = ("seen", seen.setdefault(tuple(sorted(feature.events)), len(seen)))
        elif isinstance(feature, LastValue):
            slots[name] = ("last", last.setdefault(tuple(sorted(feature.events)), len(last)))
        elif isinstance(feature, DistinctItems):
            bits_key = (tuple(sorted(feature.events)), int(feature.bits))
            slots[name] = ("bits", distinct.setdefault(bits_key, len(distinct)))

    def stack(rows: list[NDArray[np.bool_]]) -> NDArray[np.bool_]:
        return np.array(rows, bool).reshape(len(rows), len(codes)).T.copy()  # [E, len(rows)]

    sizes = np.array([size for _, size in distinct], np.int64)
    words = sizes // 64
    added = list(dict.fromkeys((kind, events) for kind, events, _ in decayed))
    kinds = np.array([kind == "count" for kind, _ in added], bool)
    adds = stack([mask(events) for _, events in added]).astype(np.float64)
    # One key a line of what a slot means, so that rows of another layout are told by their digest.
    meaning = repr((list(codes), list(decayed), list(seen), list(last), list(distinct)))
    return Layout(
        dtype=np.dtype(
            [
                ("layout", "<u4"),
                ("decayed", "<f4", (len(decayed),)),
                ("last", "<f4", (len(last),)),
                ("offset", "<i8"),  # of the event folded last
                ("first", "<i8"),  # ms since the epoch, of the earliest event
                ("latest", "<i8"),  # ms, of the latest event: the time that `decayed` stands at
                ("seen", "<i8", (len(seen),)),  # ms
                ("at", "<i8", (len(last),)),  # ms, of `last`
                ("bits", "<u8", (int(words.sum()),)),
            ]
        ),
        digest=zlib.crc32(meaning.encode()),
        minus_rates=-1 / np.array(half_lives, np.float64),
        decayed_half_life=np.array([half_lives.index(h) for _, _, h in decayed], np.int64),
        decayed_add=np.array([added.index((kind, events)) for kind, events, _ in decayed], np.int64),
        counts=adds * kinds,
        sums=adds * ~kinds,
        seen=stack([mask(events) for events in seen]),
        last=stack([mask(events) for events in last]),
        bits=stack([mask(events) for events, _ in distinct]),
        bits_word=np.cumsum(words) - words,
        bits_size=sizes,
        slots=slots,
    )
