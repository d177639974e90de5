"""A verdict in full sentences: what changed, since when, how sure that is, what it calls for. For ``eddyline drift ID``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from detectors.verdict import Estimate, Fault, Kind, SliceEffect, Testimony, Verdict

_CHANGED = {
    Kind.COVARIATE: "The decisions are others than before: P(X) changed. How outcomes follow from them, P(Y|X), did not.",
    Kind.LABEL: "The base rate changed. The decisions that end well, and those that do not, look as before: P(X|Y) stays.",
    Kind.CONCEPT: "Outcomes follow otherwise from decisions that look as before: P(Y|X) changed, P(X) did not.",
    Kind.MIXED: "More than one thing changed: no single kind of drift, covariate, label or concept, explains it.",
    Kind.FAULT: "Not the world has changed, but the data: they break rules that they kept before.",
}
_STAYS = {
    Kind.COVARIATE: ("covariate drift", "P(Y|X), how outcomes follow from decisions, would stay"),
    Kind.LABEL: ("label drift", "P(X|Y), how the decisions of either outcome look, would stay"),
    Kind.CONCEPT: ("concept drift", "P(X), how decisions look, would stay"),
}
_ACTIONS = {
    "wait": "Wait for labels",
    "correct-prior": "Correct the prior of the live model",
    "keep": "Keep the model",
    "retrain": "Retrain on data since the change",
    "block": "Block retraining, and correct the data",
}

Section = tuple[str, list[str]]


def when(ms: int) -> str:
    """A time as people read it, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def watched(verdict: Verdict) -> str:
    """What the verdict is about."""
    where = f"where {verdict.slice} is {verdict.value!r}" if verdict.slice else "in all its decisions"
    return f"model {verdict.model} of {verdict.usecase}, {where}"


def explained(verdict: Verdict) -> Iterator[Section]:
    """The sections of the explanation of ``verdict``: a heading and its sentences."""
    yield "What changed", list(_what(verdict))
    yield "Since when, and how sure", list(_sure(verdict))
    yield "What it calls for", list(_response(verdict))
    if verdict.faults:
        yield "What is wrong with the data", [_fault(fault) for fault in verdict.faults]
    if verdict.window.rows:
        yield "How the kind was told", list(_told(verdict))
        yield "Base rate", list(_prior(verdict))
        if verdict.slices:
            yield "Slices", [_slice(each) for each in verdict.slices]
        yield "What could not have been seen", list(_unseen(verdict))
    if verdict.witnesses:
        yield "Other detectors", [_witness(each) for each in verdict.witnesses]


def _what(verdict: Verdict) -> Iterator[str]:
    if verdict.kind is Kind.UNDETERMINED:
        kinds = " and ".join(_STAYS[kind][0] for kind in verdict.kinds)
        yield f"Something changed; its kind cannot be told yet: {kinds} are all possible still."
    else:
        yield _CHANGED[verdict.kind]
    if verdict.kind is Kind.LABEL and len(verdict.kinds) > 1:
        yield "Covariate drift is not excluded before there are labels, but the label shift fits what is seen."
    if verdict.final:
        yield f"This is the last word on this episode (revision {verdict.revision})."
    else:
        yield f"More is to come of this episode: this is revision {verdict.revision}."


def _sure(verdict: Verdict) -> Iterator[str]:
    yield (
        f"The alarm was raised at {when(verdict.alarmed)} UTC, after {verdict.monitored:,} monitored decisions; the change is "
        f"estimated to have come at {when(verdict.changed)}, {_long(verdict.alarmed - verdict.changed)} before."
    )
    yield (
        f"The evidence had reached 10^{verdict.log10_e:.1f}. The alarm is raised at 10^{verdict.log10_threshold:.1f}: "
        f"while nothing changes that takes {10**verdict.log10_threshold:,.0f} decisions in the mean, or more."
    )
    shares = [f"{each.name} ({each.share:.0%})" for each in verdict.channels[:3] if each.share >= 0.01]
    if shares:
        yield f"Most of the evidence came from: {', '.join(shares)}."


