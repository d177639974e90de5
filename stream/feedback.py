"""Feedback: outcomes meet the decisions that they judge, in event time, and labels mature into examples.

``stream/engine.py`` calls :meth:`Pending.join` once a run, with one :class:`Pending` a partition. Time is the
partition's own: its watermark is the latest event time that it has seen. What comes out depends on the order of the
partition's events alone, never on how they were batched, so a replay after a crash gives the same labels.

A decision is positive as soon as its weightiest outcome has happened within its window, negative once the watermark
has passed the window's end by the decision's ``lateness``, and nothing before.

Of the decisions that are tracked, :mod:`stream.sampling` chooses those that the drift monitor is shown: once as they are
scored, and once more with their label when their window has closed. Not sooner, even if the label is known: among the
labels known early there are positives alone.

Pending decisions live in the state changelog beside the profiles, under keys that no user can have:

=========================  ======================================================================
``ff 64`` (d), decision id  an :class:`~stream.pending.Open` decision; a tombstone once its window is over
``ff 6f`` (o), event id     a :class:`~stream.pending.Held` outcome; a tombstone once it is let go
``ff 73`` (s), block:point  a user that the sample has seen in that block; a tombstone once it is forgotten
``ff 6d`` (m)               the :class:`~stream.pending.Mark`: the last offset joined; watermark, blocks and users there
=========================  ======================================================================

A run's changes stand before its mark, and its mark before its profile rows. So a row that says an event is folded
proves that its join is kept, and what a crash cuts off is joined again, from the mark on, to the same result. Only the
tombstones of held outcomes follow the mark: without them what is joined again might miss one, with them left over the
clock lets it go again. So do, for the same reason, those of the sample's users. That users are seen is written after the
decisions: where it is kept, the decision by which they were seen is kept as monitored, and its sample is not lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from deploy.live import PRIOR
from model.usecase import Decision, UseCase
from stream.events import Columns, Event
from stream.layout import NEVER
from stream.pending import Held, Mark, Open, Shelf, Subject
from stream.sampling import Sampling
from stream.scoring import Score

PREFIX = b"\xff"  # never a byte of UTF-8, so no user's key begins with it
MARK = PREFIX + b"m"
_DECISION, _OUTCOME, _SEEN = PREFIX + b"d", PREFIX + b"o", PREFIX + b"s"
_KEPT = b"1"  # the value of a key that says all
OVERHEAD = 700  # bytes of an open decision beside its record, or of a held outcome: objects, index, deadline

_json = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode
_unpack_open = msgspec.msgpack.Decoder(Open).decode
_unpack_held = msgspec.msgpack.Decoder(Held).decode
_unpack_mark = msgspec.msgpack.Decoder(Mark).decode


class Outcomes(StrEnum):
    """What came of an outcome event."""

    MATCHED = "matched"  # made a decision positive, or weightier
    DUPLICATE = "duplicate"  # its decision had one already that counts as much
    BEFORE = "before"  # happened before the decision that is open
    LATE = "late"  # matched none, and lies so far back that its decision may have closed
    UNMATCHED = "unmatched"  # no decision has a window that it falls into
    ADOPTED = "adopted"  # found unmatched before, and then matched by a decision that arrived after it
    FORGOTTEN = "forgotten"  # could not be held for decisions to come: as many are as the engine may hold


class Untracked(StrEnum):
    """Why a scored decision gets no example."""

    REPEATED = "repeated"  # a decision of that id is open: the same event was sent again
    LATE = "late"  # its window was over when it arrived
    FULL = "full"  # as many decisions are open as the engine may hold


class _Label(msgspec.Struct):
    label: int
    weight: float
    outcome_time: int | None
    closes: int


class Joined(msgspec.Struct):
    """What a run came to: examples to publish, decisions whose window is over, and changes to keep."""

    users: list[bytes] = []  # the key of each example
    examples: list[bytes] = []  # records of the `examples` topic, :class:`model.examples.Example`
    positives: int = 0  # of the examples
    # Records of the `samples` topic: a monitored decision's `scores` record, and its example once the window closed.
    samples: list[bytes] = []
    # Of each sample: when the decision's event was sent, ms, or 0 if it has a label; that came of the clock.
    sent: list[int] = []
    matured: int = 0  # of the samples, those with a label
    closed: list[Open] = []
    keys: list[bytes] = []  # changelog
    values: list[bytes | None] = []
    outcomes: Counter[Outcomes] = msgspec.field(default_factory=Counter)
    untracked: Counter[Untracked] = msgspec.field(default_factory=Counter)


class _Rule(NamedTuple):
    """A decision type's terms in ms; ``most`` is the largest weight that one of its outcomes has."""

    window: int
    lateness: int
    by_item: bool
    most: float

    @classmethod
    def of(cls, decision: Decision) -> _Rule:
        return cls(
            round(decision.window * 1000),
            round(decision.lateness * 1000),
            decision.match == "item",
            max(decision.outcomes.values()),
        )


