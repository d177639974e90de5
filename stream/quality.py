"""Online quality: how good the live scores turned out, over the decisions whose window is over.

Prequential (Dawid 1984): every decision was scored before its label was known. Only closed cohorts come here, so no
measure leans towards the positives, which are known earlier. ``stream/app.py`` shows the measures as metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.evaluation import CALIBRATION_BINS, LEAST, MISSING
from model.usecase import UseCase
from stream.pending import Open

BINS = 200  # of the score, for the AUC: off by at most the share of pairs within one bin
# Versions measured at once; of more, the one longest without a decision is forgotten. The live one, the one beside, and
# those before whose decisions are still open, or priors.
MODELS = 6
VALUES = 20  # of a slice; further ones are measured together
OTHER = "other"


class Cohort(NamedTuple):
    """Decisions measured together: one model version's, all of them or those with one value of a slice."""

    model: str
    slice: str = ""
    value: str = ""


class Added(msgspec.Struct, frozen=True):
    """What an observation adds up to: decisions, positives, and sums of their scores and log-losses."""

    decisions: int
    positives: int
    score: float
    log_loss: float


class Measures(msgspec.Struct, frozen=True):
    """Quality of a cohort, older decisions fading out; NaN where it cannot be told.

    ``decisions`` is the effective number, ``calibration_error`` the expected calibration error over 20 equal bins
    of the score (Naeini et al. 2015).
    """

    decisions: float
    base_rate: float
    auc: float
    log_loss: float
    calibration_error: float


class Quality:
    """Measures by cohort, over about the last ``usecase.quality.examples`` decisions of each."""

    def __init__(self, usecase: UseCase) -> None:
        self._names = usecase.quality.slices
        self._keep = 1 - 1 / usecase.quality.examples
        self._known: dict[str, set[str]] = {name: set() for name in self._names}
        self._faded: dict[Cohort, _Faded] = {}
        self._models: dict[str, None] = {}  # in order of their latest decision

    def observe(self, closed: Sequence[Open]) -> dict[Cohort, Added]:
        """Take decisions in, in the order in which they closed, and return what they add to each cohort."""
        groups: dict[Cohort, list[int]] = {}
        for position, entry in enumerate(closed):
            for cohort in self._cohorts(entry):
                groups.setdefault(cohort, []).append(position)
        score = np.array([entry.score for entry in closed], np.float64)
        label = np.array([entry.label for entry in closed], np.int64)
        loss = -np.log(np.clip(np.where(label == 1, score, 1 - score), LEAST, 1))
        added: dict[Cohort, Added] = {}
        for cohort, positions in groups.items():
            faded = self._faded.setdefault(cohort, _Faded())
            faded.add(score[positions], label[positions], loss[positions], self._keep)
            added[cohort] = Added(
                decisions=len(positions),
                positives=int(label[positions].sum()),
                score=float(score[positions].sum()),
                log_loss=float(loss[positions].sum()),
            )
        self._forget()
        return added

    def measures(self) -> dict[Cohort, Measures]:
        """The measures of every cohort that is remembered."""
        return {cohort: faded.measures() for cohort, faded in self._faded.items()}

    def _cohorts(self, entry: Open) -> list[Cohort]:
        self._models.pop(entry.model, None)
        self._models[entry.model] = None
        cohorts = [Cohort(entry.model)]
        for name, value in zip(self._names, entry.slices, strict=True):
            cohorts.append(Cohort(entry.model, name, self._bounded(name, value)))
        return cohorts

    def _bounded(self, name: str, value: str | None) -> str:
        known = self._known[name]
        if value is None:
            return MISSING
        if value not in known:
            if len(known) >= VALUES:
                return OTHER
            known.add(value)
        return value

    def _forget(self) -> None:
        while len(self._models) > MODELS:
            oldest = next(iter(self._models))
            del self._models[oldest]
            for cohort in [cohort for cohort in self._faded if cohort.model == oldest]:
                del self._faded[cohort]


class _Faded:
    """Sums over decisions, each weighing less with every later one."""

    def __init__(self) -> None:
        self._labels = np.zeros((2, BINS))  # decisions by label and bin of the score
        self._scores = np.zeros(CALIBRATION_BINS)
        self._loss = 0.0

    def add(
        self,
        score: NDArray[np.float64],
        label: NDArray[np.int64],
        loss: NDArray[np.float64],
        keep: float,
    ) -> None:
        """Add n decisions, [n] each, in order; each fades what was there by ``keep``."""
        n = len(score)
        weight = keep ** np.arange(n - 1, -1, -1.0)
        fine = np.clip((score * BINS).astype(np.int64), 0, BINS - 1)
        fade = keep**n
        self._labels *= fade
        np.add.at(self._labels, (label, fine), weight)
        coarse = fine * CALIBRATION_BINS // BINS
        self._scores = self._scores * fade + np.bincount(coarse, weight * score, CALIBRATION_BINS)
        self._loss = self._loss * fade + float(weight @ loss)

    def measures(self) -> Measures:
        negative, positive = self._labels
        n, positives, negatives = self._labels.sum(), positive.sum(), negative.sum()
        below = np.cumsum(negative) - negative / 2
        hits = positive.reshape(CALIBRATION_BINS, -1).sum(axis=1)
        pairs = positives * negatives
        return Measures(
            decisions=float(n),
            base_rate=float(positives / n),
            auc=float(positive @ below / pairs) if pairs > 0 else float("nan"),
            log_loss=float(self._loss / n),
            calibration_error=float(np.abs(hits - self._scores).sum() / n),
        )
