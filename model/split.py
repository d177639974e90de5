"""The split: which examples a model may learn from, and which, all of them later, judge it. By time alone.

Called by :mod:`model.training` and its measurements. Two rules keep the future out. As of a moment, an example takes
part only if the window of its outcome had closed by then: before that only the positive ones have a label. And what
is fitted had its label when the first decision of the validation part was taken: a model that is validated on
decisions must not know what was unknown then ("purging": López de Prado, Advances in Financial Machine Learning, 2018,
section 7.4.1).
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import numpy as np

from model.examples import Examples, ExamplesError
from model.usecase import Training


class Parts(msgspec.Struct, frozen=True):
    """Examples to fit and, all of them later, examples to validate; ``whole`` is both and what was ``purged`` between.

    ``as_of`` is ms: nothing that became known later is in here.
    """

    fitting: Examples
    validation: Examples
    whole: Examples
    as_of: int

    @property
    def purged(self) -> int:
        """Rows that are too early to validate, with labels that came too late to be fitted."""
        return len(self.whole) - len(self.fitting) - len(self.validation)

    @property
    def times(self) -> dict[str, str]:
        """The first and last decision of either part, and the moment as of which they are seen, in ISO 8601."""
        moments = {"fitting": self.fitting.time, "validation": self.validation.time}
        ends = {f"{part}_{end}": iso(time[at]) for part, time in moments.items() for end, at in _ENDS}
        return {**ends, "as_of": iso(self.as_of)}


_ENDS = (("first", 0), ("last", -1))


def window(examples: Examples, training: Training, as_of: int | None = None) -> Parts:
    """Split what is known of ``examples`` at ``as_of`` (ms; None: when they end) as ``training`` says.

    What closes after the examples end takes no part: so far only its positive labels are there.

    Of the decisions whose windows had closed, ``validate`` before the latest one are validated, and ``train`` before
    that are fitted; a history shorter than both is divided in their proportion. Decisions of one time stay together.

    Raises :class:`ExamplesError` unless both parts have both labels: otherwise nothing can be fitted or judged.
    """
    matured, known = settled(examples, as_of)
    begin, cut = edges(matured, training)
    first, middle = (int(np.searchsorted(matured.time, edge, "right")) for edge in (begin, cut))
    whole, validation, before = matured[first:], matured[middle:], matured[first:middle]
    fitting = before[before.closes <= validation.time[0]]
    for part, what in ((fitting, "fitting"), (validation, "validation")):
        labels = labels_of(part)
        if labels != [0, 1]:
            raise ExamplesError(
                f"the {what} part needs examples of both labels, got labels {labels} in {len(part)} of the {len(whole)} "
                f"rows from {iso(whole.time[0])} to {iso(whole.time[-1])}, of which {len(before) - len(fitting)} had no label yet "
                f"when the validation part begins, {iso(validation.time[0])}; widen the dataset's time range, change "
                "[training] of the use case, or check the join of outcomes"
            )
    return Parts(fitting, validation, whole, known)


def settled(examples: Examples, as_of: int | None = None) -> tuple[Examples, int]:
    """Those of ``examples`` whose label was known at ``as_of`` (ms; None: when they end), and that moment.

    Raises :class:`ExamplesError` if there is none.
    """
    clock = _clock(examples)
    known = clock if as_of is None else min(as_of, clock)
    matured = examples[examples.closes <= known]
    if not len(matured):
        raise ExamplesError(
            f"a label is known once its decision's window has closed, the first at {iso(examples.closes.min())}, "
            f"got {iso(known)} as the moment to train; wait, or choose a later one"
        )
    return matured, known


def edges(matured: Examples, training: Training) -> tuple[int, int]:
    """After which moment (ms) the rows that ``training`` calls for begin, and after which those that validate."""
    end = int(matured.time[-1])
    history = end - int(matured.time[0]) + 1
    share = training.validate / (training.train + training.validate)
    length = min(int((training.train + training.validate) * 1000), history)
    return end - length, end - max(1, int(length * share))


def labels_of(rows: Examples) -> list[int]:
    """The labels among ``rows`` that count."""
    labels: list[int] = np.unique(rows.label[rows.sample_weight > 0]).astype(int).tolist()
    return labels


def _clock(examples: Examples) -> int:
    """How far event time had come, ms, when these were all the examples there are.

    To the latest decision, and to where the latest window that closed on a negative label closed.
    """
    negative = examples.closes[examples.label == 0]
    return max(int(examples.time.max()), int(negative.max(initial=0)))


def iso(ms: int | np.int64) -> str:
    """A moment in ms since the epoch as ISO 8601, UTC, to the second."""
    return datetime.fromtimestamp(int(ms) / 1000, UTC).isoformat(timespec="seconds")