class Pending:
    """The open decisions of one partition, at most ``limit`` of them: further ones are scored but not tracked.

    What is refused does not depend on how it will end, so the examples that there are stay unbiased. As many outcomes
    are held at most. One of ``partitions`` that share the drift monitor's sample.
    """

    def __init__(self, usecase: UseCase, limit: int, partitions: int) -> None:
        self._rules = {name: _Rule.of(decision) for name, decision in usecase.decisions.items()}
        self._judged: dict[
            str, list[tuple[str, float]]
        ] = {}  # by outcome: decisions that it judges, its weight
        for name, decision in usecase.decisions.items():
            for outcome, weight in decision.outcomes.items():
                self._judged.setdefault(outcome, []).append((name, weight))
        self._patience = {
            outcome: max(self._rules[name].lateness for name, _ in judged)
            for outcome, judged in self._judged.items()
        }
        self._concerns = np.array([name in self._rules or name in self._judged for name in usecase.events])
        self._slices = usecase.quality.slices
        self._limit = limit
        self._sampling = Sampling(usecase.drift, partitions)
        self._open = Shelf[Open](lambda entry: self._subject(entry.type, entry.user, entry.item))
        self._held = Shelf[Held](lambda held: (held.type, held.user, None))
        self._changes: dict[bytes, Open | Held | None] = {}
        self._bytes = 0  # about, of the open decisions
        self.mark = Mark(-1, NEVER)

    def __len__(self) -> int:
        return len(self._open)

    @property
    def held(self) -> int:
        """Outcomes held for decisions that may arrive after them."""
        return len(self._held)

    @property
    def nbytes(self) -> int:
        """Bytes of all that waits, and of what the sample remembers, about."""
        return self._bytes + OVERHEAD * len(self._held) + self._sampling.nbytes

    @property
    def sampled_share(self) -> float:
        """The share of users whose decisions are monitored now."""
        return self._sampling.share

    def join(
        self,
        columns: Columns,
        decisions: NDArray[np.int64],
        scores: Sequence[Score],
        records: Sequence[bytes],
        last: int,
    ) -> Joined:
        """Join a run of events that ends at source offset ``last``; events that an earlier run has joined are skipped.

        ``decisions`` [d] are the positions of those that were scored, ``scores`` [d] and ``records`` [d] their
        ``scores`` records, as values and encoded.
        """
        joined = Joined()
        watermarks = np.maximum.accumulate(
            np.append(self.mark.watermark, columns.times)
        )  # [n + 1], before each event
        sent = columns.sent[decisions].tolist()
        scored = dict(zip(decisions.tolist(), zip(scores, records, sent, strict=True), strict=True))
        concerned = self._concerns[columns.codes] & (columns.offsets > self.mark.offset)
        for position in np.flatnonzero(concerned).tolist():
            event, time = columns.events[position], int(columns.times[position])
            offset, watermark = int(columns.offsets[position]), int(watermarks[position])
            self._pass(watermark, joined)
            if event.type in self._judged:
                self._judge(event, offset, time, watermark, joined)
            if position in scored:
                self._track(scored[position], offset, watermark, joined)
        self._pass(int(watermarks[-1]), joined)
        self.mark = Mark(
            max(self.mark.offset, last), int(watermarks[-1]), self._sampling.blocks, self._sampling.users
        )
        self._keep(joined)
        return joined

    def restore(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Apply changelog records in their order."""
        for key, value in zip(keys, values, strict=True):
            kind, name = key[:2], key[2:].decode()
            if kind == MARK:
                if value is not None:
                    self.mark = _unpack_mark(value)
                    self._sampling.resume(self.mark.blocks, self.mark.users)
            elif kind == _SEEN:
                self._sampling.restore(name, kept=value is not None)
            elif kind == _DECISION:
                self._forget(self._open.take(name))
                if value is not None:
                    self._remember(_unpack_open(value))
            else:
                self._held.take(name)
                if value is not None:
                    self._held.put(_unpack_held(value))

    def _track(self, scored: tuple[Score, bytes, int], offset: int, watermark: int, joined: Joined) -> None:
        """Open the decision, unless it cannot be tracked, or was restored from a run that a crash cut off."""
        score, record, sent = scored
        rule = self._rules[score.type]
        closes = score.time + rule.window
        same = self._open.get(score.id)
        if same is not None and same.offset == offset:
            if same.model != PRIOR:
                self._sampling.take(same.user, same.time)  # what it did to the sample may be cut off
            return
        if same is not None:
            joined.untracked[Untracked.REPEATED] += 1
        elif closes + rule.lateness < watermark:
            joined.untracked[Untracked.LATE] += 1
        elif len(self._open) >= self._limit:
            joined.untracked[Untracked.FULL] += 1
        else:
            entry = Open(
                id=score.id,
                type=score.type,
                user=score.user,
                item=score.item,
                offset=offset,
                time=score.time,
                closes=closes,
                due=closes + rule.lateness,
                score=score.score,
                model=score.model,
                slices=tuple(_text(score.features[name]) for name in self._slices),
                record=record,
                monitored=score.model != PRIOR and self._sampling.take(score.user, score.time),
            )
            self._remember(entry)
            self._changes[_DECISION + entry.id.encode()] = entry
            if entry.monitored:
                joined.samples.append(record)
                joined.sent.append(sent)
            for held, weight in self._arrived_before(entry):
                joined.outcomes[Outcomes.ADOPTED] += self._count(entry, held.time, weight, joined)

    def _arrived_before(self, entry: Open) -> Iterator[tuple[Held, float]]:
        """Outcomes that are held and may judge the decision, with their weights."""
        for outcome, judged in self._judged.items():
            for kind, weight in judged:
                if kind == entry.type:
                    for held in self._held.about((outcome, entry.user, None)):
                        here = not self._rules[kind].by_item or held.item == entry.item
                        if here and held.offset < entry.offset:
                            yield held, weight

    def _judge(self, event: Event, offset: int, time: int, watermark: int, joined: Joined) -> None:
        """Let an outcome count for every open decision that it falls to, and hold it for those to come.

        What a crash cut off may have left decisions and outcomes here that arrive only later: offsets tell.
        """
        matched = duplicate = before = False
        for kind, weight in self._judged[event.type]:
            for entry in self._open.about(self._subject(kind, event.user, event.item)):
                if entry.offset > offset:
                    continue
                if time < entry.time:
                    before = True
                elif time <= entry.closes:
                    counted = self._count(entry, time, weight, joined)
                    matched, duplicate = matched or counted, duplicate or not counted
        due = time + self._patience[event.type]
        if matched or duplicate:
            result = Outcomes.MATCHED if matched else Outcomes.DUPLICATE
        elif due < watermark:
            result = Outcomes.LATE
        else:
            result = Outcomes.BEFORE if before else Outcomes.UNMATCHED
        joined.outcomes[result] += 1
        if due < watermark or event.id in self._held:
            return
        if len(self._held) >= self._limit:
            joined.outcomes[Outcomes.FORGOTTEN] += 1
        else:
            held = Held(event.id, event.type, event.user, event.item, offset, time, due)
            self._held.put(held)
            self._changes[_OUTCOME + held.id.encode()] = held

    def _count(self, entry: Open, time: int, weight: float, joined: Joined) -> bool:
        """Note an outcome of an open decision; False unless it is the first, or weightier than those before."""
        if not entry.time <= time <= entry.closes or (entry.label and weight <= entry.weight):
            return False
        entry.label, entry.weight, entry.outcome_time = 1, weight, time
        self._changes[_DECISION + entry.id.encode()] = entry
        if weight >= self._rules[entry.type].most:  # nothing can change it any more
            self._mature(entry, joined)
        return True

    def _mature(self, entry: Open, joined: Joined) -> None:
        """Publish the decision as an example."""
        joined.users.append(entry.user.encode())
        joined.examples.append(_example(entry))
        joined.positives += entry.label
        entry.matured = True
        if not entry.monitored:
            self._bytes -= len(entry.record)
            entry.record = b""

    def _pass(self, watermark: int, joined: Joined) -> None:
        """Close the windows, and let the held outcomes go, that ``watermark`` has passed."""
        for entry in self._open.passed(watermark):
            if not entry.matured:
                self._mature(entry, joined)
            if entry.monitored:
                joined.samples.append(_example(entry))
                joined.sent.append(0)
                joined.matured += 1
            joined.closed.append(entry)
            self._forget(entry)
            self._drop(_DECISION, entry)
        for held in self._held.passed(watermark):
            self._drop(_OUTCOME, held)

    def _remember(self, entry: Open) -> None:
        self._open.put(entry)
        self._bytes += OVERHEAD + len(entry.record)

    def _forget(self, entry: Open | None) -> None:
        if entry is not None:
            self._bytes -= OVERHEAD + len(entry.record)

    def _drop(self, kind: bytes, entry: Open | Held) -> None:
        """Let the changelog know that ``entry`` is gone, if it knows of it."""
        key = kind + entry.id.encode()
        self._changes.pop(key, None)
        if entry.kept:
            self._changes[key] = None

    def _keep(self, joined: Joined) -> None:
        """Hand over what the changelog needs to hear of this run, in the order that the module describes."""
        released = [
            key for key, change in self._changes.items() if change is None and key.startswith(_OUTCOME)
        ]
        for key in released:
            del self._changes[key]
        for key, change in self._changes.items():
            if change is not None:
                change.kept = True
            joined.keys.append(key)
            joined.values.append(None if change is None else _pack(change))
        self._changes.clear()
        seen, forgotten = self._sampling.changes()
        released += [_SEEN + name.encode() for name in forgotten]
        joined.keys += [*(_SEEN + name.encode() for name in seen), MARK, *released]
        joined.values += [*[_KEPT] * len(seen), _pack(self.mark), *[None] * len(released)]

    def _subject(self, kind: str, user: str, item: str | None) -> Subject:
        return kind, user, item if self._rules[kind].by_item else None


def _example(entry: Open) -> bytes:
    """The decision's `scores` record, continued by the label's fields."""
    label = _Label(entry.label, entry.weight, entry.outcome_time, entry.due)
    return entry.record[:-1] + b"," + _json(label)[1:]


def _text(value: float | str | None) -> str | None:
    return value if isinstance(value, str) else None
