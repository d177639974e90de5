"""Corrections: the prior correction that a model's verdicts call for. Pure: a model's verdicts in, a value out.

Called by :mod:`retrain.controller`. What is in force follows from the verdicts alone, so a trainer that starts anew
comes to the same. It is the rule of the backtest (:mod:`detectors.backtest_correction`), in absolute terms: a bundle's
scores are calibrated to the base rate of its own reference, so every correction starts from that, whatever an episode
compared with.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from deploy.release import Correction
from retrain.verdicts import Action, Kind, Verdict

LEAST = 0.001  # share of positive outcomes, and of negative ones, that scores are corrected to: none at all has no odds


def wanted(verdicts: Iterable[Verdict], base: float, barred: Container[str] = ()) -> Correction | None:
    """The correction that holds after ``verdicts`` of one model, in their order; None: its scores as they are.

    ``base`` is the share of positive outcomes in the bundle's reference. A correction that a verdict in ``barred`` calls
    for is passed over: it did harm, or a person withdrew it. Verdicts on a slice change nothing, since a model has one correction.

    An episode that waits for labels leaves what is in force; another word than "correct" goes back to what was in force
    when the reference that it compares with was made: that may be of a time that is corrected for already.
    """
    now: Correction | None = None
    made: Correction | None = None  # in force for what the episode's reference is made of
    episode, before = "", None
    for verdict in verdicts:
        if verdict.slice:
            continue
        if verdict.id != episode:
            episode = verdict.id
            # An episode that is overtaken, or ends as a false alarm, leaves the reference as it was.
            if verdict.prior_before != before:
                before, made = verdict.prior_before, now
        action = verdict.response.action
        if action is Action.CORRECT_PRIOR:
            now = made if verdict.id in barred else _correction(verdict, base)
        elif action is not Action.WAIT or Kind.LABEL not in verdict.kinds:
            now = made
    return now


def _correction(verdict: Verdict, base: float) -> Correction | None:
    prior = verdict.prior_counted or verdict.prior_fitted
    if prior is None or prior.low <= base <= prior.high:  # nothing to correct, as far as can be told
        return None
    return Correction(
        before=_inside(base), now=_inside(prior.value), low=prior.low, high=prior.high, verdict=verdict.id
    )


def _inside(share: float) -> float:
    return min(max(share, LEAST), 1 - LEAST)


def differs(wanted: Correction | None, in_force: Correction | None) -> bool:
    """Whether ``wanted`` is another correction than the one ``in_force``; who called for the same one does not matter."""
    return _shares(wanted) != _shares(in_force)


def _shares(correction: Correction | None) -> tuple[float, float] | None:
    return None if correction is None else (correction.before, correction.now)
