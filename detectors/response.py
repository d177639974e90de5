"""The response: what a diagnosis calls for, with the reason. The cheapest sound one, ``docs/drift-statistics.md``.

A prior correction is free and works at once under label shift; under covariate shift it hurts, so labels must tell, or
the owner must have declared that a change of the scores alone is one of the base rate (``label_free``), and the fit hold.
A model is kept under a covariate shift that it has data for: refitting on a few rows is worse than doing nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from detectors.diagnosis import HARMFUL, Diagnosis
from detectors.verdict import Action, Estimate, Fault, Kind, Response

OVERLAP = 0.1  # effective share of the reference, below which the model has hardly seen such rows
# Of the log-odds, by which the nearer end of a fitted prior's interval must lie away from the prior before, for a
# correction without labels: below a tenth it gains less than p (1 - p) 0.1² / 2, .001 of log-loss at most.
WORTH = 0.1
LEAST = 0.001  # share of positive outcomes, and of negative ones: none at all has no odds


def kind_of(diagnosis: Diagnosis) -> Kind:
    """The kind that is told: the only one left, mixed if none is, undetermined if several are.

    A label shift is never told without labels: a covariate shift along the score looks just like it, and there the
    correction does harm.
    """
    kinds = diagnosis.kinds
    if not kinds:
        return Kind.MIXED
    return kinds[0] if len(kinds) == 1 else Kind.UNDETERMINED


def respond(diagnosis: Diagnosis, since: int, *, last: bool, label_free: bool = False) -> Response:
    """What ``diagnosis`` calls for; ``last`` if no more labels are awaited, ``since`` (ms) when the change came.

    ``label_free``: what looks like a label shift is taken for one before there are labels.
    """
    action, reason = _choose(diagnosis, last=last, label_free=label_free)
    return Response(action, reason, since)


def block(faults: Sequence[Fault], since: int) -> Response:
    """The response to data ``faults``."""
    named = ", ".join(
        dict.fromkeys(f"{fault.check} of {fault.column}" if fault.column else fault.check for fault in faults)
    )
    reason = (
        f"the data, not the world, has changed ({named}): a model trained on this would learn the fault; "
        "correct the producer, then watching goes on"
    )
    return Response(Action.BLOCK, reason, since)


def _choose(diagnosis: Diagnosis, *, last: bool, label_free: bool) -> tuple[Action, str]:
    kind = kind_of(diagnosis)
    if kind is Kind.LABEL:
        return _label(diagnosis)
    if kind is Kind.COVARIATE:
        return _covariate(diagnosis)
    if kind is Kind.CONCEPT:
        return Action.RETRAIN, "P(Y|X) changed while P(X) stays: what the model has learned no longer holds"
    if kind is Kind.MIXED:
        return Action.RETRAIN, "no single kind of drift explains it: P(Y|X), P(X|Y) and P(X) have all changed"
    return _undetermined(diagnosis) if last else _open(diagnosis, label_free=label_free)


def _label(diagnosis: Diagnosis) -> tuple[Action, str]:
    prior = diagnosis.prior_counted
    assert prior is not None
    return Action.CORRECT_PRIOR, (
        f"P(X|Y) stays and the base rate went from {diagnosis.prior_before:.3f} to {prior.value:.3f} "
        f"({prior.low:.3f} to {prior.high:.3f}): correcting the prior needs no training"
    )


def _open(diagnosis: Diagnosis, *, label_free: bool) -> tuple[Action, str]:
    """What to do while more labels are to come."""
    fitted, before = diagnosis.prior_fitted, diagnosis.prior_before
    if label_free and not diagnosis.labelled and fitted is not None:
        # Of few rows the scores show another base rate before all columns together show another P(X).
        shown = not diagnosis.changed and _moved(before, fitted) > WORTH
        if shown or diagnosis.kinds[0] is Kind.LABEL:
            return _fitted(before, fitted)
    return Action.WAIT, _awaited(diagnosis)


def _fitted(before: float, fitted: Estimate) -> tuple[Action, str]:
    """What to do of a label shift that fits and that the owner has declared to be likely, without labels."""
    told = f"{fitted.value:.3f} ({fitted.low:.3f} to {fitted.high:.3f})"
    if _moved(before, fitted) <= WORTH:
        return Action.WAIT, (
            f"a base rate of {told} instead of {before:.3f} would explain it; it may be too near to that to be worth "
            "correcting before labels tell"
        )
    return Action.CORRECT_PRIOR, (
        f"a base rate of {told} instead of {before:.3f} explains it, fitted without labels; [drift] label_free of the "
        "use case says to correct at once. A covariate shift along the score would look the same: labels will confirm "
        "or withdraw this"
    )


def _moved(before: float, fitted: Estimate) -> float:
    """How far the interval of ``fitted`` stays away from ``before``, in log-odds; 0 if it does not."""
    if fitted.low <= before <= fitted.high:
        return 0.0
    nearer = fitted.low if before < fitted.low else fitted.high
    return abs(_log_odds(nearer) - _log_odds(before))


def _log_odds(share: float) -> float:
    share = min(max(share, LEAST), 1 - LEAST)
    return math.log(share / (1 - share))


def _undetermined(diagnosis: Diagnosis) -> tuple[Action, str]:
    if not diagnosis.changed:
        return Action.KEEP, (
            "no test confirms a change: the alarm may be a false one, or the shift smaller than can be seen with "
            f"these rows ({diagnosis.smallest_shift:.2f} standard deviations)"
        )
    if Kind.COVARIATE in diagnosis.kinds:
        return (
            Action.KEEP,
            "P(Y|X), which the model predicts, is not refuted; compare with the new data from now on",
        )
    return Action.RETRAIN, "P(Y|X) changed, and it cannot be told whether by the base rate alone"


def _covariate(diagnosis: Diagnosis) -> tuple[Action, str]:
    if diagnosis.overlap < OVERLAP and not diagnosis.labelled:
        return Action.WAIT, (
            f"the decisions lie where the model has hardly any data (overlap {diagnosis.overlap:.2f}): it calls for "
            "retraining once labels are known there"
        )
    if diagnosis.overlap < OVERLAP:
        return Action.RETRAIN, (
            f"the decisions lie where the model has hardly any data (overlap {diagnosis.overlap:.2f}), so whether "
            "P(Y|X) stays cannot be seen either"
        )
    if diagnosis.harm is not None and abs(diagnosis.harm) > HARMFUL:
        return Action.RETRAIN, (
            f"P(Y|X) is not refuted, but where the decisions lie now the model is off by {abs(diagnosis.harm):.1f} "
            "standard errors"
        )
    known = "P(Y|X) stays" if diagnosis.labelled else "P(X) changed and no mixture of the known classes fits"
    return (
        Action.KEEP,
        f"{known}, and the model has data there (overlap {diagnosis.overlap:.2f}); compare with the new data from now on",
    )


def _awaited(diagnosis: Diagnosis) -> str:
    if diagnosis.labelled:
        names = " and ".join(diagnosis.kinds)
        return f"{names} drift are both possible still; more labels will tell"
    if not diagnosis.changed:
        return "P(X) is not refuted, so this is a matter of labels; their windows have to close"
    fitted = diagnosis.prior_fitted
    if diagnosis.kinds[0] is Kind.LABEL and fitted is not None:
        return (
            f"a base rate of {fitted.value:.3f} ({fitted.low:.3f} to {fitted.high:.3f}) would explain it, and so would a covariate "
            "shift along the score, under which correcting the prior does harm; labels will tell"
        )
    return "P(X) changed; whether P(Y|X) stays, labels will tell"
