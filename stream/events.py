"""Events: the JSON contract (``events.schema.json``), and the step from Kafka records to columns.

``stream/engine.py`` calls :class:`Decoder` once a batch. What cannot be used comes back as
:class:`BadRecord` with its :class:`Reason`; nothing is raised and nothing is dropped.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Protocol, cast

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from model.usecase import UseCase

EARLIEST_MS = 946_684_800_000  # 2000-01-01: a smaller number is a time in seconds, not milliseconds
LARGEST_VALUE = 1e15  # profiles add values up in single precision

Amount = Annotated[float, Meta(ge=-LARGEST_VALUE, le=LARGEST_VALUE)]
Id = Annotated[str, Meta(min_length=1, max_length=256)]


class Record(Protocol):
    """What is read of a Kafka record."""

    @property
    def offset(self) -> int: ...  # noqa: D102 — a Kafka record's own words
    @property
    def timestamp(self) -> int: ...  # noqa: D102 — milliseconds, when the producer sent it
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102


class Reason(StrEnum):
    """Why a record is a dead letter."""

    EMPTY = "empty"
    TOO_LARGE = "too-large"
    BAD_UTF8 = "bad-utf8"
    NOT_JSON = "not-json"
    NOT_FINITE = "not-finite"
    WRONG_TYPE = "wrong-type"
    MISSING_FIELD = "missing-field"
    NO_USER = "no-user"
    UNKNOWN_EVENT = "unknown-event"
    IMPOSSIBLE_TIME = "impossible-time"
    WRONG_KEY = "wrong-key"


class BadRecord(msgspec.Struct, frozen=True):
    """A record that cannot be used: where it stood in its batch, why, and what exactly was wrong."""

    position: int
    reason: Reason
    detail: str


class Event(msgspec.Struct, gc=False):
    """One event of the contract; ``context`` is refined to the use case's declared fields by :class:`Decoder`."""

    id: Id
    type: str
    user: Id
    time: int | Annotated[dt.datetime, Meta(tz=True)]
    item: str | None = None
    value: float | None = None
    context: Any = None


class Columns(msgspec.Struct, frozen=True):
    """The n good events of a batch, in arrival order; ``codes`` numbers the use case's event types."""

    keys: list[bytes]  # n, the user in UTF-8
    offsets: NDArray[np.int64]  # [n]
    sent: NDArray[np.int64]  # [n] ms since the epoch, the record's own timestamp
    codes: NDArray[np.int64]  # [n]
    times: NDArray[np.int64]  # [n] ms since the epoch
    values: NDArray[np.float64]  # [n], NaN where there is none
    events: list[Event]  # n, for what only decisions need

    def __len__(self) -> int:
        return len(self.keys)


