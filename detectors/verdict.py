"""The verdict: what an alarm, its diagnosis and its response are, as one record of the ``drift`` topic.

One *episode* of drift gives one verdict or several, each with what is known by then; the last ``revision`` of an ``id``
holds. ``detectors/panel.py`` makes them, ``retrain`` acts on them, ``docs/drift.md`` documents them.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """What changed."""

    COVARIATE = "covariate"  # P(X), and P(Y|X) not
    LABEL = "label"  # P(Y), and P(X|Y) not
    CONCEPT = "concept"  # P(Y|X), and P(X) not
    MIXED = "mixed"  # more than one of these: every single one is refuted
    UNDETERMINED = (
        "undetermined"  # several are not refuted: labels are missing, or the drift is too small to tell
    )
    FAULT = "data-fault"  # not the world but the data: see ``faults``


class Action(StrEnum):
    """What the drift calls for."""

    WAIT = "wait"  # for labels
    CORRECT_PRIOR = "correct-prior"  # of the live model, to the prior that the verdict estimates
    KEEP = "keep"  # the model, and compare with the new data from now on
    RETRAIN = "retrain"  # on data since the change
    BLOCK = "block"  # retraining, and page somebody


class Response(msgspec.Struct, frozen=True):
    """The action and why; ``since`` is the first moment, ms, of the data that it concerns."""

    action: Action
    reason: str
    since: int


class Estimate(msgspec.Struct, frozen=True):
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Channel(msgspec.Struct, frozen=True):
    """A watched channel: ``share`` of the alarm's evidence, and its own e-value's decimal logarithm."""

    name: str  # such as "location of clicks_3d up"
    column: str  # the feature, "score" or "label"
    share: float
    log10_e: float


class Effect(msgspec.Struct, frozen=True):
    """How one column changed between reference and window.

    ``shift`` is the difference of means in reference standard deviations (of a category: 0), ``distance`` the
    Kolmogorov-Smirnov distance (of a category: the total variation), ``p`` that of Kolmogorov-Smirnov (of a category:
    of chi-squared), over all columns. Missing values are left out, but of a category are a value.
    """

    column: str
    shift: float
    distance: float
    p: float
    missing: float  # share of missing values in the window
    missing_before: float


class SliceEffect(msgspec.Struct, frozen=True):
    """How a value of a slice changed: its share of the decisions, and what scores and labels average in it."""

    slice: str
    value: str
    share_before: float
    share: float
    residual: float | None  # mean of label minus score in the window
    rows: int


class Fault(msgspec.Struct, frozen=True):
    """A named check of the data that failed: :mod:`detectors.faults`."""

    check: str
    column: str
    detail: str


class Testimony(msgspec.Struct, frozen=True):
    """What a detector of alibi-detect or river says: ``drift`` is None if it could not be asked, ``note`` why.

    ``p`` where it is a test, over all its columns; ``statistic`` and ``threshold`` where it is not.
    """

    witness: str
    on: str  # "features", "score", "label", "loss"
    drift: bool | None
    p: float | None = None
    statistic: float | None = None
    threshold: float | None = None
    columns: tuple[str, ...] = ()  # that it finds changed
    note: str = ""


class Window(msgspec.Struct, frozen=True):
    """Rows that were compared with the reference: ms of the first and the last, how many, and how many with a label."""

    begin: int
    end: int
    rows: int
    labels: int


class Invariances(msgspec.Struct, frozen=True):
    """p-values of what each kind of drift leaves alone; None where it could not be tested.

    Under covariate shift P(Y|X) stays, under label shift P(X|Y), under concept drift P(X). ``label_fit`` needs no
    labels: whether the window is a mixture of the reference's two classes.
    """

    covariate: float | None
    label: float | None
    concept: float | None
    label_fit: float | None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the ``drift`` topic; its key is the model version. Times are ms of event time."""

    id: str
    revision: int
    final: bool  # nothing more is to come of this episode
    usecase: str
    model: str
    slice: str  # "" for all decisions
    value: str
    alarmed: int  # when the alarm was raised
    changed: int  # when the change is estimated to have been
    monitored: int  # decisions monitored from the reference, or the episode before, to the alarm
    log10_e: float  # evidence when the alarm was raised
    log10_threshold: float
    channels: tuple[Channel, ...]  # those with the largest share
    kind: Kind
    kinds: tuple[Kind, ...]  # not refuted; holds the true one with the confidence 1 - alpha
    response: Response
    invariances: Invariances
    window: Window
    effects: tuple[Effect, ...]  # the columns that changed most
    slices: tuple[SliceEffect, ...]
    prior_before: float
    prior_fitted: Estimate | None  # without labels, if the label shift holds
    prior_counted: Estimate | None  # of the labels in the window
    overlap: float | None  # 1: the window lies where the reference does; 0: elsewhere
    smallest_shift: float  # of a column's mean, in standard deviations, that would be seen 4 times in 5
    smallest_prior: float | None  # the same of the base rate
    faults: tuple[Fault, ...]
    witnesses: tuple[Testimony, ...]
