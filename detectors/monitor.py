"""The monitor: several models of one use case, from samples to verdicts. No Kafka, no clock.

:mod:`detectors.app` feeds it from the ``samples`` topic and :mod:`detectors.offline` from a replay. It tells bad samples,
repeats and unknown models from those that are watched, by the :mod:`detectors.panels` of each model.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import msgspec
import numpy as np

from detectors import episode, panel_state
from detectors.blocks import Clock
from detectors.episode import Identity
from detectors.panel import Panel, Status
from detectors.panels import Panels, PanelsMark
from detectors.rows import Schema
from detectors.samples import MEMORY, Repeats, Sample, SampleError, SampleRecord, check, decode, rows_of
from detectors.verdict import Verdict
from detectors.witnesses import Witness
from model.features import feature_spec
from model.reference import Reference
from model.usecase import UseCase

_NEXT = b'["next"]'  # the key of the monitor's own record; a model's has two parts, a panel's four


class Bad(msgspec.Struct, frozen=True):
    """A record that is no sample, and why."""

    offset: int
    detail: str


class Observed(msgspec.Struct):
    """What came of some records. ``unknown`` counts the samples of models that are not watched, by version.

    ``unwatched`` counts, by model and slice, those whose value has no panel of its own; ``latest`` is the time of the
    latest decision, ms, 0 if there was none.
    """

    verdicts: list[Verdict] = []
    bad: list[Bad] = []
    scored: int = 0
    matured: int = 0
    repeated: int = 0
    unknown: Counter[str] = msgspec.field(default_factory=Counter)
    unwatched: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    latest: int = 0


class Monitor:
    """Watches the models that ``references`` names, each with its reference; asks ``witnesses`` once one alarms.

    Verdicts depend on the samples and their offsets alone, not on how they are cut into calls.
    """

    def __init__(
        self, usecase: UseCase, references: Mapping[str, Reference], witnesses: Sequence[Witness] = ()
    ) -> None:
        spec = feature_spec(usecase)
        self._schema = Schema(spec.numeric, tuple(column.name for column in spec.categorical))
        self._models = {
            version: Panels(usecase, version, self._schema, reference, witnesses)
            for version, reference in references.items()
        }
        self._delays = {
            name: round((decision.window + decision.lateness) * 1000)
            for name, decision in usecase.decisions.items()
        }
        self._slowest = max(self._delays.values())
        self._repeats = Repeats()
        self._next = self._kept = 0
        self._retired: list[bytes] = []  # the changelog's records of models that are not watched any more
        self._waiting: dict[
            str, int
        ] = {}  # by model, from which offset on rows waited when this was restored
        self._marks = {version: panels.mark() for version, panels in self._models.items()}  # as last written
        self._written: dict[
            Identity, int
        ] = {}  # the offset that each panel had when its state was last written

    @property
    def next(self) -> int:
        """The offset of the first sample that has not been seen."""
        return self._next

    @property
    def resume(self) -> int:
        """The offset to read on from: before :attr:`next` lie rows whose blocks were not over, and what repeats are known by.

        So neither is in the state, and yet nobody can tell a monitor that was restored.
        """
        return max(0, self.waiting - MEMORY)

    @property
    def waiting(self) -> int:
        """The offset from which on samples may not have been watched, because their block was not over."""
        return min([self._next, *self._waiting.values()])

    @property
    def models(self) -> frozenset[str]:
        """The versions that are watched."""
        return frozenset(self._models)

    @property
    def unwatched(self) -> dict[tuple[str, str], list[str]]:
        """By model and slice, the values of the reference that are too rare to be watched on their own."""
        return {
            (version, name): rare
            for version, model in self._models.items()
            for name, rare in model.rare.items()
            if rare
        }

    def observe(self, records: Sequence[SampleRecord]) -> Observed:
        """Take ``records`` in, in the order of their offsets."""
        observed = Observed()
        fresh: dict[str, list[tuple[Sample, SampleRecord]]] = {version: [] for version in self._models}
        ticks: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        for record in records:
            new = record.offset >= self._next
            self._next = max(self._next, record.offset + 1)
            try:
                sample = decode(record.value)
                watched = self._watched(record, sample, observed if new else Observed())
            except SampleError as error:
                if new:
                    observed.bad.append(Bad(record.offset, str(error)))
                continue
            matured = sample.label is not None
            # The labels of all types are final up to where those of the slowest are.
            ahead = self._slowest - self._delays.get(sample.type, self._slowest) if matured else 0
            ticks[matured].append((record.offset, sample.time - ahead))
            if watched:
                fresh[sample.model].append((sample, record))
        clocks = _clock(ticks[0]), _clock(ticks[1])
        for version, found in fresh.items():
            received = [record.received for _, record in found]
            rows = rows_of([sample for sample, _ in found], received, self._schema)
            at = np.array([record.offset for _, record in found], np.int64)
            observed.verdicts += self._models[version].observe(rows, at, clocks, observed.unwatched)
        return observed

    def _watched(self, record: SampleRecord, sample: Sample, observed: Observed) -> bool:
        """Whether ``sample`` is to be watched; otherwise why not is counted."""
        repeated = self._repeats.add(record.offset, sample)
        observed.latest = max(observed.latest, sample.time)
        if repeated:
            observed.repeated += 1
            return False
        if sample.model not in self._models:
            observed.unknown[sample.model] += 1
            return False
        check(sample, self._schema)
        observed.scored += sample.label is None
        observed.matured += sample.label is not None
        return True

    def changes(self) -> dict[bytes, bytes | None]:
        """The changelog's records since the last call, to be written in this order; None is a tombstone.

        The one that says where to go on comes last: until it is there, what the others know already is given again,
        and passed over by them.
        """
        changed: dict[bytes, bytes | None] = dict.fromkeys(self._retired)
        self._retired = []
        for panel, identity in self._panels():
            if panel.offset == self._written.get(identity, -1):
                continue
            self._written[identity] = panel.offset
            for name, value in panel.changes().items():
                changed[_key(identity, name)] = value
        for version, panels in self._models.items():
            mark = panels.mark()
            if mark != self._marks[version]:
                self._marks[version] = mark
                changed[_key_of_mark(version)] = msgspec.json.encode(mark)
        if self._next != self._kept:
            changed[_NEXT] = b"%d" % self._next
            self._kept = self._next
        return changed

    def restore(self, records: Mapping[bytes, bytes], spared: Collection[str] = ()) -> list[Verdict]:
        """Go on from the changelog's ``records``, the last of each key.

        Those of models that are not watched any more are deleted from it, and their open episodes end: their last
        verdicts are returned, the same each time until :meth:`changes` are written. ``spared`` are models that are not
        watched for now, and whose state stays.
        """
        found: dict[tuple[str, ...], dict[str, bytes]] = {}
        ended: list[Verdict] = []
        for key, value in records.items():
            if key == _NEXT:
                self._next = self._kept = int(value)
            else:
                *where, name = json.loads(key)
                model = where[0] if len(where) > 1 else name
                if model in spared and model not in self._models:
                    continue
                if model not in self._models:
                    self._retired.append(key)
                    ended += _ended({name: value}) if len(where) > 1 else []
                if len(where) > 1:
                    found.setdefault(tuple(where), {})[name] = value
                elif name in self._models:
                    self._marks[name] = mark = msgspec.json.decode(value, type=PanelsMark)
                    self._models[name].resume(mark)
                    if mark.first is not None:
                        self._waiting[name] = mark.first
        for panel, identity in self._panels():
            state = found.get((identity.model, identity.slice, identity.value))
            if state is not None:
                panel.restore(state)
                self._written[identity] = panel.offset
        return sorted(ended, key=lambda verdict: verdict.id)

    def finish(self) -> Observed:
        """Watch what waits for its block to end, because no more records are to come."""
        observed = Observed()
        for panels in self._models.values():
            observed.verdicts += panels.finish(observed.unwatched)
        return observed

    def status(self) -> dict[Identity, Status]:
        """How each panel stands."""
        return {identity: panel.status() for panel, identity in self._panels()}

    def _panels(self) -> list[tuple[Panel, Identity]]:
        return [
            (panel, identity)
            for panels in self._models.values()
            for identity, panel in panels.by_identity.items()
        ]


def _clock(ticks: list[tuple[int, int]]) -> Clock:
    at, time = np.array(ticks, np.int64).reshape(-1, 2).T
    return Clock(at, time)


def _ended(records: Mapping[str, bytes]) -> list[Verdict]:
    """The last word on what a panel with these ``records``, which is no more, left open."""
    state = panel_state.read(records)
    if state is None or state.verdict is None or state.verdict.final:
        return []
    return [episode.retired(state.verdict)]


def _key_of_mark(version: str) -> bytes:
    return json.dumps(["blocks", version]).encode()


def _key(identity: Identity, name: str) -> bytes:
    return json.dumps([identity.model, identity.slice, identity.value, name]).encode()
