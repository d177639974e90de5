"""What an event file holds, before anyone wrote a use case: one pass over its lines, in bounded memory.

``eddyline explore`` reads files through :class:`Explorer`; :mod:`stream.candidates` looks for outcomes in the
histories it kept, :mod:`stream.proposal` and :mod:`stream.dictionary` write down what was found.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from deploy.settings import Events
from model.usecase import EventType as Declared
from model.usecase import UseCase
from stream.candidates import Histories
from stream.events import EARLIEST_MS, LARGEST_VALUE, BadRecord, Decoder, Event, Reason
from stream.files import CHUNK, FileRecord
from stream.mapping import FormatError, advice
from stream.sketches import Distinct, HashSample, Reservoir, column_hashes, hashes
from stream.tallies import MAX_FIELDS, NUMBERS, SHOWN, EventKind, Field, FieldTally, KindTally, context_values

HISTORY_EVENTS = 2_000_000  # events held of sampled users, 34 bytes each
IDS = 2_000_000  # hashes of ids held, 8 bytes each
MAX_TYPES = 100  # further event types are counted, not described


class Refused(msgspec.Struct):
    """Lines that are no events, for one reason: how many, and where the first one stands."""

    count: int
    where: str
    detail: str


class Order(msgspec.Struct, frozen=True):
    """How far the lines of a file are from the order of time; each file is taken as one partition's log."""

    late: int  # events behind the latest time before them
    most_s: float  # the furthest
    p99_s: float  # 99 % of the late ones are no further


class Findings(msgspec.Struct, frozen=True):
    """What :class:`Explorer` found."""

    lines: int
    events: int
    users: int
    refused: dict[Reason, Refused]
    kinds: dict[str, EventKind]  # by type, the most frequent first
    undescribed: int  # events of types beyond MAX_TYPES
    context: dict[str, Field]  # fields over all types
    duplicates: float  # share of events whose id came before
    ids_share: float  # of the ids, on which `duplicates` rests
    order: Order
    histories: Histories

    @property
    def first(self) -> int:
        """The earliest event's time, ms since the epoch."""
        return min(kind.first for kind in self.kinds.values())

    @property
    def last(self) -> int:
        """The latest event's."""
        return max(kind.last for kind in self.kinds.values())