class Decoder:
    """Decodes the records of one use case's events.

    ``max_bytes`` and ``max_skew_ms`` are limits of one event; the wall clock comes with each call.
    """

    def __init__(self, usecase: UseCase, max_bytes: int, max_skew_ms: int) -> None:
        kinds: dict[str, Any] = {"number": Amount | None, "category": str | bool | None}
        context = msgspec.defstruct(
            "EventContext", [(name, kinds[kind], None) for name, kind in usecase.context.items()], gc=False
        )
        event = msgspec.defstruct("Event", [("context", context | None, None)], bases=(Event,), gc=False)
        self._decode = msgspec.json.Decoder(event).decode
        self._codes = {name: code for code, name in enumerate(usecase.events)}
        names = list(usecase.events)
        self._needs_item = np.array(["item" in usecase.events[name].requires for name in names])
        self._needs_value = np.array(["value" in usecase.events[name].requires for name in names])
        self._max_bytes = max_bytes
        self._max_skew_ms = max_skew_ms

    def __call__(self, records: Sequence[Record], now_ms: int) -> tuple[Columns, list[BadRecord]]:
        """Columns of the good ``records`` and the bad ones, at wall clock ``now_ms``."""
        # A missing value or key among these is a TypeError below, and found one by one.
        values = cast(list[bytes], [record.value for record in records])
        try:
            if max(map(len, values), default=0) <= self._max_bytes:
                b"".join(values).decode()  # fields that are skipped count too
                events = list(map(self._decode, values))
                return self._columns(records, events, now_ms), []
        except (
            msgspec.DecodeError,
            UnicodeDecodeError,
            RecursionError,
            TypeError,
            OverflowError,
            _BadColumn,
        ):
            pass
        return self._one_by_one(records, now_ms)

    def _columns(self, records: Sequence[Record], events: list[Any], now_ms: int) -> Columns:
        """Columns of events; :class:`_BadColumn` if any is against the rules that types do not carry."""
        n = len(events)
        keys = cast(list[bytes], [record.key for record in records])
        users = "\n".join([event.user for event in events]).encode()
        if b"\n".join(keys) != users or users.count(b"\n") != max(n - 1, 0):
            raise _BadColumn
        times = _milliseconds(events)
        codes = np.array([self._codes.get(event.type, -1) for event in events], np.int64)
        values = np.array([event.value for event in events], np.float64)  # None becomes NaN
        bad = (codes < 0) | (times < EARLIEST_MS) | (times > now_ms + self._max_skew_ms)
        bad |= np.abs(values) > LARGEST_VALUE
        bad |= self._needs_value[codes] & np.isnan(values)
        if self._needs_item.any():
            bad |= self._needs_item[codes] & np.array([event.item is None for event in events], bool)
        if bad.any():
            raise _BadColumn
        return Columns(
            keys=keys,
            offsets=np.array([record.offset for record in records], np.int64),
            sent=np.array([record.timestamp for record in records], np.int64),
            codes=codes,
            times=times,
            values=values,
            events=events,
        )

    def _one_by_one(self, records: Sequence[Record], now_ms: int) -> tuple[Columns, list[BadRecord]]:
        """The slower path of a batch that holds a bad record: what decodes is tried as columns once more."""
        good: list[tuple[int, Any]] = []
        bad: list[BadRecord] = []
        for position, record in enumerate(records):
            event = self._event(record.value)
            if isinstance(event, tuple):
                bad.append(BadRecord(position, *event))
            else:
                good.append((position, event))
        try:
            return self._columns([records[at] for at, _ in good], [event for _, event in good], now_ms), bad
        except (_BadColumn, TypeError, OverflowError):
            pass
        kept: list[tuple[int, Any]] = []
        for at, event in good:
            refusal = self._refuse(event, records[at].key, now_ms)
            if refusal is None:
                kept.append((at, event))
            else:
                bad.append(BadRecord(at, *refusal))
        columns = self._columns([records[at] for at, _ in kept], [event for _, event in kept], now_ms)
        return columns, sorted(bad, key=lambda record: record.position)

    def _event(self, value: bytes | None) -> Any:
        """The event of ``value``, or (reason, detail)."""
        if not value:
            return Reason.EMPTY, "the record has no value; send an event"
        if len(value) > self._max_bytes:
            return Reason.TOO_LARGE, f"{len(value)} bytes, the limit is {self._max_bytes}"
        try:
            value.decode()
            return self._decode(value)
        except UnicodeDecodeError as error:
            return Reason.BAD_UTF8, str(error)
        except msgspec.ValidationError as error:
            return _invalid(str(error))
        except (msgspec.DecodeError, RecursionError) as error:
            return (Reason.NOT_FINITE if _has_constant(value) else Reason.NOT_JSON), str(error)

    def _refuse(self, event: Any, key: bytes | None, now_ms: int) -> tuple[Reason, str] | None:
        """Reason and detail if ``event`` is against the rules that types do not carry."""
        if event.type not in self._codes:
            return Reason.UNKNOWN_EVENT, f"{event.type!r} is not among {sorted(self._codes)}"
        if "\n" in event.user or key != event.user.encode():
            return Reason.WRONG_KEY, f"the record's key must be its user, {event.user!r}, got {key!r}"
        try:
            time = int(_milliseconds([event])[0])
        except OverflowError:
            time = -1
        if not EARLIEST_MS <= time <= now_ms + self._max_skew_ms:
            return Reason.IMPOSSIBLE_TIME, (
                f"{event.time} is before 2000 or more than {self._max_skew_ms} ms ahead of {now_ms}; "
                "send milliseconds since the epoch or RFC 3339"
            )
        if event.value is not None and not abs(event.value) <= LARGEST_VALUE:
            return Reason.NOT_FINITE, f"value {event.value} is beyond ±{LARGEST_VALUE:g}"
        code = self._codes[event.type]
        for field, needed in (("item", self._needs_item[code]), ("value", self._needs_value[code])):
            if needed and getattr(event, field) is None:
                return Reason.MISSING_FIELD, f"`{event.type}` requires `{field}`"
        return None


class _BadColumn(Exception):  # noqa: N818 — control flow of this module, never seen outside
    """Some event of the batch is against a rule; which one is found one by one."""


def _milliseconds(events: list[Any]) -> NDArray[np.int64]:
    times = [event.time for event in events]
    try:
        return np.array(times, np.int64)
    except TypeError:
        return np.array(
            [round(t.timestamp() * 1000) if isinstance(t, dt.datetime) else t for t in times], np.int64
        )


def _invalid(message: str) -> tuple[Reason, str]:
    if "`user`" in message or "$.user`" in message:
        reason = Reason.NO_USER if "missing" in message or "length >= 1" in message else Reason.WRONG_TYPE
    elif "missing required field" in message:
        reason = Reason.MISSING_FIELD
    elif "$.time`" in message and ("RFC3339" in message or "timezone" in message):
        reason = Reason.IMPOSSIBLE_TIME
    elif "out of range" in message or "`float` <=" in message or "`float` >=" in message:
        reason = Reason.NOT_FINITE
    else:
        reason = Reason.WRONG_TYPE
    return reason, message


def _has_constant(value: bytes) -> bool:
    """Whether ``value`` is JSON but for NaN or Infinity, which Python's own encoder writes by default."""
    found: list[str] = []
    try:
        json.loads(value, parse_constant=found.append)
    except (ValueError, RecursionError):
        return False
    return bool(found)
