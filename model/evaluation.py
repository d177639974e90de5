"""Evaluation: how good scores are, once the labels are known. Pure functions on arrays, without TensorFlow.

Called by :mod:`model.training`, on the validation rows, and by whoever compares two models on the same examples.
"""

from __future__ import annotations

import numpy as np

from model.features import Float32

LEAST = 1e-7  # probability given to what happened, as far as the log-loss goes: one row costs at most 16


def log_loss(label: Float32, score: Float32, weight: Float32 | None = None) -> float:
    """The weighted mean of -log of the probability that ``score`` gave to what happened; lower is better.

    ``label`` [n] is 0 or 1, ``score`` [n] the probability of 1, ``weight`` [n] how much each row counts: None for
    equally, else finite, from 0 and not 0 throughout. A score that is not a number makes the loss none, too.

    >>> round(log_loss(np.array([1, 0], np.float32), np.array([0.8, 0.5], np.float32)), 3)
    0.458
    """
    p = np.clip(np.where(label == 1, score, 1 - score).astype(np.float64), LEAST, 1)
    return float(np.average(-np.log(p), weights=weight))


def auc(label: Float32, score: Float32, weight: Float32 | None = None) -> float:
    """The weighted share of pairs of a positive and a negative that ``score`` orders rightly; a tie counts half.

    Arguments as for :func:`log_loss`. 1 is perfect, 0.5 is chance; NaN when there is no pair, one label being absent.
    That is the area under the ROC curve (Hanley and McNeil 1982).

    >>> auc(np.array([1, 0, 0], np.float32), np.array([0.5, 0.5, 0.1], np.float32))
    0.75
    """
    counts = np.ones(len(label)) if weight is None else weight.astype(np.float64)
    _, rank = np.unique(score, return_inverse=True)
    positive = np.bincount(rank, counts * label)  # [distinct scores]
    negative = np.bincount(rank, counts * (1 - label))
    below = np.cumsum(negative) - negative / 2
    pairs = positive.sum() * negative.sum()
    return float((positive * below).sum() / pairs) if pairs else float("nan")
