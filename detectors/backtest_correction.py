"""Corrections: what a model's verdicts have its scores corrected by, in :mod:`detectors.backtest`.

A verdict of label drift names the share of positive outcomes before and now. What "before" is, its panel knows: the
model's own reference at first, the decisions gathered after an earlier drift later on. So corrections add up from one
reference to the next, and within an episode each revision takes the place of the one before it.
"""

from __future__ import annotations

import msgspec

from detectors.verdict import Action, Kind, Verdict
from model.features import Float32
from model.prior import corrected

LEAST = 0.001  # share of positive outcomes, and of negative ones, that scores are corrected to: none at all has no odds

Shares = tuple[float, float]  # of positive outcomes: before, now


class Correction(msgspec.Struct, frozen=True):
    """From the moment ``at`` (ms) on ``shares`` were in force, one pair after another; none: it was withdrawn."""

    at: int
    verdict: str
    revision: int
    shares: tuple[Shares, ...]


class Corrections:
    """The correction of one model. Verdicts on a slice change nothing: a model has one correction, of all its scores."""

    def __init__(self) -> None:
        self._episode = ""
        self._before: float | None = None  # the share in the reference of the episode
        self._base: tuple[Shares, ...] = ()  # in force for what that reference is made of
        self.shares: tuple[Shares, ...] = ()

    def __call__(self, score: Float32) -> Float32:
        """``score`` [n], corrected."""
        for before, now in self.shares:
            score = corrected(score, before, now)
        return score

    def heed(self, verdict: Verdict, at: int) -> Correction | None:
        """Do what ``verdict`` says of a correction; the change that this makes, if any."""
        if verdict.slice:
            return None
        if verdict.id != self._episode:
            self._episode = verdict.id
            # An episode that is overtaken, or ends as a false alarm, leaves the reference as it was.
            if verdict.prior_before != self._before:
                self._before, self._base = verdict.prior_before, self.shares
        wanted = self._wanted(verdict)
        if wanted == self.shares:
            return None
        self.shares = wanted
        return Correction(at, verdict.id, verdict.revision, wanted)

    def _wanted(self, verdict: Verdict) -> tuple[Shares, ...]:
        prior = verdict.prior_counted or verdict.prior_fitted  # before there are labels: [drift] label_free
        if verdict.response.action is Action.CORRECT_PRIOR and prior is not None:
            return (*self._base, (_inside(verdict.prior_before), _inside(prior.value)))
        if verdict.response.action is Action.WAIT and Kind.LABEL in verdict.kinds:
            return self.shares
        return self._base


def _inside(share: float) -> float:
    return min(max(share, LEAST), 1 - LEAST)