def _long(ms: int) -> str:
    hours = ms / 3_600_000
    return (
        f"{hours / 24:.0f} days"
        if hours >= 48
        else f"{hours:.0f} hours"
        if hours >= 2
        else f"{hours * 60:.0f} minutes"
    )


def _response(verdict: Verdict) -> Iterator[str]:
    response = verdict.response
    yield f"{_ACTIONS[response.action]}: {response.reason}."
    yield f"It concerns the data from {when(response.since)} on."


def _told(verdict: Verdict) -> Iterator[str]:
    window, found = verdict.window, verdict.invariances
    labels = f"{window.labels:,} of them with a label" if window.labels else "none of them with a label yet"
    yield (
        f"{window.rows:,} decisions of {when(window.begin)} to {when(window.end)} were compared with the reference, {labels}."
    )
    p_values = {Kind.COVARIATE: found.covariate, Kind.LABEL: found.label, Kind.CONCEPT: found.concept}
    for kind, p in p_values.items():
        name, stays = _STAYS[kind]
        if p is None:
            yield f"Under {name} {stays}: not tested, that takes labels."
            continue
        refuted = "not refuted" if kind in verdict.kinds else "refuted"
        # Of data that are at fault nothing is concluded.
        yield f"Under {name} {stays}: {_p(p)}{'' if verdict.kind is Kind.FAULT else f', {refuted}'}."
    if found.label_fit is not None:
        yield (
            "Without labels: that the window is a mixture of the reference's two classes in another proportion has "
            f"{_p(found.label_fit)}."
        )
    if verdict.overlap is not None:
        yield (
            f"The overlap of window and reference is {verdict.overlap:.2f}, where 1 is complete: "
            f"{_overlap(verdict.overlap)}."
        )


def _overlap(overlap: float) -> str:
    if overlap > 0.5:
        return "the model has seen decisions like these"
    return (
        "the model has seen few like these" if overlap > 0.1 else "the model has hardly seen any like these"
    )


def _prior(verdict: Verdict) -> Iterator[str]:
    yield f"In the reference {verdict.prior_before:.3f} of the decisions are positive."
    if verdict.prior_counted is not None:
        yield f"In the window it is {_estimate(verdict.prior_counted)}, counted."
    if verdict.prior_fitted is not None:
        yield f"Fitted without labels it is {_estimate(verdict.prior_fitted)}, which holds under label drift only."


def _slice(effect: SliceEffect) -> str:
    told = f"{effect.slice} = {effect.value!r}: {effect.share_before:.1%} of the decisions before, {effect.share:.1%} now"
    if effect.residual is None:
        return f"{told} ({effect.rows:,} rows)."
    way = "too low" if effect.residual > 0 else "too high"
    return (
        f"{told} ({effect.rows:,} rows); there the scores are {abs(effect.residual):.3f} {way} in the mean."
    )


def _unseen(verdict: Verdict) -> Iterator[str]:
    yield (
        f"With these rows a shift of a column's mean by less than {verdict.smallest_shift:.2f} standard deviations may "
        "have passed unseen: larger ones are seen 4 times in 5."
    )
    if verdict.smallest_prior is not None:
        yield f"So may have a change of the base rate by less than {verdict.smallest_prior:.3f}."


def _fault(fault: Fault) -> str:
    return f"{fault.check}{f' of {fault.column}' if fault.column else ''}: {fault.detail}."


def _witness(testimony: Testimony) -> str:
    name = f"{testimony.witness} on {testimony.on}"
    if testimony.drift is None:
        return f"{name}: could not be asked: {testimony.note}."
    told = f"{name}: {'drift' if testimony.drift else 'no drift'}"
    if testimony.p is not None:
        told += f", {_p(testimony.p)}"
    if testimony.statistic is not None:
        told += f", statistic {testimony.statistic:.3g}"
    if testimony.threshold is not None:
        told += f", threshold {testimony.threshold:.3g}"
    if testimony.columns:
        told += f"; in {', '.join(testimony.columns)}"
    return f"{told}{f' ({testimony.note})' if testimony.note else ''}."


def _p(p: float) -> str:
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"


def _estimate(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f} with 95 % confidence)"
