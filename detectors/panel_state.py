"""The state of a panel as its changelog keeps it: one record that says where it stands, and rows, a record a piece.

:mod:`detectors.panel` writes its own with :class:`State` and :func:`sealed`, and goes on from it with :class:`Kept`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from detectors import gathering, watch
from detectors.channels import of_labelled, of_scored
from detectors.collection import Collection, unpack
from detectors.pace import Pace
from detectors.rows import Rows, Schema
from detectors.verdict import Fault, Verdict
from detectors.watch import Make, Pieces, Watch

STATE = "state"  # the record that is not rows

Watches = tuple[Watch, Watch]  # of scored decisions, of those with a label


class State(msgspec.Struct):
    """All but the rows."""

    offset: int
    pieces: int  # the next one's number
    features: watch.Kept | None
    labels: watch.Kept | None
    before: tuple[Pieces, Pieces]
    pace: Pace | None
    arrival: list[Fault]
    verdict: Verdict | None
    returned: bool
    lasting: int
    scored: gathering.Kept
    labelled: gathering.Kept


def sealed(collections: Iterable[Collection], number: int) -> tuple[dict[str, bytes], set[str], int]:
    """The pieces of ``collections`` that are to be written, numbered from ``number``; all that are needed; the next number."""
    found: dict[str, bytes] = {}
    needed: set[str] = set()
    for collection in collections:
        for at, piece in collection.seal(number):
            found[str(at)] = piece
            number = at + 1
        needed |= {str(at) for at in collection.pieces}
    return found, needed, number


def read(records: Mapping[str, bytes]) -> State | None:
    """The state that ``records`` tell; None if they do not."""
    return msgspec.msgpack.decode(records[STATE], type=State) if STATE in records else None


class Kept:
    """Makes what a panel had of its ``records`` again; ``own`` are the rows of its model's reference."""

    def __init__(self, records: Mapping[str, bytes], schema: Schema, own: Rows) -> None:
        self._records, self._schema, self._own = records, schema, own

    def collection(self, pieces: Sequence[int]) -> Collection:
        """The rows of ``pieces``."""
        return Collection((number, unpack(self._records[str(number)])) for number in pieces)

    def watches(self, state: State) -> tuple[Watch | None, Watch | None, Watches]:
        """The two watches that are on duty, as far as they are, and those of before; where they are the same, as one."""
        features, labels = self._going(of_scored, state.features), self._going(of_labelled, state.labels)
        before = (
            self._before(features, of_scored, state.before[0]),
            self._before(labels, of_labelled, state.before[1]),
        )
        return features, labels, before

    def _before(self, going: Watch | None, make: Make, pieces: Pieces) -> Watch:
        return going if going is not None and going.pieces == pieces else self._watch(make, pieces)

    def _going(self, make: Make, kept: watch.Kept | None) -> Watch | None:
        if kept is None:
            return None
        found = self._watch(make, kept.pieces)
        found.resume(kept)
        return found

    def _watch(self, make: Make, pieces: Pieces) -> Watch:
        if pieces is None:
            return Watch(make, self._schema, self._own)
        gathered = self.collection(pieces)
        return Watch(make, self._schema, gathered.rows, gathered)
