"""Sampling: which decisions the drift monitor is shown, so few that it keeps up, and no user's too often.

:class:`Sampling` is asked by :mod:`stream.feedback` once for every tracked decision that a model has scored, in the
order of the partition. Event time is cut into blocks. In each, the users whose point, a hash of user and block in
0 ... ``SPACE``, lies below the block's share give one decision, their first, and no more than a quota of users do.

The share of a block follows from the most users that one of the last ``REMEMBERED`` blocks had, so that the quota lasts
over the whole block: those who come after it is used up would be missing, and the earliest would stand for all. The
last block alone would not do: a Monday may have twice the users of its Sunday. The users are counted from their points
(adaptive sampling, Wegman; Flajolet 1990): once the quota is used up, the share that is counted halves whenever more
points than the quota are remembered. In the first block the share is everybody.

What is remembered is the points of two blocks and the users of eight, and what is told to the changelog is each of the
points, and in the mark two small :class:`Block` and the users. A decision of an older block is not monitored.
"""

from __future__ import annotations

from hashlib import blake2b
from zlib import crc32

import msgspec

from model.usecase import Drift

SPACE = 1 << 32  # points are from 0 to below it
AIM = 0.9  # of the quota that a share is set for: a tenth more users than in the largest block find room
REMEMBERED = 8  # blocks that had users, whose largest sets the share: of days a week, and one more for a day without any
POINT_BYTES = 100  # of memory: an int and its slot in a set, about
_WORD = (1 << 64) - 1


class Block(msgspec.Struct, frozen=True):
    """A block's ``number``, and of its points those that are monitored and those that are counted: all below."""

    number: int
    share: int
    counted: int  # the share, or less once the quota is used up


class _Memory:
    """A block at work: its points so far, and how they are made."""

    def __init__(self, block: Block, points: set[int]) -> None:
        self.number, self.share, self.counted, self.points = block.number, block.share, block.counted, points
        # Multiply-add-shift (Dietzfelbinger 1996): any two users' points in a block are independent, at a third of
        # the price of a cryptographic hash of user and block.
        seed = blake2b(b"%d" % block.number, digest_size=16).digest()
        self.factor = int.from_bytes(seed[:8], "little") | 1
        self.addend = int.from_bytes(seed[8:], "little")

    @property
    def users(self) -> float:
        """About how many users the block has had; exact while the share is everybody."""
        return max(1, sum(point < self.counted for point in self.points)) * SPACE / self.counted


class Sampling:
    """The sample of one partition of ``partitions``."""

    def __init__(self, drift: Drift, partitions: int) -> None:
        self._block_ms = max(1, round(drift.block * 1000))
        self._quota = max(1, round(drift.samples / partitions))
        self._blocks: dict[int, _Memory] = {}  # the newest and the one before
        self._newest: _Memory | None = None
        self._users: tuple[int, ...] = ()  # of the last blocks before the newest, as counted when they ended
        self._restored: dict[int, set[int]] = {}  # points of blocks that are not at work yet
        self._added: list[str] = []
        self._gone: list[str] = []

    @property
    def share(self) -> float:
        """The share of the users that are monitored in the newest block."""
        return 1.0 if self._newest is None else self._newest.share / SPACE

    @property
    def nbytes(self) -> int:
        """Bytes of what is remembered, about."""
        return POINT_BYTES * sum(len(memory.points) for memory in self._blocks.values())

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks at work, for the mark."""
        return tuple(Block(memory.number, memory.share, memory.counted) for memory in self._blocks.values())

    @property
    def users(self) -> tuple[int, ...]:
        """About how many users each of the last blocks had, at most ``REMEMBERED``, for the mark."""
        return self._users

    def take(self, user: str, time: int) -> bool:
        """Whether the decision of ``user`` at ``time`` (ms) is monitored, and remember the user if so."""
        number = time // self._block_ms
        memory = self._blocks.get(number)
        if memory is None:
            if self._newest is not None and number < self._newest.number:
                return False
            memory = self._turn(number)
        point = ((memory.factor * crc32(user.encode()) + memory.addend) & _WORD) >> 32
        if point >= memory.counted:
            return False
        points = memory.points
        full = len(points) >= self._quota or memory.counted < memory.share
        new = point not in points
        if new:
            points.add(point)
            self._added.append(_name(number, point))
        if len(points) > self._quota:
            self._thin(memory)
        return new and not full

    def changes(self) -> tuple[list[str], list[str]]:
        """Names of the points remembered, and of those forgotten, since the last call."""
        added, gone = self._added, self._gone
        self._added, self._gone = [], []
        return added, gone

    def restore(self, name: str, *, kept: bool) -> None:
        """Remember the point called ``name``, or forget it."""
        number, point = map(int, name.split(":"))
        memory = self._blocks.get(number)
        points = self._restored.setdefault(number, set()) if memory is None else memory.points
        if kept:
            points.add(point)
        else:
            points.discard(point)

    def resume(self, blocks: tuple[Block, ...], users: tuple[int, ...]) -> None:
        """Go on with ``blocks`` and ``users`` of a mark; what a later record restores still finds its place."""
        self._users = users
        if blocks == self.blocks:
            return
        self._restored |= {number: memory.points for number, memory in self._blocks.items()}
        self._blocks = {
            block.number: _Memory(block, self._restored.pop(block.number, set())) for block in blocks
        }
        self._newest = self._blocks[blocks[-1].number] if blocks else None

    def _turn(self, number: int) -> _Memory:
        """Begin block ``number``, later than any before, and forget all but the one before it."""
        share = SPACE
        if self._newest is not None:
            self._users = (*self._users, round(self._newest.users))[-REMEMBERED:]
            share = max(1, min(SPACE, int(SPACE * AIM * self._quota / max(self._users))))
        points = self._restored | {old: memory.points for old, memory in self._blocks.items()}
        for old in [old for old in points if old < number - 1]:
            self._gone += [_name(old, point) for point in points.pop(old)]
        before = self._blocks.get(number - 1)
        if before is None:
            before = _Memory(Block(number - 1, share, share), points.get(number - 1, set()))
        self._newest = _Memory(Block(number, share, share), points.get(number, set()))
        self._blocks = {number - 1: before, number: self._newest}
        self._restored = {later: found for later, found in points.items() if later > number}
        return self._newest

    def _thin(self, memory: _Memory) -> None:
        """Count half the share, or half of that, until no more points than the quota are below it."""
        while len(memory.points) > self._quota:
            memory.counted //= 2
            gone = {point for point in memory.points if point >= memory.counted}
            memory.points -= gone
            self._gone += [_name(memory.number, point) for point in gone]


def _name(number: int, point: int) -> str:
    return f"{number}:{point}"
