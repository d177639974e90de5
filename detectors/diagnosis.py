"""The diagnosis: which kinds of drift a window allows for, and what changed in it by how much. Pure, and one call.

:mod:`detectors.panel` asks twice: of the first rows after an alarm, whose labels are not known, and of the first rows
with labels. Without labels only P(X) and the fit of a label shift can be tested, so a covariate shift is told by what
remains, and a concept drift that leaves P(X) alone cannot be told at all (no method can: nothing else was seen).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from detectors.encoding import Encoding
from detectors.invariance import (
    Fit,
    label_fit,
    overlap,
    p_features,
    p_features_by_label,
    p_label,
    p_label_given_features,
    smallest_shift,
)
from detectors.rows import Float64, Rows, Schema
from detectors.two_sample import bonferroni, distances, homogeneity_p, kolmogorov_p, total_variation
from detectors.verdict import Effect, Estimate, Invariances, Kind, SliceEffect

# Rows of the reference that the tests take: half as many again as the window has, and enough for their covariances. More
# take time and tell little.
MORE, LEAST_ROWS = 1.5, 1500
EFFECTS = 12  # columns that are told
SLICES = 12  # values of slices that are told
SINGLE = (Kind.COVARIATE, Kind.LABEL, Kind.CONCEPT)
HARMFUL = 3.0  # standard errors by which the mean residual must have moved


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What two samples allow for. ``kinds`` are those not refuted, most plausible first.

    ``harm`` is how far the mean residual has moved, in standard errors; None without labels.
    """

    labelled: bool
    kinds: tuple[Kind, ...]
    invariances: Invariances
    effects: tuple[Effect, ...]
    slices: tuple[SliceEffect, ...]
    prior_before: float
    prior_fitted: Estimate | None
    prior_counted: Estimate | None
    overlap: float
    smallest_shift: float
    smallest_prior: float | None
    harm: float | None

    @property
    def changed(self) -> bool:
        """Whether any change is confirmed: without one, nothing is refuted."""
        return len(self.kinds) < len(SINGLE)


def diagnose(
    reference: Rows, window: Rows, schema: Schema, alpha: float, slices: Sequence[str] = ()
) -> Diagnosis:
    """Compare ``window`` with ``reference``, whose rows have labels; with the window's labels if all are known."""
    labelled = not bool(np.isnan(window.label).any())
    fitted = _spread(reference, max(int(MORE * len(window)), LEAST_ROWS))
    encode = Encoding(fitted)
    before, now = encode(fitted), encode(window)
    concept = p_features(before, now)
    fit = label_fit(before, now)
    covariate = label = None
    if labelled:
        covariate, shared = p_label_given_features(before, now)
        label = p_features_by_label(before, now)
    else:
        shared = overlap(before, now)
    invariances = Invariances(covariate, label, concept, None if fit is None else fit.p)
    base_rate = float(reference.label.mean())
    residual, residual_before = window.label - window.score, reference.label - reference.score
    error = np.sqrt(residual_before.var() / len(reference) + residual.var() / len(window))
    return Diagnosis(
        labelled=labelled,
        kinds=_with_labels(invariances, alpha)
        if labelled
        else _without_labels(invariances, fit, base_rate, alpha),
        invariances=invariances,
        effects=_effects(fitted, window, schema),
        slices=_slices(reference, window, schema, slices),
        prior_before=base_rate,
        prior_fitted=None if fit is None else _interval(fit.prior, fit.error),
        prior_counted=_wilson(window.label) if labelled else None,
        overlap=shared,
        smallest_shift=smallest_shift(len(fitted), len(window), max(1, before.columns.shape[1])),
        smallest_prior=(
            smallest_shift(len(reference), len(window), 1) * float(np.sqrt(base_rate * (1 - base_rate)))
            if labelled
            else None
        ),
        harm=float((residual.mean() - residual_before.mean()) / max(error, 1e-12)) if labelled else None,
    )


def p_same(reference: Rows, window: Rows) -> float:
    """That both come from one law, of which labels are a part if both have them."""
    encode = Encoding(reference)
    before, now = encode(reference), encode(window)
    found = [p_features(before, now)]
    if not np.isnan(reference.label).any() and not np.isnan(window.label).any():
        found += [p_label(before, now), p_label_given_features(before, now)[0]]
    return bonferroni(found)


