"""Replay: events from files through the worker's own decode, fold and features, without Kafka.

Builds the examples that a first model is trained on. Called by the demo.
"""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deploy.settings import Events
from model.examples import IDS, example_table
from model.features import Features, feature_spec
from model.usecase import UseCase
from stream.events import BadRecord, Columns, Decoder
from stream.profiles import Folded, Profiles

CHUNK = 8192  # records decoded and folded at once


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
    except (msgspec.DecodeError, UnicodeError):
        return None


def lines(path: Path) -> Iterator[bytes]:
    """The non-empty lines of the JSON Lines file at ``path``, which may be gzipped."""
    return (value for _, value in numbered_lines(path))


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The same, each with its line number from 1."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            value = line.strip()
            if value:
                yield number, value


def decoded(
    usecase: UseCase, limits: Events, numbered: Iterable[tuple[int, bytes]], now_ms: int
) -> Iterator[tuple[list[FileRecord], Columns, list[BadRecord]]]:
    """Encoded events as the worker decodes them, a chunk at a time, their numbers as offsets, at wall clock ``now_ms``."""
    decode = Decoder(usecase, limits.max_bytes, int(limits.max_skew_s * 1000))
    records = (FileRecord(number, 0, key_of(value), value) for number, value in numbered)
    while chunk := list(itertools.islice(records, CHUNK)):
        yield chunk, *decode(chunk, now_ms)


class History:
    """Decisions of a replayed stretch of events, with what is needed to label them."""

    def __init__(self, usecase: UseCase) -> None:
        self._usecase = usecase
        self._spec = feature_spec(usecase)
        self._outcomes = {decision.outcome for decision in usecase.decisions.values()}
        self._happened: dict[tuple[str | None, ...], list[int]] = {}  # by (type, user) and (type, user, item)
        self._ids: dict[str, list[str | None]] = {name: [] for name in IDS}
        self._times: list[int] = []
        self._numeric: list[NDArray[np.float32]] = []
        self._categorical: list[list[str | None]] = [[] for _ in self._spec.categorical]
        self._until = 0
        self.bad = 0

    def replay(self, values: Iterable[bytes], now_ms: int) -> None:
        """Fold encoded events in the order given; bad ones, at wall clock ``now_ms``, are counted in ``bad``."""
        profiles = Profiles(self._usecase)
        names = list(self._usecase.events)
        outcome_codes = [names.index(name) for name in self._outcomes]
        for _, columns, bad in decoded(self._usecase, Events(), enumerate(values), now_ms):
            self.bad += len(bad)
            for position in np.flatnonzero(np.isin(columns.codes, outcome_codes)):
                event = columns.events[position]
                for key in ((event.type, event.user), (event.type, event.user, event.item)):
                    self._happened.setdefault(key, []).append(int(columns.times[position]))
            folded = profiles.fold(columns)
            for position in folded.decisions:
                event = columns.events[position]
                for name, column in self._ids.items():
                    column.append(getattr(event, name))
                self._times.append(int(columns.times[position]))
            self._keep(folded)
            self._until = max(self._until, profiles.watermark)

    def _keep(self, folded: Folded) -> None:
        self._numeric.append(folded.features.numeric)
        for kept, column in zip(self._categorical, folded.features.categorical, strict=True):
            kept.extend(column)

    def examples(self) -> pa.Table:
        """The matured decisions, one a row, as :mod:`model.examples` lays them out.

        A decision whose window had not closed when the events ended, and that has no outcome yet, is left out.
        """
        labels = [
            self._label(*row)
            for row in zip(self._ids["type"], self._ids["user"], self._ids["item"], self._times, strict=True)
        ]
        none = np.empty((0, len(self._spec.numeric)), np.float32)
        features = Features(np.concatenate([none, *self._numeric]), tuple(self._categorical))
        return example_table(self._spec, self._ids, self._times, labels, features)

    def _label(self, kind: str | None, user: str | None, item: str | None, time: int) -> int | None:
        assert kind is not None
        assert user is not None
        decision = self._usecase.decisions[kind]
        close = time + int(decision.window * 1000)
        key = (decision.outcome, user, item) if decision.match == "item" else (decision.outcome, user)
        if any(time <= happened <= close for happened in self._happened.get(key, ())):
            return 1
        return 0 if close <= self._until else None
