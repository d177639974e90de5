"""The sink's buffer: what was read of the examples topic and is not in the example log yet. No Kafka, no clock.

:mod:`retrain.sink` adds records and asks when to write; a :class:`Batch` is what it writes and then commits.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from model.examples import Example


class Batch(msgspec.Struct, frozen=True):
    """What is to be written together: ``offsets`` are to be committed then, by partition; ``name`` is the files'."""

    examples: list[Example]
    offsets: dict[int, int]
    name: str


class _Held(msgspec.Struct):
    """What is held of a partition: offsets from ``first`` to before ``end``."""

    first: int
    end: int
    examples: list[Example]


class Buffer:
    """Holds what was read of ``topic`` until there are ``rows`` records of it, or the first is ``seconds`` old."""

    def __init__(self, topic: str, rows: int, seconds: float) -> None:
        self._topic, self._most, self._seconds = topic, rows, seconds
        self._held: dict[int, _Held] = {}
        self._records = 0
        self._since = 0.0

    def __len__(self) -> int:
        return sum(len(held.examples) for held in self._held.values())

    def add(self, partition: int, offset: int, example: Example | None, now: float) -> None:
        """Hold the record at ``offset``, read at ``now`` (s); ``example`` is None if it is a dead letter."""
        if not self._held:
            self._since = now
        held = self._held.get(partition)
        if held is None:
            held = self._held[partition] = _Held(offset, offset, [])
        held.end = offset + 1
        self._records += 1
        if example is not None:
            held.examples.append(example)

    def due(self, now: float) -> bool:
        """Whether to write at ``now`` (s)."""
        return self._records >= self._most or (bool(self._held) and now - self._since >= self._seconds)

    def take(self) -> Batch:
        """All that is held, which is held no more."""
        held = dict(sorted(self._held.items()))
        self.drop(held)
        return Batch(
            [example for each in held.values() for example in each.examples],
            {partition: each.end for partition, each in held.items()},
            ".".join([self._topic, *(f"{p}.{each.first}-{each.end - 1}" for p, each in held.items())]),
        )

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget what is held of ``partitions``: they are another's."""
        for partition in list(partitions):
            self._held.pop(partition, None)
        self._records = sum(each.end - each.first for each in self._held.values())
