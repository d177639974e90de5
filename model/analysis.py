"""Feature analysis: what each feature is worth to a model, and what each kind of event is. Without TensorFlow.

Called by :mod:`model.training` for its report. Two questions: how much worse does *this* model score when a feature
tells it nothing (permutation importance), and how much worse is a model that never had it (ablation)? Features that say
the same share the first and hide each other in the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.evaluation import auc, log_loss
from model.examples import Examples
from model.features import FeatureSpec, Float32, feature_spec
from model.split import Parts
from model.usecase import Feature, Ratio, Tenure, TimeOfDay, UseCase

REPEATS = 5  # shuffles of each feature


class Importance(msgspec.Struct, frozen=True, kw_only=True):
    """What shuffling ``feature`` costs on average; ``spread`` is the standard deviation of ``log_loss`` over shuffles."""

    feature: str
    auc: float
    log_loss: float
    spread: float


class Ablation(msgspec.Struct, frozen=True, kw_only=True):
    """What a network that was trained without ``columns`` loses: more AUC and log-loss are worse."""

    group: str
    columns: tuple[str, ...]
    auc: float
    log_loss: float


def importance(
    score: Callable[[Examples], Float32],
    rows: Examples,
    spec: FeatureSpec,
    rng: np.random.Generator,
    repeats: int = REPEATS,
) -> list[Importance]:
    """What shuffling each feature among ``rows`` costs the model ``score``, the dearest first.

    Missing values are shuffled with the others. The fall of the AUC and the rise of the log-loss, averaged over
    ``repeats`` shuffles (Breiman 2001; Fisher, Rudin and Dominici 2019).
    """
    whole = _measures(rows, score(rows))
    found = []
    for name, kind, j in _columns(spec):
        costs = np.array(
            [_measures(rows, score(_shuffled(rows, kind, j, rng))) - whole for _ in range(repeats)]
        )
        mean, spread = costs.mean(axis=0), costs.std(axis=0)  # [AUC, log-loss]
        found.append(
            Importance(feature=name, auc=float(-mean[0]), log_loss=float(mean[1]), spread=float(spread[1]))
        )
    return sorted(found, key=lambda each: -each.log_loss)


def ablation(
    refitted: Callable[[Parts, FeatureSpec, int], Float32],
    case: UseCase,
    parts: Parts,
    score: Float32,
    seed: int,
) -> list[Ablation]:
    """What leaving out each of the :func:`groups` costs against ``score`` [n] of the whole, the dearest first.

    ``refitted`` trains with the parts, spec and seed given and scores the validation rows. The last row leaves out
    nothing but uses another seed: what is not clearly more than that is chance.
    """
    spec = feature_spec(case)
    whole = _measures(parts.validation, score)

    def cost(group: str, columns: Iterable[str], seed: int) -> Ablation:
        left, smaller = without(parts, spec, columns)
        worse = _measures(left.validation, refitted(left, smaller, seed)) - whole
        return Ablation(group=group, columns=tuple(columns), auc=float(-worse[0]), log_loss=float(worse[1]))

    every = {name for name, _, _ in _columns(spec)}
    found = [cost(group, columns, seed) for group, columns in groups(case).items() if set(columns) != every]
    return [*sorted(found, key=lambda each: -each.log_loss), cost("", (), seed + 1)]


def groups(case: UseCase) -> dict[str, tuple[str, ...]]:
    """The columns that go when a source of information does, by its name.

    ``event NAME`` is every feature that reads such events, alone or with others, so groups overlap; ``tenure`` and
    ``time of day`` are themselves; ``decision`` is what the decision event itself brings: item, value and context.
    """
    found: dict[str, list[str]] = {}
    for name, feature in case.features.items():
        columns = [f"{name}_sin", f"{name}_cos"] if isinstance(feature, TimeOfDay) else [name]
        for source in _sources(case, feature):
            found.setdefault(source, []).extend(columns)
    return {source: tuple(columns) for source, columns in found.items()}


def without(parts: Parts, spec: FeatureSpec, columns: Iterable[str]) -> tuple[Parts, FeatureSpec]:
    """``parts`` and ``spec`` without ``columns``."""
    gone = set(columns)
    numeric = [j for j, name in enumerate(spec.numeric) if name not in gone]
    categorical = [j for j, category in enumerate(spec.categorical) if category.name not in gone]
    smaller = FeatureSpec(
        tuple(spec.numeric[j] for j in numeric), tuple(spec.categorical[j] for j in categorical)
    )

    def cut(rows: Examples) -> Examples:
        return msgspec.structs.replace(
            rows,
            numeric=rows.numeric[:, numeric],
            categorical=rows.categorical[:, categorical],
            categories=rows.categories[:, categorical],
        )

    return Parts(cut(parts.fitting), cut(parts.validation), cut(parts.whole), parts.as_of), smaller


def _sources(case: UseCase, feature: Feature) -> tuple[str, ...]:
    if isinstance(feature, Ratio):
        both = (case.features[feature.numerator], case.features[feature.denominator])
        return tuple(dict.fromkeys(source for part in both for source in _sources(case, part)))
    if isinstance(feature, Tenure):
        return ("tenure",)
    if isinstance(feature, TimeOfDay):
        return ("time of day",)
    return tuple(f"event {name}" for name in getattr(feature, "events", ())) or ("decision",)


def _columns(spec: FeatureSpec) -> list[tuple[str, str, int]]:
    """Name, field of :class:`~model.examples.Examples` and position in it of each column."""
    numeric = [(name, "numeric", j) for j, name in enumerate(spec.numeric)]
    return numeric + [(category.name, "categorical", j) for j, category in enumerate(spec.categorical)]


def _shuffled(rows: Examples, kind: str, j: int, rng: np.random.Generator) -> Examples:
    values = getattr(rows, kind).copy()
    values[:, j] = rng.permutation(values[:, j])
    return msgspec.structs.replace(rows, **{kind: values})


def _measures(rows: Examples, score: Float32) -> NDArray[np.float64]:
    return np.array([auc(rows.label, score), log_loss(rows.label, score)])
