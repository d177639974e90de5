"""The panel: watches one model, in all its decisions or in one value of a slice, and follows each alarm to its verdict.

Two watches step along, one over scored decisions and one over decisions with labels. An alarm of either opens an
*episode*, and takes that watch off duty. After an alarm of the first the next ``FIRST`` scored rows are searched for data
faults and tested as far as that goes without labels; after either, the next ``Policy.labels`` rows with labels tell the
kind, and twice as many if they leave a doubt. Only rows after the alarm are used, because those before it were chosen
by it. An alarm that comes before the kind is told opens an episode of its own, which goes on with the labels gathered.

A watch goes on duty again with the gathered rows as its reference, once these are at rest: while a drift is under way
their first half differs from the second, and is dropped. A data fault that has ended goes back to the reference of
before, and so does a false alarm, unless the one before it did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors import diagnosis, episode, panel_state
from detectors.channels import of_labelled, of_scored
from detectors.episode import Alarm, Identity
from detectors.faults import UNKNOWN_USUAL, Usual, arrival_faults, column_faults
from detectors.gathering import Gathering
from detectors.pace import Pace, following
from detectors.panel_state import STATE, State, sealed
from detectors.rows import Rows, Schema
from detectors.verdict import Fault, Kind, Testimony, Verdict
from detectors.watch import Make, Watch, loudest, step
from detectors.witnesses import Witness

FIRST = 300  # scored rows of the first diagnosis
SEGMENT = 256  # rows stepped through at once: bounds memory
LASTING = 20  # looks, each at FIRST rows, after which a data fault that is still there is no fault any more


class Policy(msgspec.Struct, frozen=True):
    """``threshold`` is the evidence that raises an alarm, which is the least mean number of rows between false ones.

    ``label_free``: what looks like a label shift is answered as one before there are labels (:mod:`detectors.response`).
    """

    threshold: float
    labels: int = 1000
    alpha: float = 0.01
    label_free: bool = False


class Status(msgspec.Struct, frozen=True):
    """Where a panel stands, for people and metrics; ``kind`` is that of the latest verdict."""

    state: Literal["watching", "diagnosing", "settling"]
    log10_evidence: float
    log10_threshold: float
    scored: int  # rows since the detector began
    labelled: int
    kind: Kind | None


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
        usual: Usual = UNKNOWN_USUAL,
    ) -> None:
        self._identity, self._schema, self._policy, self._usual = identity, schema, policy, usual
        self._witnesses, self._slices = witnesses, slices
        self.offset = -1
        self._next_piece = 0
        self._kept: set[str] = set()  # records that the changelog has
        self._own = reference
        # What the watches compared with before an episode, to diagnose against and to go back to.
        self._before = (Watch(of_scored, schema, reference), Watch(of_labelled, schema, reference))
        self._features: Watch | None = self._before[0]  # None: its next reference is gathered
        self._labels: Watch | None = self._before[1]
        settle = 2 * policy.labels
        # At work while there is no watch of features; the other one from an alarm on.
        self._scored = Gathering(labelled=False, steps=(FIRST, settle))
        self._labelled = Gathering(labelled=True, steps=(policy.labels, settle))
        self._returned = False  # whether the last alarm was taken for a false one
        self._lasting = 0  # looks at which a data fault was still found
        self._pace: Pace | None = None  # of the last block without a fault
        self._arrival: list[Fault] = []  # what is wrong with how the latest block arrived
        self._verdict: Verdict | None = None  # the latest

    # --- rows

    def observe(self, rows: Rows, at: NDArray[np.int64], pace: Pace | None = None) -> list[Verdict]:
        """Take in ``rows``, numbered ``at`` [n], rising, and return the verdicts that they bring.

        A row without a label is a decision just scored, one with a label the same once its outcome is known. Rows up to
        the last number seen are passed over. How rows are divided among calls makes no difference, but for ``pace``,
        which is how they arrived: without it faults of arrival are not seen.
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
        rows = rows[: min(self._scored.until_enough(rows), self._labelled.until_enough(rows))]
        alarm = step(self._features, self._labels, rows, at, self._policy.threshold)
        taken = rows if alarm is None else rows[: int(np.searchsorted(at, alarm.offset)) + 1]
        self._scored.add(taken)
        self._labelled.add(taken)
        if alarm is None:
            self._proceed(verdicts)
        else:
            self._raise(alarm, verdicts)
        return len(taken)

    # --- alarms

    def _raise(self, alarm: Alarm, verdicts: list[Verdict]) -> None:
        """Take the watch that raised ``alarm`` off duty; it opens an episode unless it belongs to the one that is open.

        It does if it compared with what the episode compares with. Labels that are being gathered go on being gathered:
        else alarms that come more often than labels would keep the kind from ever being told.
        """
        watch = self._labels if alarm.labelled else self._features
        told = loudest(self._features, self._labels)
        if not self._open or watch not in self._before:
            if self._open:
                assert self._verdict is not None
                verdicts.append(episode.overtaken(self._verdict))
            else:
                self._labelled.begin(alarm.time)
            self._before = (self._features or self._before[0], self._labels or self._before[1])
            prior = float(self._before[1].reference.label.mean())
            self._verdict = episode.alarmed(self._identity, alarm, told, prior)
            verdicts.append(self._verdict)
        if alarm.labelled:
            self._labels = None
        else:
            self._features = None
            self._scored.begin()

    @property
    def _open(self) -> bool:
        return self._verdict is not None and not self._verdict.final

    @property
    def _faulty(self) -> bool:
        return self._open and self._verdict is not None and self._verdict.kind is Kind.FAULT

    def _arrive(self, rows: Rows, number: int, pace: Pace, verdicts: list[Verdict]) -> None:
        """Look at how a block arrived; a fault of that opens an episode by itself, since no column need change."""
        reference = (self._features or self._before[0]).reference
        self._arrival = []
        if len(rows) >= FIRST:
            self._arrival = arrival_faults(reference, rows, self._pace, pace)
        if self._features is None:
            return
        if not self._arrival:
            self._pace = following(self._pace, pace)
            return
        begin = int(rows.time.min())
        alarm = Alarm(
            offset=number,
            time=begin,
            changed=begin,
            monitored=self._features.detector.rows,
            evidence=float(self._features.detector.evidence().sum()),
            threshold=self._policy.threshold,
            labelled=False,
        )
        self._raise(alarm, verdicts)
        self._blame(self._arrival, rows[: self._policy.labels], verdicts)

    def _blame(self, found: Sequence[Fault], window: Rows, verdicts: list[Verdict]) -> None:
        """Call the data faulty: nothing is learned from them."""
        assert self._verdict is not None
        if not self._faulty:
            self._lasting = 0
        told = self._diagnosis(window, self._policy.alpha)
        self._verdict = episode.faulty(self._verdict, found, told, window)
        verdicts.append(self._verdict)
        self._features = self._labels = None
        self._scored.again()
        self._labelled.stop()

    # --- what is gathered

    def _proceed(self, verdicts: list[Verdict]) -> None:
        """Do what the gathered rows are enough for."""
        if self._verdict is not None and self._open and len(self._scored) >= FIRST:
            if self._faulty:
                self._look_again(self._verdict, verdicts)
            elif not self._scored.asked:
                self._look(self._verdict, verdicts)
        if self._open and len(self._labelled) >= (1 + self._labelled.asked) * self._policy.labels:
            self._ask(verdicts)
        if not self._faulty:
            self._take_up()

    def _take_up(self) -> None:
        """Watch again with what was gathered as the reference, where that is enough and at rest."""
        settle = 2 * self._policy.labels
        if len(self._scored) >= settle and self._scored.at_rest():
            self._features = self._watch(of_scored, self._scored)
        if not self._open and len(self._labelled) >= settle and self._labelled.at_rest():
            self._labels = self._watch(of_labelled, self._labelled)
        if not self._open and self._features is not None and self._labels is not None:
            self._before = (self._features, self._labels)

    def _watch(self, make: Make, gathered: Gathering) -> Watch:
        found = Watch(make, self._schema, gathered.rows, gathered.collection)
        gathered.stop()
        return found

    def _column_faults(self, window: Rows) -> list[Fault]:
        return column_faults(self._before[0].reference, window, self._schema, self._usual)

    def _look(self, verdict: Verdict, verdicts: list[Verdict]) -> None:
        """Diagnose without labels, and look for data faults."""
        self._scored.asked, window = 1, self._scored.rows
        found = [*self._column_faults(window), *self._arrival]
        if found:
            self._blame(found, window, verdicts)
            return
        told = self._diagnosis(window, self._policy.alpha)
        self._verdict = episode.diagnosed(
            verdict, told, window, self._heard(window), last=False, label_free=self._policy.label_free
        )
        verdicts.append(self._verdict)

    def _look_again(self, verdict: Verdict, verdicts: list[Verdict]) -> None:
        """See whether a data fault is over, or has lasted for so long that it is how things are now."""
        window = self._scored.rows
        found = [*self._column_faults(window), *self._arrival]
        self._lasting += 1
        if not found:
            self._verdict = episode.recovered(verdict, window)
            verdicts.append(self._verdict)
            self._return()
        elif self._lasting >= LASTING:
            self._verdict = episode.accepted(verdict, window)
            verdicts.append(self._verdict)
            self._pace = None
            self._scored.again()
            self._labelled.begin(int(window.time.max()))
        else:
            self._scored.again()
            if not _named(found) <= _named(verdict.faults):
                self._blame(found, window, verdicts)

    def _ask(self, verdicts: list[Verdict]) -> None:
        """A diagnosis with labels; as there may be two, each has half of alpha."""
        assert self._verdict is not None
        window = self._labelled.rows
        self._labelled.asked += 1
        told = self._diagnosis(window, self._policy.alpha / 2)
        self._verdict = episode.diagnosed(
            self._verdict, told, window, self._heard(window), last=self._labelled.asked > 1
        )
        verdicts.append(self._verdict)
        if not self._verdict.final:
            return
        if told.changed or self._returned:
            self._labels = None  # what it compares with is of before the change
            self._returned = False
        else:
            # Once: an alarm that comes back against a reference is no chance, however small what it has seen.
            self._return()
            self._returned = True

    def _diagnosis(self, window: Rows, alpha: float) -> diagnosis.Diagnosis:
        return diagnosis.diagnose(self._before[1].reference, window, self._schema, alpha, self._slices)

    def _heard(self, window: Rows) -> list[Testimony]:
        return [each.testify(self._before[1].reference, window, self._schema) for each in self._witnesses]

    def _return(self) -> None:
        """Go on watching with the references of before the episode."""
        for watch in self._before:
            watch.detector.reset()
        self._features, self._labels = self._before
        self._scored.stop()
        self._labelled.stop()

    # --- the changelog

    def changes(self) -> dict[str, bytes | None]:
        """Records to write to the changelog, in this order, for :meth:`restore`; None is a tombstone."""
        watches = (*self._before, self._features, self._labels)
        live = [self._scored.collection, self._labelled.collection]
        live += [watch.gathered for watch in watches if watch is not None and watch.gathered is not None]
        pieces, needed, self._next_piece = sealed(live, self._next_piece)
        # The state after the rows that it names, and before those go that it names no more.
        found: dict[str, bytes | None] = {**pieces, STATE: msgspec.msgpack.encode(self._state())}
        found |= dict.fromkeys(sorted(self._kept - needed))
        self._kept = needed
        return found

    def restore(self, records: Mapping[str, bytes]) -> None:
        """Go on from what :meth:`changes` gave, of a panel with the same arguments; rows that no state names are let go."""
        self._kept = {name for name in records if name != STATE}
        state = panel_state.read(records)
        if state is None:
            return
        kept = panel_state.Kept(records, self._schema, self._own)
        self.offset, self._next_piece = state.offset, state.pieces
        self._features, self._labels, self._before = kept.watches(state)
        self._pace, self._arrival = state.pace, state.arrival
        self._verdict, self._returned, self._lasting = state.verdict, state.returned, state.lasting
        self._scored.resume(state.scored, kept.collection)
        self._labelled.resume(state.labelled, kept.collection)

    def _state(self) -> State:
        return State(
            offset=self.offset,
            pieces=self._next_piece,
            features=None if self._features is None else self._features.kept(),
            labels=None if self._labels is None else self._labels.kept(),
            before=(self._before[0].pieces, self._before[1].pieces),
            pace=self._pace,
            arrival=self._arrival,
            verdict=self._verdict,
            returned=self._returned,
            lasting=self._lasting,
            scored=self._scored.kept(),
            labelled=self._labelled.kept(),
        )

    def status(self) -> Status:
        """Where the panel stands."""
        watches = [watch for watch in (self._features, self._labels) if watch is not None]
        evidence = max((float(watch.detector.evidence().sum()) for watch in watches), default=0.0)
        verdict = self._verdict
        state: Literal["watching", "diagnosing", "settling"] = "watching"
        if self._open:
            state = "diagnosing"
        elif self._features is None or self._labels is None:
            state = "settling"
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
