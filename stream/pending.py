"""What waits in the join: open decisions and held outcomes, by id, by subject and by the time they are due.

Their place in the changelog is described in :mod:`stream.feedback`, which puts them here and takes them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from stream.sampling import Block


class Open(msgspec.Struct, gc=False, eq=False):
    """A decision whose window is open; times in ms.

    ``record`` is its ``scores`` record. It is emptied once the decision is an example, unless that is ``monitored``:
    then it is wanted again when the window closes.
    """

    id: str
    type: str
    user: str
    item: str | None
    offset: int  # of its event in the source
    time: int
    closes: int  # the last moment at which an outcome counts
    due: int  # the watermark after which the label is final
    score: float
    model: str
    slices: tuple[str | None, ...]  # the decision's values of the use case's slices
    record: bytes
    label: int = 0
    weight: float = 1.0
    outcome_time: int | None = None
    matured: bool = False  # it is an example
    monitored: bool = False  # it is in the sample of the drift monitor
    kept: bool = False  # the changelog has it


class Held(msgspec.Struct, gc=False, eq=False):
    """An outcome that is kept until the watermark passes ``due``, for decisions that arrive after it."""

    id: str
    type: str
    user: str
    item: str | None
    offset: int
    time: int
    due: int
    kept: bool = False


class Mark(msgspec.Struct, frozen=True):
    """How far the join has come: the last source offset, and the latest event time and what is sampled up to it."""

    offset: int
    watermark: int
    blocks: tuple[Block, ...] = ()
    users: tuple[int, ...] = ()  # of the last blocks before the newest


class _Waiting(Protocol):
    id: str
    due: int


_Entry = TypeVar("_Entry", bound=_Waiting)
Subject = tuple[str, str, str | None]  # type, user and, where it counts, item


class Shelf(Generic[_Entry]):
    """Entries by id, by ``subject``, and in the order in which they are due."""

    def __init__(self, subject: Callable[[_Entry], Subject]) -> None:
        self._subject = subject
        self._entries: dict[str, _Entry] = {}
        self._about: dict[Subject, list[_Entry]] = {}
        self._due: list[tuple[int, str]] = []  # a heap; what has been taken or replaced is passed over

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def get(self, name: str) -> _Entry | None:
        """The entry with the id ``name``, or None."""
        return self._entries.get(name)

    def about(self, subject: Subject) -> Sequence[_Entry]:
        """The entries on ``subject``, in the order in which they were put."""
        return self._about.get(subject, ())

    def put(self, entry: _Entry) -> None:
        """Add an entry whose id is not here."""
        self._entries[entry.id] = entry
        self._about.setdefault(self._subject(entry), []).append(entry)
        heapq.heappush(self._due, (entry.due, entry.id))

    def take(self, name: str) -> _Entry | None:
        """Remove and return the entry with the id ``name``, or None."""
        entry = self._entries.pop(name, None)
        if entry is not None:
            subject = self._subject(entry)
            others = self._about[subject]
            others.remove(entry)
            if not others:
                del self._about[subject]
        return entry

    def passed(self, watermark: int) -> Iterator[_Entry]:
        """Remove and yield, in order, the entries that were due before ``watermark``."""
        while self._due and self._due[0][0] < watermark:
            due, name = heapq.heappop(self._due)
            if name in self._entries and self._entries[name].due == due:
                entry = self.take(name)
                assert entry is not None
                yield entry
