"""River's online learners on a log of examples: each decision is scored, and its label learned once it is known.

:mod:`tests.bench.loop_oulad` compares them with a model that is retrained. They get what the network gets: numbers scaled
as it scales them, fitted to what was known to begin with, what is missing, and a column a category. Before the first
decision that is judged they learn, in order, whatever label was known by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from river import compose, forest, linear_model, optim, preprocessing, tree

from model.examples import Examples
from model.features import Float32
from model.normalisation import Normalisation

SEED = 0
MODELS = 10  # of an ensemble
LEAST = 0.001  # share of positive outcomes, and of negative ones, that a score is kept away from 0 and 1


class Learner(Protocol):
    """A classifier of river's, as far as it is used here."""

    def learn_one(self, x: dict[Any, Any], y: bool) -> Any:
        """Learn that ``x`` came to ``y``."""

    def predict_proba_one(self, x: dict[Any, Any]) -> Any:
        """The probability of either outcome."""


# River's leveraging bagging and streaming random patches take ten times as long as these.
LEARNERS: dict[str, Callable[[], Learner]] = {
    "logistic regression": lambda: compose.Pipeline(
        preprocessing.StandardScaler(), linear_model.LogisticRegression(optim.Adam(0.001))
    ),
    "quicker logistic regression": lambda: compose.Pipeline(
        preprocessing.StandardScaler(), linear_model.LogisticRegression(optim.Adam(0.005))
    ),
    # Leaves that say their shares: the default's naive Bayes has AUC below .5 on columns that are alike.
    "Hoeffding adaptive tree": lambda: tree.HoeffdingAdaptiveTreeClassifier(
        grace_period=200, leaf_prediction="mc", seed=SEED
    ),
    "adaptive random forest": lambda: forest.ARFClassifier(n_models=MODELS, leaf_prediction="mc", seed=SEED),
}


class Learned(msgspec.Struct, frozen=True):
    """What came of one learner: its ``score`` of each later decision, and the seconds that all of it took."""

    score: Float32
    seconds: float


def live(make: Callable[[], Learner], examples: Examples, begin: int) -> Learned:
    """Score every decision of ``examples`` from ``begin`` (ms) on with a learner that learns each label when it is known."""
    rows, first = list(_columns(examples, begin)), int(np.searchsorted(examples.time, begin))
    order = np.argsort(examples.closes, kind="stable")
    closes, label = examples.closes[order], examples.label.astype(bool)
    learner, learned = make(), 0
    score = np.empty(len(examples) - first, np.float32)
    start = time.perf_counter()
    for at in range(first, len(examples)):
        known = int(np.searchsorted(closes, examples.time[at], "right"))
        for row in order[learned:known].tolist():
            learner.learn_one(rows[row], bool(label[row]))
        learned = known
        score[at - first] = learner.predict_proba_one(rows[at]).get(True, 0.5)
    return Learned(np.clip(score, LEAST, 1 - LEAST), time.perf_counter() - start)


def _columns(examples: Examples, begin: int) -> Iterator[dict[str, float]]:
    """Each example as river takes it."""
    known = examples.closes <= begin
    scaled = Normalisation.of(examples.numeric[known])(examples.numeric)
    missing = np.isnan(examples.numeric)
    parts: list[tuple[str, NDArray[np.float64]]] = []
    for column in range(scaled.shape[1]):
        parts.append((f"number {column}", scaled[:, column].astype(np.float64)))
        if missing[known, column].any():
            parts.append((f"missing {column}", missing[:, column].astype(np.float64)))
    for column in range(examples.categorical.shape[1]):
        values = examples.categorical[:, column]
        parts += [
            (f"category {column} {value}", (values == value).astype(np.float64))
            for value in np.unique(values)
        ]
    names = [name for name, _ in parts]
    for row in np.column_stack([values for _, values in parts]):
        yield dict(zip(names, row.tolist(), strict=True))
