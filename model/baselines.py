"""Baselines: what a network has to beat, trained beside it on the same rows. The only module that knows scikit-learn.

Called by :mod:`model.training`, which reports them with every model. All are fitted to rows by their weight, and score
probabilities, as the network does.

==============  ==================================================================================================
``base_rate``   the share of positive examples, for everyone
``heuristic``   a rule of thumb: the rate within the bin of the one feature that predicts best by itself
``logistic``    logistic regression on the network's own inputs: scaled numbers, what is missing, a column a category
``boosting``    gradient boosted trees on the raw numbers and categories; the validation part says how many
==============  ==================================================================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

# Read when scikit-learn first uses threads: those that wait for the slowest sleep rather than spin, which on a machine
# with other work made boosting up to twenty times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from model.evaluation import fitted_rate, log_loss, log_odds_shift
from model.examples import Examples
from model.features import FeatureSpec, Float32
from model.normalisation import Normalisation
from model.split import Parts

Scorer = Callable[[Examples], Float32]  # examples to the probability [n] of a positive label
Codes = Callable[[Examples], NDArray[np.int64]]  # examples to the bin [n] of each

NAMES = ("base_rate", "heuristic", "logistic", "boosting")
BINS = 20  # of a number in the heuristic, with about equally many rows
PRIOR_ROWS = 20.0  # at the base rate, that each bin starts with, so that few rows are not believed
TREES = 300  # at most
LEAST_LEAF = 50  # rows; 20, the library's default, was worse on OULAD
CATEGORIES = 254  # of a column that trees tell apart, the most frequent; the rest count as one


def fit(parts: Parts, spec: FeatureSpec, seed: int, *, live: bool = False) -> dict[str, Scorer]:
    """The baselines by name, fitted to ``parts.fitting``, or, as a ``live`` model is, to ``parts.whole``.

    Only the number of trees comes from the validation part, as the number of epochs does for the network.
    """
    rows = parts.whole if live else parts.fitting
    trees = best_trees(parts, spec, seed)
    return {
        "base_rate": base_rate(rows),
        "heuristic": heuristic(rows),
        "logistic": logistic(rows),
        "boosting": boosting(rows, spec, seed, trees),
    }


def base_rate(fitting: Examples) -> Scorer:
    """Score everyone with the share of positive examples among those that count."""
    rate = fitted_rate(fitting.label, fitting.sample_weight)
    return lambda examples: np.full(len(examples), rate, np.float32)


def heuristic(fitting: Examples) -> Scorer:
    """Score by bins of the one feature whose bins have the least log-loss on the rows they were made from."""
    weight, level = fitting.sample_weight.astype(np.float64), _levelled(fitting)

    def fitted(codes: Codes) -> tuple[float, Scorer]:
        bins = codes(fitting)
        size = int(bins.max()) + 1
        mass = np.bincount(bins, weight, size) + PRIOR_ROWS
        happened = np.bincount(bins, weight * fitting.label, size) + PRIOR_ROWS * fitting.base_rate
        rates = level(np.append(happened / mass, fitting.base_rate))  # the last one: never seen
        score: Scorer = lambda examples: rates[np.minimum(codes(examples), size)]  # noqa: E731
        return log_loss(fitting.label, score(fitting), fitting.sample_weight), score

    return min(map(fitted, _binnings(fitting)), key=lambda found: found[0])[1]


def logistic(fitting: Examples) -> Scorer:
    """Logistic regression with scikit-learn's default penalty, which hardly matters with many rows."""
    scaling = Normalisation.of(fitting.numeric)

    def columns(examples: Examples) -> Float32:
        parts = scaling(examples.numeric), np.isnan(examples.numeric), examples.categorical
        return np.concatenate(parts, axis=1, dtype=np.float32)  # [n, 2F + C]

    first, end = 2 * fitting.numeric.shape[1], columns(fitting[:1]).shape[1]
    parts = [
        ("numbers", "passthrough", list(range(first))),
        ("categories", OneHotEncoder(handle_unknown="ignore"), list(range(first, end))),
    ]
    model = make_pipeline(ColumnTransformer(parts), LogisticRegression(max_iter=1000))
    model.fit(columns(fitting), fitting.label, logisticregression__sample_weight=fitting.sample_weight)
    level = _levelled(fitting)
    return lambda examples: level(model.predict_proba(columns(examples))[:, 1])


