"""The log of a backtest: its examples in order of time, and what becomes known when. Called by :mod:`detectors.backtest`."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.samples import Sample, SampleRecord
from model.examples import Examples, ExamplesError
from model.features import FeatureSpec, Float32, feature_spec
from model.usecase import UseCase

DAY = 86_400_000  # ms


def settled(examples: Examples) -> Examples:
    """The examples whose window had closed when the log ended; of later ones only the positive are there."""
    negative = examples.closes[examples.label == 0]
    clock = max(int(examples.time.max()), int(negative.max(initial=0)))
    return examples[examples.closes <= clock]


class Log:
    """``examples``, :func:`settled`, to be lived through from ``begin`` (ms) on; ``monitored`` [n] is the sample of them.

    Raises :class:`~model.examples.ExamplesError` if none comes after ``begin``.
    """

    def __init__(self, case: UseCase, examples: Examples, monitored: NDArray[np.bool_], begin: int) -> None:
        self.case, self.examples, self.begin = case, examples, begin
        self.first = int(np.searchsorted(examples.time, begin))  # row of the first decision that is judged
        if self.first == len(examples):
            raise ExamplesError(
                "the log has decisions after the moment from which on to judge, got none; choose an earlier one"
            )
        self._spec = feature_spec(case)
        rows = np.flatnonzero(monitored)
        self._scored = rows[rows >= self.first]  # in order of time
        self._matured = self._scored[np.argsort(examples.closes[self._scored], kind="stable")]
        self._scored_at, self._matured_at = examples.time[self._scored], examples.closes[self._matured]

    def decided(self, begin: int, end: int) -> slice:
        """The rows decided from ``begin`` to before ``end``."""
        return slice(*np.searchsorted(self.examples.time, (begin, end)).tolist())

    def shown(self, begin: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows [k] that the monitor is shown on the day from ``begin`` to ``end``, in order, and which with their label.

        A label that becomes known as the day ends is of this day: whoever trains then knows it, too.
        """
        scored = self._scored[slice(*np.searchsorted(self._scored_at, (begin, end)))]
        matured = self._matured[slice(*np.searchsorted(self._matured_at, (begin, end), "right"))]
        rows = np.concatenate([matured, scored])
        labelled = np.arange(len(rows)) < len(matured)
        moment = np.where(labelled, self.examples.closes[rows], self.examples.time[rows])
        order = np.argsort(moment, kind="stable")  # of one moment, labels first: their decisions are older
        return rows[order], labelled[order]

    def known_since(self, since: int, now: int) -> int:
        """How many decisions from ``since`` on have a label ``now``."""
        first = int(np.searchsorted(self.examples.time, since))
        return int((self.examples.closes[first:] <= now).sum())

    def became_known(self, since: int, now: int) -> int:
        """How many labels became known after ``since`` and until ``now``."""
        return int(((since < self.examples.closes) & (self.examples.closes <= now)).sum())

    def samples(
        self, version: str, rows: NDArray[np.int64], score: Float32, labelled: NDArray[np.bool_], first: int
    ) -> list[SampleRecord]:
        """The records, offsets from ``first`` on, that a worker writes of ``rows``, scored ``score`` [k] by ``version``."""
        chosen = self.examples[rows]
        found = []
        for at, (row, features) in enumerate(zip(rows.tolist(), _features(self._spec, chosen), strict=True)):
            label: Literal[0, 1] | None = None
            if labelled[at]:
                label = 1 if chosen.label[at] else 0
            sample = Sample(str(row), int(chosen.time[at]), float(score[at]), version, features, label)
            found.append(SampleRecord(first + at, 0, msgspec.json.encode(sample)))
        return found


def _features(spec: FeatureSpec, examples: Examples) -> list[dict[str, float | str | None]]:
    """The features of each example by name; what is missing, or a number that JSON has not, is null."""
    numeric = examples.numeric.astype(object)
    numeric[~np.isfinite(examples.numeric)] = None
    names = [*spec.numeric, *(column.name for column in spec.categorical)]
    values = np.concatenate([numeric, examples.categories], axis=1)
    return [dict(zip(names, row, strict=True)) for row in values.tolist()]
