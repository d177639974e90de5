"""Counts of one event type and of one field: what came, how often, of which kind.

:mod:`stream.explore` feeds a tally the events of a chunk at a time; what it then says of them is a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.events import Event
from stream.sketches import Distinct, Frequent, Hashes, Reservoir, hashes, number_hashes

NUMBERS = 10_000  # values sampled of a field
MAX_FIELDS = 100  # fields described of a type
SHOWN = 80  # characters of a value
DAY_MS = 86_400_000
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

FieldKind = Literal["number", "category", "bool", "mixed", "other"]


class Field(msgspec.Struct, frozen=True):
    """A field of one event type, or of all: how often it is there, of what kind, with which values."""

    present: int  # events that have it
    missing: float  # share of the type's events that do not
    kind: FieldKind  # mixed: values of several kinds; other: lists or objects
    distinct: int
    exact: bool  # whether `distinct` is
    top: tuple[tuple[str, int], ...]  # most frequent values with their counts
    lost: int  # how much too small these counts may be
    least: float  # of the numbers; NaN without any, and so are the next three
    most: float
    mean: float
    quantiles: tuple[float, ...]  # at QUANTILES, of the sample
    sample: NDArray[np.float64]  # up to [NUMBERS] of the numbers


class EventKind(msgspec.Struct, frozen=True):
    """An event type as it came."""

    count: int
    users: int
    first: int  # ms since the epoch
    last: int
    days: dict[int, int]  # events by day since the epoch, UTC
    week: NDArray[np.int64]  # [7, 24] events by weekday (0 is Monday) and hour, UTC
    fields: dict[str, Field]  # item, value and context.NAME

    @property
    def empty_days(self) -> int:
        """Days without an event between the first and the last."""
        return max(self.days) - min(self.days) + 1 - len(self.days)

    @property
    def silence(self) -> int:
        """The longest run of such days."""
        return int(np.diff(sorted(self.days)).max(initial=1)) - 1

    @property
    def a_day(self) -> float:
        """Events a day between the first and the last."""
        return self.count / (max(self.days) - min(self.days) + 1)


class KindTally:
    """Counts of one event type."""

    def __init__(self, code: int, seed: int) -> None:
        self.code, self.count = code, 0
        self._seed, self._users = seed, Distinct()
        self._first, self._last = 2**63 - 1, 0
        self._days: Counter[int] = Counter()
        self._week = np.zeros((7, 24), np.int64)
        self._fields = {"item": FieldTally(seed), "value": FieldTally(seed)}

    def add(self, events: list[Event], times: NDArray[np.int64], users: Hashes) -> None:
        """Take events of the type [n] with their times [n] in ms and hashed users [n]."""
        self.count += len(events)
        self._users.add(users)
        self._first, self._last = min(self._first, int(times.min())), max(self._last, int(times.max()))
        days, counts = np.unique(times // DAY_MS, return_counts=True)
        self._days.update(dict(zip(days.tolist(), counts.tolist(), strict=True)))
        hours = (times // 3_600_000 + 3 * 24) % 168  # 1970-01-01 was a Thursday
        self._week += np.bincount(hours, minlength=168).reshape(7, 24)
        self._fields["item"].add([event.item for event in events if event.item is not None])
        self._fields["value"].add([event.value for event in events if event.value is not None])
        for name, values in context_values(events):
            field = f"context.{name}"
            if field in self._fields or len(self._fields) < MAX_FIELDS:
                self._fields.setdefault(field, FieldTally(self._seed)).add(values)

    def described(self) -> EventKind:
        """What came."""
        return EventKind(
            count=self.count,
            users=self._users.count,
            first=self._first,
            last=self._last,
            days=dict(self._days),
            week=self._week,
            fields={
                name: tally.described(self.count) for name, tally in self._fields.items() if tally.present
            },
        )


class FieldTally:
    """Counts of one field; it is given the values that are there."""

    def __init__(self, seed: int) -> None:
        self.present = 0
        self._kinds: Counter[FieldKind] = Counter()
        self._distinct, self._frequent = Distinct(), Frequent()
        self._sample = Reservoir(NUMBERS, seed)
        self._least, self._most, self._sum = np.inf, -np.inf, 0.0

    def add(self, values: list[Any]) -> None:
        """Take values of the field; those that are missing or null are left out."""
        self.present += len(values)
        for kind, n in Counter(map(type, values)).items():
            self._kinds[_KINDS.get(kind, "other")] += n
            if kind in (float, int):
                self._add_numbers([value for value in values if type(value) is kind])
            elif kind is str:
                self._add_texts(Counter(value for value in values if type(value) is str))
            elif kind is bool:
                self._add_texts(Counter(str(value).lower() for value in values if type(value) is bool))

    def _add_texts(self, counts: Counter[str]) -> None:
        self._distinct.add(hashes(counts))
        for text in [text for text in counts if len(text) > SHOWN]:
            counts[text[:SHOWN]] += counts.pop(text)
        self._frequent.add(counts)

    def _add_numbers(self, values: list[float]) -> None:
        # An integer of any length is JSON; beyond this no worker takes it, and the largest tells.
        numbers = np.array([max(-1e300, min(1e300, value)) for value in values], np.float64)
        unique, counts = np.unique(numbers, return_counts=True)
        self._distinct.add(number_hashes(unique))
        self._frequent.add(dict(zip((f"{n:.12g}" for n in unique), counts.tolist(), strict=True)))
        self._sample.add(numbers)
        self._least, self._most = min(self._least, unique[0]), max(self._most, unique[-1])
        self._sum += float(numbers.sum())

    def described(self, events: int) -> Field:
        """What came with ``events`` events that might have had the field."""
        numbers, sample = self._kinds["number"], self._sample.values
        return Field(
            present=self.present,
            missing=1 - self.present / events,
            kind=next(iter(self._kinds)) if len(self._kinds) == 1 else "mixed",
            distinct=self._distinct.count,
            exact=self._distinct.exact,
            top=self._frequent.top(20),
            lost=self._frequent.lost,
            least=float(self._least) if numbers else np.nan,
            most=float(self._most) if numbers else np.nan,
            mean=self._sum / numbers if numbers else np.nan,
            quantiles=tuple(np.quantile(sample, QUANTILES).tolist()) if numbers else (),
            sample=sample,
        )


_KINDS: dict[type, FieldKind] = {int: "number", float: "number", str: "category", bool: "bool"}


def context_values(events: list[Event]) -> Iterator[tuple[str, list[Any]]]:
    """Each context field with its values that are not null."""
    contexts = [event.context for event in events if event.context]
    for name in sorted({name for context in contexts for name in context}):
        values = [context[name] for context in contexts if context.get(name) is not None]
        if values:
            yield name, values
