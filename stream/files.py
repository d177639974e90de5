"""Event files: JSON Lines, which may be gzipped, as the records that they would be in Kafka.

Read by ``stream/replay.py``, ``stream/explore.py`` and the command line.
"""

from __future__ import annotations

import datetime as dt
import gzip
import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from deploy.settings import Events
from model.usecase import UseCase
from stream.events import EARLIEST_MS, BadRecord, Columns, Decoder

CHUNK = 8192  # records decoded and folded at once
LARGEST_MS = 2**63 - 1  # a larger time is none: columns of times have 64 bits


class EventFileError(Exception):
    """An event file cannot be read: which, what came, what to do."""


class FileRecord(NamedTuple):
    """A line of an event file, as if it had come from Kafka."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class _User(msgspec.Struct):
    user: str


_user_of = msgspec.json.Decoder(_User).decode


def key_of(value: bytes) -> bytes | None:
    """The key that an encoded event belongs under, its user in UTF-8; None if it has none."""
    try:
        return _user_of(value).user.encode()
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def lines(path: Path) -> Iterator[bytes]:
    """The non-empty lines of the JSON Lines file at ``path``, which may be gzipped.

    Raises :class:`EventFileError`, as all that reads files here does.
    """
    return (value for _, value in numbered_lines(path))


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The same, each with its line number from 1."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                value = line.strip()
                if value:
                    yield number, value
    except (OSError, EOFError, zlib.error) as error:
        raise EventFileError(
            f"{path}: cannot be read after line {number}: {error}; check that the file is whole (a .gz with `gzip -t`) "
            "and that this user may read it"
        ) from error


def decoded(
    usecase: UseCase, limits: Events, numbered: Iterable[tuple[int, bytes]], now_ms: int
) -> Iterator[tuple[list[FileRecord], Columns, list[BadRecord]]]:
    """Encoded events as the worker decodes them, a chunk at a time, their numbers as offsets, at wall clock ``now_ms``."""
    decode = Decoder(usecase, limits.max_bytes, int(limits.max_skew_s * 1000))
    records = (FileRecord(number, 0, key_of(value), value) for number, value in numbered)
    while chunk := list(itertools.islice(records, CHUNK)):
        yield chunk, *decode(chunk, now_ms)


class Survey(NamedTuple):
    """What a first look at an event file found."""

    path: Path
    events: int
    in_order: bool  # of event time


class _Time(msgspec.Struct):
    time: int | dt.datetime


_Timed = tuple[list[bytes], NDArray[np.int64]]  # encoded events, and the time of each in ms
_NONE: _Timed = [], np.empty(0, np.int64)
_time_of = msgspec.json.Decoder(_Time).decode


def survey(path: Path) -> Survey:
    """Count the events of ``path`` and see whether they stand in order of event time."""
    events, last, in_order = 0, EARLIEST_MS, True
    for values, times in _timed(lines(path)):
        events += len(values)
        in_order = in_order and bool(times[0] >= last and (np.diff(times) >= 0).all())
        last = int(times[-1])
    return Survey(path, events, in_order)


def merged(surveys: Sequence[Survey]) -> Iterator[list[bytes]]:
    """The encoded events of all files in order of event time, in chunks; of one time, in the order of the files.

    A record without a readable time stays behind the one before it in its file. Files that are in order are read as
    they are needed; one that is not is sorted in memory.
    """
    streams = [
        _timed(lines(each.path)) if each.in_order else _sorted(each.path) for each in surveys if each.events
    ]
    heads = [next(stream) for stream in streams]
    while len(heads) > 1:
        until = min(int(times[-1]) for _, times in heads)  # from it on a file may have more than its head
        taken: list[_Timed] = []
        for position, (values, times) in enumerate(heads):
            cut = int(np.searchsorted(times, until))
            taken.append((values[:cut], times[:cut]))
            heads[position] = values[cut:], times[cut:]
        ready = _in_order(taken)
        for position, stream in enumerate(streams):  # of `until` itself, each file's events to their end
            values, times = heads[position]
            while values and times[0] == until:
                cut = int(np.searchsorted(times, until, "right"))
                ready += values[:cut]
                values, times = (values[cut:], times[cut:]) if cut < len(values) else next(stream, _NONE)
                if len(ready) >= CHUNK:
                    yield ready
                    ready = []
            heads[position] = values, times
        if ready:
            yield ready
        streams = [stream for stream, (values, _) in zip(streams, heads, strict=True) if values]
        heads = [head for head in heads if head[0]]
    for (values, _), stream in zip(heads, streams, strict=True):
        yield values
        yield from (values for values, _ in stream)


def _timed(values: Iterable[bytes]) -> Iterator[_Timed]:
    iterator = iter(values)
    last = EARLIEST_MS
    while chunk := list(itertools.islice(iterator, CHUNK)):
        times = np.empty(len(chunk), np.int64)
        for position, value in enumerate(chunk):
            last = times[position] = _milliseconds(value, last)
        yield chunk, times


def _milliseconds(value: bytes, otherwise: int) -> int:
    try:
        time = _time_of(value).time
        ms = time if isinstance(time, int) else round(time.timestamp() * 1000)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError):
        return otherwise
    return ms if abs(ms) <= LARGEST_MS else otherwise


def _sorted(path: Path) -> Iterator[_Timed]:
    chunks = list(_timed(lines(path)))
    values = [value for chunk, _ in chunks for value in chunk]
    times = np.concatenate([times for _, times in chunks])
    order = np.argsort(times, kind="stable")
    for begin in range(0, len(order), CHUNK):
        chosen = order[begin : begin + CHUNK]
        yield [values[position] for position in chosen], times[chosen]


def _in_order(parts: Sequence[_Timed]) -> list[bytes]:
    values = [value for part, _ in parts for value in part]
    order = np.argsort(np.concatenate([times for _, times in parts]), kind="stable")
    return [values[position] for position in order]
