"""The panels of a model: one watches all its decisions, and one each every value of a slice. The monitor has them.

They share the model's budget: together they raise one false alarm in ``events_between_false_alarms`` of its decisions.
Half of it is the first panel's if there are slices, and all of it otherwise; the slices share the other half evenly. The
panels of one slice see different decisions, so that their rates add up to that of one panel which sees them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.blocks import Blocks, Clock, Mark, Released
from detectors.episode import Identity
from detectors.faults import Usual
from detectors.panel import Panel, Policy
from detectors.rows import Float64, Rows, Schema
from detectors.verdict import Verdict
from detectors.witnesses import Witness
from model.reference import Reference
from model.usecase import UseCase

# Of the reference, that a value of a slice needs to be watched on its own: rows, and rows of either label.
LEAST_ROWS, LEAST_OF_LABEL = 500, 5
OVERALL = 0.5  # share of the budget that the panel of all decisions has, where there are slices


class PanelsMark(msgspec.Struct, frozen=True):
    """How far the blocks of a model are shown: rows until now, where either kind stands, and from which offset on rows wait."""

    number: int
    scored: Mark
    matured: Mark
    first: int | None


class Panels:
    """The panels of the model ``version``, by identity; ``rare`` are the values of each slice that have none.

    Those have less than ``LEAST_ROWS`` rows in the reference, or less than ``LEAST_OF_LABEL`` of either label.
    """

    def __init__(
        self,
        usecase: UseCase,
        version: str,
        schema: Schema,
        reference: Reference,
        witnesses: Sequence[Witness],
    ) -> None:
        drift, known, usual = usecase.drift, _rows(reference), _usual(reference, schema)
        overall, each = budget(drift.events_between_false_alarms, len(drift.slices))
        policy = Policy(
            threshold=overall, labels=drift.labels, alpha=drift.alpha, label_free=drift.label_free
        )
        self._all = Identity(usecase.name, version, "", "")
        self.by_identity = {
            self._all: Panel(self._all, schema, known, policy, witnesses, drift.slices, usual)
        }
        self.rare: dict[str, list[str]] = {}
        self._slices: list[tuple[str, int, dict[str, Panel]]] = []  # name, column and panels by value
        policy = msgspec.structs.replace(policy, threshold=each)
        for name in drift.slices:
            column = schema.categorical.index(name)
            where = _where(known, column)
            others = [other for other in drift.slices if other != name]
            panels = {}
            for value, rows in where.items():
                if value is None or not _enough(known.label[rows]):
                    continue
                identity = Identity(usecase.name, version, name, value)
                panels[value] = Panel(identity, schema, known[rows], policy, witnesses, others, usual)
                self.by_identity[identity] = panels[value]
            self.rare[name] = sorted(value for value in where if value is not None and value not in panels)
            self._slices.append((name, column, panels))
        self._version = version
        self._length = round(drift.block * 1000)
        self._number = 0  # rows shown to the panels: those are numbered, for what is read again
        self._scored, self._matured = Blocks(self._length), Blocks(self._length)

    @property
    def first(self) -> int | None:
        """The offset of the first row that waits for its block to end; None if none does."""
        return min(
            (each.first for each in (self._scored, self._matured) if each.first is not None), default=None
        )

    def observe(
        self,
        rows: Rows,
        at: NDArray[np.int64],
        clocks: tuple[Clock, Clock],
        unwatched: Counter[tuple[str, str]],
    ) -> list[Verdict]:
        """Take in ``rows``, at the offsets ``at`` [n], and show the blocks that are over to the panels.

        ``clocks`` are those of scored samples and of samples with a label, of all models. Counts by model and slice
        what has no panel.
        """
        known = ~np.isnan(rows.label)
        ended = self._scored.add(rows[~known], at[~known], clocks[0])
        ended += self._matured.add(rows[known], at[known], clocks[1])
        ended.sort(key=lambda each: each.offset)
        return [verdict for each in ended for verdict in self._show(each, unwatched)]

    def finish(self, unwatched: Counter[tuple[str, str]]) -> list[Verdict]:
        """Show the blocks that are not over: no more rows are to come."""
        ended = self._scored.finish() + self._matured.finish()
        return [verdict for each in ended for verdict in self._show(each, unwatched)]

    def mark(self) -> PanelsMark:
        """What :meth:`resume` takes."""
        return PanelsMark(self._number, self._scored.mark, self._matured.mark, self.first)

    def resume(self, mark: PanelsMark) -> None:
        """Go on from ``mark``; the rows that waited are to be given again."""
        self._number = mark.number
        self._scored, self._matured = Blocks(self._length, mark.scored), Blocks(self._length, mark.matured)

    def _show(self, block: Released, unwatched: Counter[tuple[str, str]]) -> list[Verdict]:
        rows, matured = block.rows, not np.isnan(block.rows.label[0])
        pace = None if matured else block.pace
        at = np.arange(self._number, self._number + len(rows))
        self._number += len(rows)
        verdicts = self.by_identity[self._all].observe(rows, at, pace)
        for name, column, panels in self._slices:
            for value, inside in _where(rows, column).items():
                panel = None if value is None else panels.get(value)
                if panel is None:
                    unwatched[self._version, name] += len(inside)
                else:
                    verdicts += panel.observe(rows[inside], at[inside], pace)
        return verdicts


def budget(events_between_false_alarms: float, slices: int) -> tuple[float, float]:
    """The thresholds of a model's panel of all its decisions, and of each panel of a slice, of which there are so many.

    >>> budget(50_000, 2)
    (100000.0, 200000.0)
    """
    if not slices:
        return float(events_between_false_alarms), float("inf")
    return events_between_false_alarms / OVERALL, events_between_false_alarms * slices / (1 - OVERALL)


def _enough(label: Float64) -> bool:
    """Whether a value with these rows of the reference, of ``label`` [n], can be watched on its own."""
    positive = int(label.sum())
    return len(label) >= LEAST_ROWS and min(positive, len(label) - positive) >= LEAST_OF_LABEL


def _rows(reference: Reference) -> Rows:
    n = len(reference)
    return Rows(
        numeric=reference.numeric.astype(np.float64),
        categorical=reference.categorical,
        score=reference.score.astype(np.float64),
        label=reference.label.astype(np.float64),
        time=reference.time,
        received=np.zeros(n, np.int64),
        key=np.arange(n, dtype=np.uint64),
    )


def _usual(reference: Reference, schema: Schema) -> Usual:
    names = (*schema.numeric, *schema.categorical)
    return Usual(*(dict(zip(names, shares, strict=True)) for shares in reference.usual.tolist()))


def _where(rows: Rows, column: int) -> dict[str | None, NDArray[np.int64]]:
    """Of each value of the categorical ``column``, the rows that have it.

    Not by NumPy's comparison, which takes strings for equal that differ in NULs at their end.
    """
    found: dict[str | None, list[int]] = {}
    for row, value in enumerate(rows.categorical[:, column].tolist()):
        found.setdefault(value, []).append(row)
    return {value: np.array(at, np.int64) for value, at in found.items()}
