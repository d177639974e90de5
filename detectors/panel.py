"""The panel: watches one model, in all its decisions or in one value of a slice, and follows each alarm to its verdict.

While nothing has changed two detectors step along, one over scored decisions and one over decisions with labels, and
their evidence is one sum. An alarm opens an *episode*: rows from then on are gathered, the first ``FIRST`` scored ones
are searched for data faults and tested as far as that goes without labels, and the first ``Policy.labels`` with labels
tell the kind; twice as many if they leave a doubt. Only rows after the alarm are used, because those before it
were chosen by it. Then each detector starts again with the gathered rows as its reference, once these are at rest:
while a drift is under way its first half differs from its second, and the first is dropped.

A false alarm, and a data fault that has ended, go back to the reference of before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors import diagnosis, episode
from detectors.channels import of_labelled, of_scored
from detectors.collection import Collection, unpack
from detectors.episode import Alarm, Identity
from detectors.faults import arrival_faults, column_faults
from detectors.pace import Pace
from detectors.rows import Rows, Schema
from detectors.verdict import Fault, Kind, Verdict
from detectors.watch import Kept, Make, Pieces, Watch, loudest, step
from detectors.witnesses import Witness

FIRST = 300  # scored rows of the first diagnosis
SEGMENT = 256  # rows stepped through at once: bounds memory
RESTLESS = 3  # times that gathering goes on because the rows are not at rest
REST = 0.05  # p-value below which they are not

STATE = "state"  # the changelog record that is not rows


class Policy(msgspec.Struct, frozen=True):
    """``threshold`` is the evidence that raises an alarm, which is the least mean number of rows between false ones."""

    threshold: float
    labels: int = 1000
    alpha: float = 0.01


class Status(msgspec.Struct, frozen=True):
    """Where a panel stands, for people and metrics; ``kind`` is that of the latest verdict."""

    state: Literal["watching", "diagnosing", "settling"]
    log10_evidence: float
    log10_threshold: float
    scored: int  # rows since the detector began
    labelled: int
    kind: Kind | None


class _State(msgspec.Struct):
    """All but the rows."""

    offset: int
    pieces: int  # the next one's number
    features: Kept | None
    labels: Kept | None
    before: tuple[Pieces, Pieces]
    pace: Pace | None
    arrival: list[Fault]
    verdict: Verdict | None
    settled: bool
    asked: int
    restless: list[int]
    scored: list[int]
    labelled: list[int]


class Panel:
    """See the module. ``reference`` rows all have labels; ``slices`` are categorical columns to tell apart in verdicts."""

    def __init__(
        self,
        identity: Identity,
        schema: Schema,
        reference: Rows,
        policy: Policy,
        witnesses: Sequence[Witness] = (),
        slices: Sequence[str] = (),
    ) -> None:
        self._identity, self._schema, self._policy = identity, schema, policy
        self._witnesses, self._slices = witnesses, slices
        self.offset = -1
        self._next_piece = 0
        self._kept: set[str] = set()  # records that the changelog has
        self._own = reference
        # The watches that go on, and those of before an episode, to go back to.
        self._before = (Watch(of_scored, schema, reference), Watch(of_labelled, schema, reference))
        self._features: Watch | None = self._before[0]
        self._labels: Watch | None = self._before[1]
        self._pace: Pace | None = None  # of the last block without a fault
        self._arrival: list[Fault] = []  # what is wrong with how the latest block arrived
        self._verdict: Verdict | None = None  # of the episode that is open or was the last
        self._settled = True  # no episode is open
        self._begin_gathering()

    # --- rows

    def observe(self, rows: Rows, at: NDArray[np.int64], pace: Pace | None = None) -> list[Verdict]:
        """Take in ``rows``, numbered ``at`` [n], rising, and return the verdicts that they bring.

        A row without a label is a decision just scored, one with a label the same once its outcome is known. Rows up to
        the last number seen are passed over. How rows are divided among calls makes no difference, but for ``pace``,
        which is how they arrived: without it faults of time are not seen.
        """
        new = at > self.offset
        if not new.all():
            rows, at = rows[new], at[new]
        verdicts: list[Verdict] = []
        if pace is not None and len(rows):
            self._arrive(rows[np.isnan(rows.label)], int(at[0]), pace, verdicts)
        while len(rows):
            taken = self._advance(rows[:SEGMENT], at[:SEGMENT], verdicts)
            self.offset = int(at[taken - 1])
            rows, at = rows[taken:], at[taken:]
        return verdicts

    def _advance(self, rows: Rows, at: NDArray[np.int64], verdicts: list[Verdict]) -> int:
        """Take in rows until an alarm or until enough are gathered for the next step; returns how many."""
        if not self._settled:
            rows = rows[: self._until_enough(rows)]
        alarm = step(self._features, self._labels, rows, at, self._policy.threshold)
        taken = rows if alarm is None else rows[: int(np.searchsorted(at, alarm.offset)) + 1]
        if not self._settled:
            self._gather(taken)
            if alarm is None:
                self._proceed(verdicts)
        if alarm is not None:
            self._open(alarm, verdicts)
        return len(taken)

    def _arrive(self, rows: Rows, number: int, pace: Pace, verdicts: list[Verdict]) -> None:
        """Look at how a block arrived; a fault of that opens an episode by itself, since no column need change."""
        features, labels = self._before
        self._arrival = []
        if len(rows) >= FIRST:
            self._arrival = arrival_faults(features.reference, rows, self._pace, pace)
        if not self._arrival:
            self._pace = pace if self._settled else self._pace
        elif self._settled:
            evidence = sum(float(each.detector.evidence().sum()) for each in self._before)
            begin, rows = int(rows.time.min()), rows[: self._policy.labels]
            alarm = Alarm(
                offset=number,
                time=begin,
                changed=begin,
                monitored=features.detector.rows,
                evidence=evidence,
                threshold=self._policy.threshold,
            )
            self._open(alarm, verdicts)
            assert self._verdict is not None
            told = diagnosis.diagnose(labels.reference, rows, self._schema, self._policy.alpha, self._slices)
            self._verdict = episode.faulty(self._verdict, self._arrival, told, rows)
            verdicts.append(self._verdict)

    # --- an episode

    def _open(self, alarm: Alarm, verdicts: list[Verdict]) -> None:
        if self._verdict is not None and not self._verdict.final:
            verdicts.append(episode.overtaken(self._verdict))
        told = loudest(self._features, self._labels)
        self._before = (self._features or self._before[0], self._labels or self._before[1])
        self._features = self._labels = None
        self._settled = False
        self._begin_gathering()
        prior = float(self._before[1].reference.label.mean())
        self._verdict = episode.alarmed(self._identity, alarm, told, prior)
        verdicts.append(self._verdict)

    def _begin_gathering(self) -> None:
        self._scored, self._labelled = Collection(), Collection()
        self._asked = 0  # diagnoses with labels
        self._restless = [0, 0]

    def _gather(self, rows: Rows) -> None:
        if self._features is None:
            self._scored.add(rows[np.isnan(rows.label)])
        if self._labels is None and not self._faulty:
            self._labelled.add(rows[self._later(rows)])

    def _later(self, rows: Rows) -> NDArray[np.bool_]:
        """Rows with a label whose decision came after the alarm: those that become known first are of before it."""
        assert self._verdict is not None
        return ~np.isnan(rows.label) & (rows.time >= self._verdict.alarmed)

    @property
    def _faulty(self) -> bool:
        return self._verdict is not None and self._verdict.kind is Kind.FAULT

    @property
    def _settle(self) -> int:
        return 2 * self._policy.labels

    def _until_enough(self, rows: Rows) -> int:
        """How many of ``rows`` to take until one of the collections is large enough for what comes next."""
        assert self._verdict is not None
        limit = len(rows)
        for mine, have, steps in (
            (np.isnan(rows.label), len(self._scored), (FIRST, self._settle)),
            (self._later(rows), len(self._labelled), (self._policy.labels, self._settle)),
        ):
            at = np.flatnonzero(mine)
            for enough in steps:
                if 0 < enough - have <= len(at):
                    limit = min(limit, int(at[enough - have - 1]) + 1)
        return limit

    def _proceed(self, verdicts: list[Verdict]) -> None:
        """Do what the gathered rows are enough for."""
        verdict = self._verdict
        assert verdict is not None
        if (verdict.revision == 0 or self._faulty) and len(self._scored) >= FIRST:
            self._look(verdict, verdicts)
        elif not verdict.final and len(self._labelled) >= (1 + self._asked) * self._policy.labels:
            self._ask(verdict, verdicts)
        if self._settled or self._faulty:
            return
        if self._features is None and len(self._scored) >= self._settle and self._at_rest(0, self._scored):
            self._features = Watch(of_scored, self._schema, self._scored.rows, self._scored)
            self._scored = Collection()
        if self._labels is None and len(self._labelled) >= self._settle and self._at_rest(1, self._labelled):
            self._labels = Watch(of_labelled, self._schema, self._labelled.rows, self._labelled)
            self._labelled = Collection()
        if self._features is not None and self._labels is not None:
            self._before = (self._features, self._labels)
            self._settled = True

    def _look(self, verdict: Verdict, verdicts: list[Verdict]) -> None:
        """Diagnose without labels, and look for data faults."""
        features, labels = self._before
        window = self._scored.rows
        found = [*column_faults(features.reference, window, self._schema), *self._arrival]
        if verdict.kind is Kind.FAULT and not found:
            self._verdict = episode.recovered(verdict, window)
            verdicts.append(self._verdict)
            self._return()
            return
        told = diagnosis.diagnose(labels.reference, window, self._schema, self._policy.alpha, self._slices)
        if found:
            self._scored, self._labelled = Collection(), Collection()
            if _named(verdict.faults) == _named(found):
                return
            self._verdict = episode.faulty(verdict, found, told, window)
        else:
            heard = [each.testify(labels.reference, window, self._schema) for each in self._witnesses]
            self._verdict = episode.diagnosed(verdict, told, window, heard, last=False)
        verdicts.append(self._verdict)

    def _ask(self, verdict: Verdict, verdicts: list[Verdict]) -> None:
        """A diagnosis with labels."""
        labels, window = self._before[1], self._labelled.rows
        self._asked += 1
        told = diagnosis.diagnose(labels.reference, window, self._schema, self._policy.alpha, self._slices)
        heard = [each.testify(labels.reference, window, self._schema) for each in self._witnesses]
        self._verdict = episode.diagnosed(verdict, told, window, heard, last=self._asked > 1)
        verdicts.append(self._verdict)
        if self._verdict.final and not told.changed:
            self._return()

    def _return(self) -> None:
        """Go on watching with the references of before the episode."""
        for watch in self._before:
            watch.detector.reset()
        self._features, self._labels = self._before
        self._settled = True
        self._begin_gathering()

    def _at_rest(self, which: int, gathered: Collection) -> bool:
        """Whether both halves of what is gathered look alike; if not, the first is dropped, and gathering goes on."""
        if self._restless[which] >= RESTLESS:
            return True
        rows = gathered.rows
        half = len(rows) // 2
        if diagnosis.p_same(rows[:half], rows[half:]) >= REST:
            return True
        gathered.drop_first(half)
        self._restless[which] += 1
        return False

    # --- the changelog

    def changes(self) -> dict[str, bytes | None]:
        """Records to write to the changelog, in this order, for :meth:`restore`; None is a tombstone."""
        watches = (*self._before, self._features, self._labels)
        live = [self._scored, self._labelled]
        live += [watch.gathered for watch in watches if watch is not None and watch.gathered is not None]
        found: dict[str, bytes | None] = {}
        for collection in live:
            for number, piece in collection.seal(self._next_piece):
                found[str(number)] = piece
                self._next_piece = number + 1
        needed = {str(number) for collection in live for number in collection.pieces}
        # The state after the rows that it names, and before those go that it names no more.
        found[STATE] = msgspec.msgpack.encode(self._state())
        found |= dict.fromkeys(sorted(self._kept - needed))
        self._kept = needed
        return found

    def restore(self, records: Mapping[str, bytes]) -> None:
        """Go on from what :meth:`changes` gave, of a panel with the same arguments; rows that no state names are let go."""
        self._kept = {name for name in records if name != STATE}
        if STATE not in records:
            return
        state = msgspec.msgpack.decode(records[STATE], type=_State)

        def collection(pieces: Sequence[int]) -> Collection:
            return Collection((number, unpack(records[str(number)])) for number in pieces)

        def watch(make: Make, pieces: Pieces) -> Watch:
            if pieces is None:
                return Watch(make, self._schema, self._own)
            gathered = collection(pieces)
            return Watch(make, self._schema, gathered.rows, gathered)

        def going(make: Make, kept: Kept | None) -> Watch | None:
            if kept is None:
                return None
            found = watch(make, kept.pieces)
            found.resume(kept)
            return found

        self.offset, self._next_piece = state.offset, state.pieces
        self._features = going(of_scored, state.features)
        self._labels = going(of_labelled, state.labels)
        self._before = (
            watch(of_scored, state.before[0]),
            watch(of_labelled, state.before[1]),
        )
        self._pace, self._arrival = state.pace, state.arrival
        self._verdict, self._settled = state.verdict, state.settled
        if self._settled and self._features is not None and self._labels is not None:
            self._before = (self._features, self._labels)
        self._asked, self._restless = state.asked, state.restless
        self._scored, self._labelled = collection(state.scored), collection(state.labelled)

    def _state(self) -> _State:
        return _State(
            offset=self.offset,
            pieces=self._next_piece,
            features=None if self._features is None else self._features.kept(),
            labels=None if self._labels is None else self._labels.kept(),
            before=(self._before[0].pieces, self._before[1].pieces),
            pace=self._pace,
            arrival=self._arrival,
            verdict=self._verdict,
            settled=self._settled,
            asked=self._asked,
            restless=self._restless,
            scored=self._scored.pieces,
            labelled=self._labelled.pieces,
        )

    def status(self) -> Status:
        """Where the panel stands."""
        evidence = sum(
            float(watch.detector.evidence().sum())
            for watch in (self._features, self._labels)
            if watch is not None
        )
        verdict = self._verdict
        state: Literal["watching", "diagnosing", "settling"] = "watching"
        if not self._settled:
            state = "settling" if verdict is not None and verdict.final else "diagnosing"
        return Status(
            state=state,
            log10_evidence=math.log10(max(evidence, 1.0)),
            log10_threshold=math.log10(self._policy.threshold),
            scored=0 if self._features is None else self._features.detector.rows,
            labelled=0 if self._labels is None else self._labels.detector.rows,
            kind=None if verdict is None else verdict.kind,
        )


def _named(faults: Sequence[Fault]) -> set[tuple[str, str]]:
    """What is wrong with which column; the details change with every row."""
    return {(each.check, each.column) for each in faults}
