"""An episode: from an alarm to the last word on it. Here verdicts are put together; :mod:`detectors.panel` says when."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from detectors.channels import Name
from detectors.diagnosis import Diagnosis
from detectors.response import block, kind_of, respond
from detectors.rows import Float64, Rows
from detectors.verdict import (
    Action,
    Channel,
    Fault,
    Invariances,
    Kind,
    Response,
    Testimony,
    Verdict,
    Window,
)

CHANNELS = 8  # that a verdict tells


class Identity(msgspec.Struct, frozen=True):
    """What a panel watches: a model of a use case, in all decisions (``slice`` is "") or one value of a slice."""

    usecase: str
    model: str
    slice: str = ""
    value: str = ""

    def episode(self, offset: int) -> str:
        """The id of the episode whose alarm was raised by the sample at ``offset``."""
        where = [self.model, *([f"{self.slice}={self.value}"] if self.slice else []), str(offset)]
        return "/".join(where)


class Alarm(msgspec.Struct, frozen=True):
    """The moment at which the evidence reached the threshold; times in ms. ``labelled``: of the rows with labels."""

    offset: int
    time: int
    changed: int
    monitored: int
    evidence: float
    threshold: float
    labelled: bool


def channels(names: Sequence[Name], evidence: Float64, level: Float64) -> list[Channel]:
    """The channels with the most ``evidence`` [K]; ``level`` [K] are their own e-values. Shares are of all of them."""
    total = max(float(evidence.sum()), 1e-300)
    order = sorted(range(len(names)), key=lambda at: -evidence[at])[:CHANNELS]
    return [
        Channel(str(names[at]), names[at].column, float(evidence[at]) / total, _log10(float(level[at])))
        for at in order
    ]


def alarmed(identity: Identity, alarm: Alarm, told: Sequence[Channel], prior: float) -> Verdict:
    """The first verdict of an episode: nothing is known but the alarm."""
    return Verdict(
        id=identity.episode(alarm.offset),
        revision=0,
        final=False,
        usecase=identity.usecase,
        model=identity.model,
        slice=identity.slice,
        value=identity.value,
        alarmed=alarm.time,
        changed=alarm.changed,
        monitored=alarm.monitored,
        log10_e=_log10(alarm.evidence),
        log10_threshold=_log10(alarm.threshold),
        channels=tuple(told),
        kind=Kind.UNDETERMINED,
        kinds=(Kind.COVARIATE, Kind.LABEL, Kind.CONCEPT),
        response=Response(
            Action.WAIT, "the alarm is raised; what kind of drift it is takes more decisions", alarm.changed
        ),
        invariances=Invariances(None, None, None, None),
        window=Window(alarm.changed, alarm.time, 0, 0),
        effects=(),
        slices=(),
        prior_before=prior,
        prior_fitted=None,
        prior_counted=None,
        overlap=None,
        smallest_shift=0.0,
        smallest_prior=None,
        faults=(),
        witnesses=(),
    )


def diagnosed(
    verdict: Verdict,
    diagnosis: Diagnosis,
    window: Rows,
    witnesses: Sequence[Testimony],
    *,
    last: bool,
    label_free: bool = False,
) -> Verdict:
    """The next revision: what ``window`` shows. It is final with a single kind or none, or if it is the ``last``.

    ``label_free`` is that of the use case's ``[drift]``.
    """
    final = diagnosis.labelled and (last or len(diagnosis.kinds) < 2)
    return msgspec.structs.replace(
        verdict,
        revision=verdict.revision + 1,
        final=final,
        kind=kind_of(diagnosis),
        kinds=diagnosis.kinds,
        response=respond(diagnosis, verdict.changed, last=final, label_free=label_free),
        invariances=diagnosis.invariances,
        window=_window(window, labelled=diagnosis.labelled),
        effects=diagnosis.effects,
        slices=diagnosis.slices,
        prior_before=diagnosis.prior_before,
        prior_fitted=diagnosis.prior_fitted,
        prior_counted=diagnosis.prior_counted,
        overlap=diagnosis.overlap,
        smallest_shift=diagnosis.smallest_shift,
        smallest_prior=diagnosis.smallest_prior,
        faults=(),
        witnesses=tuple(witnesses),
    )


def faulty(verdict: Verdict, faults: Sequence[Fault], diagnosis: Diagnosis, window: Rows) -> Verdict:
    """The next revision: the data are at fault."""
    return msgspec.structs.replace(
        diagnosed(verdict, diagnosis, window, (), last=False),
        final=False,
        kind=Kind.FAULT,
        kinds=(),
        response=block(faults, verdict.changed),
        faults=tuple(faults),
    )


def recovered(verdict: Verdict, window: Rows) -> Verdict:
    """The last revision of a data fault: it is not found any more."""
    return _closed(
        verdict,
        "the fault is not found in the latest decisions any more; watching goes on with the reference of before",
        window=_window(window, labelled=False),
    )


def accepted(verdict: Verdict, window: Rows) -> Verdict:
    """The last revision of a data fault that has lasted: nobody corrects it, so it is how things are now."""
    return _closed(
        verdict,
        "the fault has lasted, and is taken for how things are now: the data are compared with these from now on. The "
        "model does not know them; retrain it by hand if they are right",
        window=_window(window, labelled=False),
    )


def overtaken(verdict: Verdict) -> Verdict:
    """The last revision of an episode that a new alarm ends before its kind was told."""
    return _closed(
        verdict,
        "another alarm came before the kind was told, which goes on under that one's id; nothing is to be done for this",
        kind=Kind.UNDETERMINED,
        kinds=(Kind.COVARIATE, Kind.LABEL, Kind.CONCEPT),
    )


def retired(verdict: Verdict) -> Verdict:
    """The last revision of an episode whose model is not watched any more: what it asked for, or blocked, is over."""
    return _closed(
        verdict,
        "the model is neither live nor beside the live one any more, and is not watched; nothing is to be done for this",
        kind=Kind.UNDETERMINED,
        kinds=(Kind.COVARIATE, Kind.LABEL, Kind.CONCEPT),
    )


def _closed(verdict: Verdict, reason: str, **changed: Window | Kind | tuple[Kind, ...]) -> Verdict:
    """The last revision: the model is kept, for ``reason``."""
    return msgspec.structs.replace(
        verdict,
        revision=verdict.revision + 1,
        final=True,
        response=msgspec.structs.replace(verdict.response, action=Action.KEEP, reason=reason),
        **changed,
    )


def _window(rows: Rows, *, labelled: bool) -> Window:
    return Window(int(rows.time.min()), int(rows.time.max()), len(rows), len(rows) if labelled else 0)


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else -300.0