def boosting(fitting: Examples, spec: FeatureSpec, seed: int, trees: int) -> Scorer:
    """So many gradient boosted ``trees`` (Ke et al. 2017), which take missing numbers and categories as they are."""
    columns = _tree_columns(fitting)
    model = _trees(spec, seed, trees)
    model.fit(columns(fitting), fitting.label, sample_weight=_uneven(fitting.sample_weight))
    level = _levelled(fitting)
    return lambda examples: level(model.predict_proba(columns(examples))[:, 1])


def best_trees(parts: Parts, spec: FeatureSpec, seed: int) -> int:
    """How many trees, fitted to ``parts.fitting``, have the least log-loss on ``parts.validation``."""
    fitting, validation = parts.fitting, parts.validation
    columns = _tree_columns(fitting)
    model = _trees(spec, seed, TREES)
    model.fit(columns(fitting), fitting.label, sample_weight=_uneven(fitting.sample_weight))
    level = _levelled(fitting)
    stages = (level(stage[:, 1]) for stage in model.staged_predict_proba(columns(validation)))
    losses = [log_loss(validation.label, score) for score in stages]
    return int(np.argmin(losses)) + 1


def _trees(spec: FeatureSpec, seed: int, trees: int) -> HistGradientBoostingClassifier:
    first = len(spec.numeric)
    return HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=trees,
        min_samples_leaf=LEAST_LEAF,
        categorical_features=list(range(first, first + len(spec.categorical))),
        early_stopping=False,  # its own would draw validation rows by chance rather than by time
        random_state=seed,
    )


def _uneven(weight: Float32) -> Float32 | None:
    """``weight`` [n], or None where all are equal: with weights, finding the bins takes nine tenths of a fit."""
    return None if (weight == weight[0]).all() else weight


def _tree_columns(fitting: Examples) -> Callable[[Examples], Float32]:
    """Numbers as they are beside categories as 1 … 254, the frequent ones of ``fitting``; 0 is any other one.

    A number that fewer than :data:`LEAST_LEAF` rows have can split none off, and is 0: scikit-learn's bins need a value.
    """
    kept = []
    rare = (~np.isnan(fitting.numeric)).sum(axis=0) < LEAST_LEAF  # [F]
    for column in fitting.categorical.T:
        ids, counts = np.unique(column, return_counts=True)
        kept.append(np.sort(ids[np.argsort(-counts, kind="stable")][:CATEGORIES]))

    def columns(examples: Examples) -> Float32:
        codes = [
            np.where(np.isin(column, ids), np.searchsorted(ids, column) + 1, 0)
            for ids, column in zip(kept, examples.categorical.T, strict=True)
        ]
        return np.column_stack([np.where(rare, 0, examples.numeric), *codes]).astype(np.float32)

    return columns


def _binnings(fitting: Examples) -> Iterator[Codes]:
    """Every way to put examples into bins by one feature."""
    for j, column in enumerate(fitting.numeric.T):
        present = column[~np.isnan(column)]
        edges = (
            np.unique(np.quantile(present, np.linspace(0, 1, BINS + 1)[1:-1])) if len(present) else present
        )
        # NaN sorts behind every edge, and so has a bin of its own, one further than that of the largest values
        yield lambda examples, j=j, edges=edges: np.where(  # type: ignore[misc]
            np.isnan(examples.numeric[:, j]),
            len(edges) + 1,
            np.searchsorted(edges, examples.numeric[:, j], "right"),
        )
    for j in range(fitting.categorical.shape[1]):
        yield lambda examples, j=j: examples.categorical[:, j].astype(np.int64)  # type: ignore[misc]


def _levelled(fitting: Examples) -> Callable[[NDArray[np.float64]], Float32]:
    """What makes probabilities [n] of those that a model learnt from the rows ``fitting`` by their weight."""
    factor = np.exp(log_odds_shift(fitting.label, fitting.sample_weight))

    def levelled(learnt: NDArray[np.float64]) -> Float32:
        score: Float32 = (learnt / (learnt + factor * (1 - learnt))).astype(np.float32)
        return score

    return levelled