class Explorer:
    """Reads lines into a :class:`Findings`. ``now_ms`` is the wall clock, ``seed`` that of the samples."""

    def __init__(
        self, limits: Events, now_ms: int, *, seed: int = 0, history_events: int = HISTORY_EVENTS
    ) -> None:
        self._limits, self._now_ms, self._seed = limits, now_ms, seed
        self._decode = msgspec.json.Decoder(_AnyEvent).decode
        self._lines = self._events = self._undescribed = 0
        self._heads: list[bytes] = []  # lines, until the first event
        self._refused: dict[Reason, Refused] = {}
        self._kinds: dict[str, KindTally] = {}
        self._context: dict[str, FieldTally] = {}
        self._users = Distinct()
        self._ids = HashSample(IDS)
        self._histories = HashSample(history_events)
        self._late, self._most_late = 0, 0
        self._lateness = Reservoir(NUMBERS, seed)

    def read(self, name: str, numbered: Iterable[tuple[int, bytes]]) -> None:
        """Take the lines of the file ``name``; raises :class:`FormatError` if its first ones are no events at all."""
        latest, lines, before = 0, iter(numbered), self._events
        while chunk := list(itertools.islice(lines, CHUNK)):
            self._lines += len(chunk)
            events, times = self._good(name, chunk)
            if self._events == before and not events:
                raise FormatError(f"{name}: {advice([line for _, line in chunk])}")
            latest = self._take(events, times, latest)

    def _good(self, name: str, chunk: list[tuple[int, bytes]]) -> tuple[list[Event], NDArray[np.int64]]:
        """The events among the lines and their times [n] in ms; the others are counted."""
        values = [value for _, value in chunk]
        try:
            b"".join(values).decode()  # fields that are skipped count too
            events: list[Event | None] = list(map(self._decode, values))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            events = [self._one(value) for value in values]
        times = _milliseconds(events)
        amounts = np.array([event.value if event else None for event in events], np.float64)
        bad = (times < EARLIEST_MS) | (times > self._now_ms + int(self._limits.max_skew_s * 1000))
        bad |= np.abs(amounts) > LARGEST_VALUE
        if max(map(len, values)) > self._limits.max_bytes:
            bad |= np.array([len(value) > self._limits.max_bytes for value in values])
        if "\n" in "".join([event.user for event in events if event]):
            bad |= np.array([event is None or "\n" in event.user for event in events])
        for at in np.flatnonzero(bad):
            number, value = chunk[at]
            record = self._refusal(value, events[at])
            seen = self._refused.setdefault(
                record.reason, Refused(0, f"{name}:{number}", record.detail[:SHOWN])
            )
            seen.count += 1
        kept = np.flatnonzero(~bad)
        return [event for event in (events[at] for at in kept) if event], times[kept]

    def _one(self, value: bytes) -> Event | None:
        try:
            value.decode()
            return self._decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def _refusal(self, value: bytes, event: Event | None) -> BadRecord:
        """What a worker whose use case declares the event's type would say of ``value``."""
        kind = event.type if event else "event"
        worker = Decoder(
            UseCase(name="explore", events={kind: Declared()}, decisions={}, features={}),
            self._limits.max_bytes,
            int(self._limits.max_skew_s * 1000),
        )
        record = FileRecord(0, 0, event.user.encode() if event else None, value)
        return worker([record], self._now_ms)[1][0]

    def _take(self, events: list[Event], times: NDArray[np.int64], latest: int) -> int:
        """Count a chunk of events; the latest time of the file so far goes in and out."""
        if not events:
            return latest
        self._events += len(events)
        behind = np.maximum.accumulate(np.maximum(times, latest)) - times
        self._late += int((behind > 0).sum())
        self._most_late = max(self._most_late, int(behind.max()))
        self._lateness.add(behind[behind > 0].astype(np.float64))
        users = column_hashes([event.user for event in events])
        items = column_hashes([event.item for event in events])
        self._users.add(users)
        self._ids.add(hashes([event.id for event in events]))
        kinds = [event.type for event in events]
        known = self._kinds
        for kind in dict.fromkeys(kinds):
            if kind not in known and len(known) < MAX_TYPES:
                known[kind] = KindTally(len(known), self._seed)
        codes = np.array([known[kind].code if kind in known else -1 for kind in kinds], np.int16)
        self._undescribed += int((codes < 0).sum())
        self._histories.add(users, codes, times, items)
        for tally in known.values():
            at = np.flatnonzero(codes == tally.code)
            if len(at):
                tally.add([events[i] for i in at], times[at], users[at])
        self._add_context(events)
        return max(latest, int(times.max()))

    def _add_context(self, events: list[Event]) -> None:
        for name, values in context_values(events):
            if name in self._context or len(self._context) < MAX_FIELDS:
                self._context.setdefault(name, FieldTally(self._seed)).add(values)

    def findings(self) -> Findings:
        """What was found; raises :class:`FormatError` if there was no event."""
        if not self._events:
            raise FormatError("there are no events; give JSON Lines with one event a line (docs/events.md)")
        (ids,) = self._ids.columns()
        held = self._histories.columns()
        late = self._lateness.values / 1000
        return Findings(
            lines=self._lines,
            events=self._events,
            users=self._users.count,
            refused=dict(sorted(self._refused.items(), key=lambda each: -each[1].count)),
            kinds={
                name: tally.described()
                for name, tally in sorted(self._kinds.items(), key=lambda each: -each[1].count)
            },
            undescribed=self._undescribed,
            context={name: tally.described(self._events) for name, tally in self._context.items()},
            duplicates=1 - len(np.unique(ids)) / max(len(ids), 1),
            ids_share=self._ids.share,
            order=Order(
                self._late, self._most_late / 1000, float(np.quantile(late, 0.99)) if len(late) else 0.0
            ),
            histories=Histories.of(*held, names=list(self._kinds), share=self._histories.share),
        )


class _AnyEvent(Event):
    """An event of the contract with whatever context."""

    context: dict[str, Any] | None = None


def _milliseconds(events: list[Event | None]) -> NDArray[np.int64]:
    """Times [n] in ms since the epoch; -1 where there is no event, or no such number of 64 bits."""
    times = [event.time if event else -1 for event in events]
    try:
        return np.array(times, np.int64)
    except (TypeError, OverflowError):
        return np.array(list(map(_one_time, times)), np.int64)


def _one_time(time: int | dt.datetime) -> int:
    if isinstance(time, dt.datetime):
        return round(time.timestamp() * 1000)
    return time if abs(time) < 2**63 else -1
