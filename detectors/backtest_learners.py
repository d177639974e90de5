"""Learners of a backtest: what makes a model of the parts of a log, and takes the time. The command line names one.

The network is not here, since it needs TensorFlow: the command line brings it along.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from detectors.backtest import Fitted, Learner, Scorer
from model import baselines
from model.features import FeatureSpec
from model.split import Parts


def timed(fit: Callable[[Parts], Scorer]) -> Learner:
    """``fit`` with the seconds that it took."""

    def learn(parts: Parts) -> Fitted:
        begin = time.perf_counter()
        score = fit(parts)
        return Fitted(score, time.perf_counter() - begin)

    return learn


def boosting(spec: FeatureSpec, seed: int) -> Learner:
    """Gradient boosted trees: so many as judged best by the validation part, then fitted to all rows."""

    def fit(parts: Parts) -> Scorer:
        trees = baselines.best_trees(parts, spec, seed)
        return baselines.boosting(parts.whole, spec, seed, trees)

    return timed(fit)
