"""State behind Faust's table: one :class:`stream.state.State` a partition, restored from the changelog.

Faust decides which partitions live here and replays their changelog; ``stream/app.py`` processes and writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import faust
from faust.stores.base import Store
from faust.types import TP

from model.usecase import UseCase
from stream.layout import layout_of
from stream.profiles import ChangelogError, Profiles
from stream.state import State


class Raw(faust.Codec):
    """Leaves keys and values as they are; a run is already a list of records."""

    def loads(self, s: Any) -> Any:
        """Return ``s``."""
        return s

    def dumps(self, obj: Any) -> Any:
        """Return ``obj``."""
        return obj


def raw_schema() -> faust.Schema[Any, Any]:
    """A schema of records as they come."""
    return faust.Schema(key_type=None, value_type=None, key_serializer=Raw(), value_serializer=Raw())


class StateStore(Store[bytes, Any]):
    """State by partition. It is written to the changelog in batches by the app, not key by key."""

    def __init__(
        self, usecase: UseCase, events: str, max_open: int, count: int, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._events = events
        self._usecase, self._max_open, self._count = usecase, max_open, count
        self._layout = layout_of(usecase)
        Profiles(usecase, self._layout).warm()
        self.partitions: dict[int, State] = {}
        self._offsets: dict[TP, int] = {}
        self._mine: set[int] = set()  # partitions assigned here
        self.restored = 0  # changelog records applied

    def at(self, partition: int) -> State:
        """The state of ``partition``, an empty one if it is new here."""
        if partition not in self.partitions:
            self.partitions[partition] = State(self._usecase, self._max_open, self._count, self._layout)
        return self.partitions[partition]

    def apply_changelog_batch(self, batch: Iterable[Any], to_key: Any, to_value: Any) -> None:
        """Restore runs of changelog records; a row of another layout stops the worker."""
        try:
            for event in batch:
                records, tp = event.message.value, event.message.tp
                if tp.partition not in self._mine:
                    continue  # Faust hands over what it read before a rebalance took the partition away
                self.at(tp.partition).restore(
                    [record.key for record in records], [record.value for record in records]
                )
                self.restored += len(records)
                self.set_persisted_offset(tp, event.message.offset)
        except ChangelogError as error:
            # Faust logs and goes on after an error here, with half a table.
            asyncio.ensure_future(self.app.crash(error))  # noqa: RUF006 — crash ends the app
            raise

    def persisted_offset(self, tp: TP) -> int | None:
        """The changelog offset that this process's state of ``tp`` is known to contain, or None."""
        return self._offsets.get(tp)

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """Note that the state of ``tp`` contains the changelog up to ``offset``."""
        if tp.partition in self._mine:
            self._offsets[tp] = max(offset, self._offsets.get(tp, -1))

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Drop the state that now lives elsewhere; what stays is not read again."""
        mine = {tp.partition for tp in assigned if tp.topic in self.app.tables.changelog_topics}
        self._mine = mine
        for partition in [partition for partition in self.partitions if partition not in mine]:
            del self.partitions[partition]
        for tp in [tp for tp in self._offsets if tp.partition not in mine]:
            del self._offsets[tp]

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Stop the worker if the state has seen offsets that the events topic does not have."""
        mine = [TP(self._events, tp.partition) for tp in active_tps if tp.partition in self.partitions]
        if not mine:
            return
        ends = await self.app.consumer.highwaters(*mine)
        for tp in mine:
            seen, end = self.partitions[tp.partition].last_offset, ends[tp] or 0
            if seen >= end:
                await self.app.crash(
                    ChangelogError(
                        f"the state of {tp.topic}/{tp.partition} has seen offset {seen}, but the topic ends at {end}: it "
                        "was deleted and made anew, and its events would be skipped as seen before; set another "
                        "engine.id to build it anew"
                    )
                )

    def __iter__(self) -> Iterator[bytes]:
        for state in self.partitions.values():
            yield from state.profiles

    def __len__(self) -> int:
        return sum(len(state.profiles) for state in self.partitions.values())

    def __contains__(self, key: object) -> bool:
        return any(key in state.profiles for state in self.partitions.values())

    def __getitem__(self, key: bytes) -> Any:
        for state in self.partitions.values():
            row = state.profiles.row(key)
            if row is not None:
                return row
        raise KeyError(key)

    def __setitem__(self, key: bytes, value: Any) -> None:
        raise TypeError("profiles change by folding events, not key by key")

    def __delitem__(self, key: bytes) -> None:
        raise TypeError("profiles go by eviction, not key by key")

    def clear(self) -> None:
        """Drop everything held here."""
        self.partitions.clear()
        self._offsets.clear()

    def reset_state(self) -> None:
        """Drop everything held here, as Faust asks before it reads a table anew."""
        self.clear()

    async def backup_partition(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the changelog is the backup."""

    def restore_backup(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the changelog is the backup."""


class StateTable(faust.Table[bytes, Any]):
    """Faust's table over a :class:`StateStore`."""

    def __init__(
        self, app: faust.App, usecase: UseCase, partitions: int, *, events: str, changelog: str, max_open: int
    ) -> None:
        self._usecase, self._events, self._max_open, self._count = usecase, events, max_open, partitions
        super().__init__(
            app,
            name="state",
            partitions=partitions,
            changelog_topic=app.topic(
                changelog,
                schema=raw_schema(),
                partitions=partitions,
                internal=True,
                compacting=True,
                acks=False,
            ),
            # 1 would tell Faust to go on reading our own changelog after recovery.
            recovery_buffer_size=8,
            standby_buffer_size=8,
        )
        app.tables.add(self)

    def _new_store(self) -> StateStore:
        return StateStore(
            self._usecase,
            self._events,
            self._max_open,
            self._count,
            "state://",
            self.app,
            self,
            table_name=self.name,
            loop=self.loop,
            options={},
        )