def _with_labels(found: Invariances, alpha: float) -> tuple[Kind, ...]:
    p = dict(zip(SINGLE, (found.covariate, found.label, found.concept), strict=True))
    # What could not be tested is not refuted.
    known = {kind: 1.0 if value is None else value for kind, value in p.items()}
    return tuple(sorted((kind for kind in SINGLE if known[kind] > alpha), key=lambda kind: -known[kind]))


def _without_labels(found: Invariances, fit: Fit | None, prior: float, alpha: float) -> tuple[Kind, ...]:
    assert found.concept is not None
    if found.concept > alpha:
        return (Kind.CONCEPT, Kind.COVARIATE, Kind.LABEL)
    if fit is None or fit.p <= alpha:
        return (Kind.COVARIATE,)
    moved = abs(fit.prior - prior) > 1.96 * fit.error
    return (Kind.LABEL, Kind.COVARIATE) if moved else (Kind.COVARIATE, Kind.LABEL)


def _effects(reference: Rows, window: Rows, schema: Schema) -> tuple[Effect, ...]:
    columns = [*schema.numeric, "score"]
    before = np.concatenate([reference.numeric, reference.score[:, None]], axis=1)
    now = np.concatenate([window.numeric, window.score[:, None]], axis=1)
    looks = len(columns) + len(schema.categorical)
    distance = distances(before, now)
    n, m = ((~np.isnan(each)).sum(axis=0) for each in (before, now))  # known values
    p = np.minimum(1.0, kolmogorov_p(distance, n, m) * looks)
    found = [
        Effect(
            column=column,
            shift=_shift(before[:, j], now[:, j]),
            distance=float(distance[j]),
            p=float(p[j]),
            missing=float(np.isnan(now[:, j]).mean()),
            missing_before=float(np.isnan(before[:, j]).mean()),
        )
        for j, column in enumerate(columns)
    ]
    for j, column in enumerate(schema.categorical):
        old, new = reference.categorical[:, j], window.categorical[:, j]
        found.append(
            Effect(
                column=column,
                shift=0.0,
                distance=total_variation(old, new),
                p=min(1.0, looks * homogeneity_p(old, new)),
                missing=_absent(new),
                missing_before=_absent(old),
            )
        )
    found.sort(key=lambda each: -max(each.distance, abs(each.missing - each.missing_before)))
    return tuple(found[:EFFECTS])


def _shift(before: Float64, now: Float64) -> float:
    a, b = before[~np.isnan(before)], now[~np.isnan(now)]
    if not len(a) or not len(b):
        return 0.0
    sd = float(a.std())
    return float((b.mean() - a.mean()) / sd) if sd > 0 else 0.0


def _absent(values: np.ndarray[tuple[int], np.dtype[np.object_]]) -> float:
    return float(np.mean([value is None for value in values.tolist()]))


def _slices(reference: Rows, window: Rows, schema: Schema, slices: Sequence[str]) -> tuple[SliceEffect, ...]:
    found = []
    for name in slices:
        old = reference.categorical[:, schema.categorical.index(name)].tolist()
        new = window.categorical[:, schema.categorical.index(name)]
        for value in {each for each in (*old, *new.tolist()) if each is not None}:
            inside = new == value
            rows, residual = int(inside.sum()), (window.label - window.score)[inside]
            known = residual[~np.isnan(residual)]
            found.append(
                SliceEffect(
                    slice=name,
                    value=value,
                    share_before=old.count(value) / len(old),
                    share=rows / len(window),
                    residual=float(known.mean()) if len(known) else None,
                    rows=rows,
                )
            )
    found.sort(key=lambda each: (-abs(each.share - each.share_before), each.slice, each.value))
    return tuple(found[:SLICES])


def _spread(rows: Rows, most: int) -> Rows:
    """``most`` of ``rows``, evenly over them."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _interval(value: float, error: float) -> Estimate:
    return Estimate(value, max(0.0, value - 1.96 * error), min(1.0, value + 1.96 * error))


def _wilson(label: Float64) -> Estimate:
    """A proportion with Wilson's (1927) interval, which never leaves 0 to 1."""
    n, share, z = len(label), float(label.mean()), 1.96
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(share, max(0.0, float(centre - half)), min(1.0, float(centre + half)))
