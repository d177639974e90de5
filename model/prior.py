"""Label shift: the outcome has become more or less frequent, and nothing else changed. Pure functions on scores.

Then every score is wrong by the same factor of its odds, which needs neither labels nor another fit to be put right:
:func:`fitted` tells the new share of positive outcomes from scores alone, :func:`corrected` applies it. For whoever acts
on a verdict of label drift, and only then: after drift of another kind the correction does harm or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from model.evaluation import LEVEL, Float64, Measure
from model.features import Float32

Floats = TypeVar("Floats", np.float32, np.float64)


def corrected(score: NDArray[Floats], before: float, now: float) -> NDArray[Floats]:
    """Scores [n] as they would be had the share of positive outcomes been ``now`` rather than ``before`` in training.

    ``score`` [n] are probabilities, calibrated where the share was ``before``; their odds are multiplied by those of
    ``now`` over those of ``before`` (Elkan 2001, theorem 2; Saerens, Latinne and Decaestecker 2002). A higher ``now``
    raises every score, except that 0 stays 0 and 1 stays 1; the order of scores never turns round, so that AUC stays but
    for ties by rounding; equal shares change no bit. A score that is not a number stays so.

    Raises :class:`ValueError` unless both shares lie between 0 and 1, ends excluded.

    >>> corrected(np.array([0, 0.5, 0.8, 1]), before=0.5, now=0.2).round(3).tolist()
    [0.0, 0.2, 0.5, 1.0]
    """
    _check_shares(before=before, now=now)
    if before == now:
        return score.copy()
    wide = score.astype(np.float64)
    with np.errstate(divide="ignore", over="ignore"):  # the odds against a score of 0 are infinite
        against = (1 - wide) * ((1 - now) * before) / (wide * (now * (1 - before)))
    return (1 / (1 + against)).astype(score.dtype)


def fitted(score: Float32 | Float64, before: float) -> Measure:
    """The share of positive outcomes among decisions with these scores [n], labels unknown, and its 95 % interval.

    ``score`` are probabilities, calibrated where the share was ``before``, of decisions that differ from those in the
    share alone. The estimate has the largest likelihood (maximum likelihood label shift: Saerens et al. 2002, whose EM
    ends where this does; Alexandari, Kundaje and Shrikumar 2020). The likelihood is concave, so there is one such share,
    and the interval is the shares that it does not speak against (likelihood ratio test; Wilks 1938). It takes rows for
    independent and the scores for calibrated: where they are not, it is too narrow.

    Scores of 0 and 1 count as labels. Scores that say nothing, or none at all, give ``before`` and all from 0 to 1.

    Raises :class:`ValueError` for scores that are no probabilities, or ``before`` not between 0 and 1.

    >>> fitted(np.array([0.0, 0.0, 0.0, 1.0]), before=0.5).value
    0.25
    """
    _check_shares(before=before)
    wide = score.astype(np.float64)
    if not ((wide >= 0) & (wide <= 1)).all():
        worst = wide[~((wide >= 0) & (wide <= 1))][0]
        raise ValueError(f"scores are probabilities, got {worst}; correct the model, or leave such rows out")
    # How likely the row is among positive decisions, and among negative ones, but for a factor common to both.
    positive, negative = wide / before, (1 - wide) / (1 - before)  # [n]

    def slope(share: float) -> float:
        mixed = share * positive + (1 - share) * negative
        with np.errstate(divide="ignore"):  # infinite at an end that a score of 0 or 1 rules out
            return float(((positive - negative) / mixed).sum())

    def likelihood(share: float) -> float:
        with np.errstate(divide="ignore"):
            return float(np.log(share * positive + (1 - share) * negative).sum())

    informative = bool((np.abs(wide - before) > _SAME).any())
    value = _crossing(slope, 0.0, 1.0) if informative else before
    least = likelihood(value) - NormalDist().inv_cdf((1 + LEVEL) / 2) ** 2 / 2
    low = _crossing(lambda share: least - likelihood(share), 0.0, value)
    high = _crossing(lambda share: likelihood(share) - least, value, 1.0)
    return Measure(value, low, high)


_SAME = 1e-7  # a float32 score this near to the share it was fitted at is that share, and tells nothing
_HALVINGS = 60  # down to less than a float64 can tell apart


def _crossing(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where ``falling`` goes from above 0 to below between ``low`` and ``high``; that end, if it does not within."""
    if not falling(low) > 0:
        return low
    if not falling(high) < 0:
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 < share < 1:
            raise ValueError(
                f"`{name}` is a share between 0 and 1, got {share}; keep the score, or wait for more rows"
            )
