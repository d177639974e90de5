"""The watch: whether one of two models that score the same decisions is worse, told as labels come, at any time.

Pure: pairs of scores with their label in, a finding out. :mod:`retrain.controller` feeds it, and acts on what it finds.

Two models are compared by their log-loss on the same decisions. Whoever looks at such a comparison again and again, and
acts on the first look that seems clear, is wrong far more often than any single test says. So here evidence is wealth: a
gambler bets on every next decision that the model is worse, at odds that are fair if it is not, and may stop whenever
it likes. If the model is not worse, wealth reaches 1 / alpha with probability alpha at most, however often one looks.

That holds for bets of which none is known from those before, and decisions of one user are: whom a model does not suit it
goes on not suiting, and a hundred decisions of such a user are one piece of evidence rather than a hundred. So the bet is on
the first decision of every user in the comparison alone; the others count for its mean and its length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from deploy.release import Correction, Release, Role
from model.prior import corrected
from model.usecase import Retrain

ALPHA = 0.01  # probability that a model that is not worse is ever called so
LEAST = 1e-3  # scores are cut to this and 1 - this: one decision called impossible must not decide
SAME = 1e-4  # a score this near to what a correction makes is one that it made
MOST = 1.0  # nats that one decision may differ by; bets need bounded stakes

# Shares of the wealth that are bet: the best one is about mean / variance of the differences, which nobody knows before.
BETS = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64])

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


class Other(msgspec.Struct, frozen=True, gc=False):
    """The score that another model gave the decision."""

    model: str
    score: float


class Pair(msgspec.Struct, frozen=True, gc=False):
    """A decision with a label, as far as two scores of it are compared: a record of the ``samples`` topic.

    ``score`` is as served, ``uncorrected`` the model's own where a correction was in force. Pairs without a ``user`` are of
    users of their own.
    """

    id: str
    model: str
    score: float
    label: int | None = None
    uncorrected: float | None = None
    beside: Other | None = None
    user: str = ""


class Evidence(msgspec.Struct, frozen=True):
    """What ``pairs`` have shown so far of a model against another. Build it with :func:`extended`.

    ``users`` is how many of the pairs were bet on, ``total`` the sum of the differences of loss, ``wealth`` [len(BETS)] the
    logarithm of what each bet has come to that the model is worse, ``highest`` the logarithm of the most that all bets
    together were worth at any time.
    """

    pairs: int = 0
    users: int = 0
    total: float = 0.0
    wealth: tuple[float, ...] = (0.0,) * len(BETS)
    highest: float = 0.0

    @property
    def mean(self) -> float:
        """The mean difference of log-loss, cut to ``MOST`` either way: above 0 the model is worse."""
        return self.total / max(1, self.pairs)

    @property
    def log10(self) -> float:
        """The evidence that the model is worse: decimal logarithm of an e-value, at its highest."""
        return self.highest / math.log(10)

    @property
    def worse(self) -> bool:
        """Whether the model is shown to be worse."""
        return self.highest >= -math.log(ALPHA)


def extended(evidence: Evidence, differences: Float64, first: Bool | None = None) -> Evidence:
    """``evidence`` and that of ``differences`` [n], what the model's log-loss is above the other's, in their order.

    ``first`` [n] says which are the first of their user, and so bet on; None: all of them.

    Betting on bounded means (Waudby-Smith and Ramdas 2024, JRSS B 86, sections 3 and 4), with a mixture over fixed bets; the
    bound on its maximum is Ville's inequality (1939). How differences are divided among calls changes nothing.

    >>> twice_as_bad = extended(Evidence(), np.full(40, 0.4))
    >>> twice_as_bad.worse, round(twice_as_bad.log10, 1)
    (True, 2.4)
    >>> extended(Evidence(), np.tile([0.4, -0.4], 1000)).worse
    False
    """
    if not len(differences):
        return evidence
    cut = np.clip(differences, -MOST, MOST)
    staked = cut if first is None else cut[first]  # [m]
    grown = np.array(evidence.wealth) + np.cumsum(np.log1p(np.outer(staked, BETS)), axis=0)  # [m, bets]
    peak = grown.max(axis=1)
    together = peak + np.log(np.exp(grown - peak[:, None]).mean(axis=1))  # [m]
    return Evidence(
        pairs=evidence.pairs + len(cut),
        users=evidence.users + len(staked),
        total=evidence.total + float(cut.sum()),
        wealth=tuple(grown[-1].tolist()) if len(staked) else evidence.wealth,
        highest=max(evidence.highest, float(together.max(initial=-math.inf))),
    )


def difference(label: int, score: float, other: float) -> float:
    """The log-loss of ``score`` above that of ``other`` on a decision with that ``label``, in nats.

    >>> round(difference(1, 0.4, 0.8), 3)
    0.693
    """
    return _loss(label, score) - _loss(label, other)


def _loss(label: int, score: float) -> float:
    inside = min(max(score, LEAST), 1 - LEAST)
    return -math.log(inside if label else 1 - inside)


def compared(pair: Pair, model: str, other: str) -> float | None:
    """The difference of ``model`` to ``other`` on ``pair``; None if it is not of these two, or has no label."""
    if pair.beside is None or pair.label is None:
        return None
    if (pair.model, pair.beside.model) == (model, other):
        return difference(pair.label, pair.score, pair.beside.score)
    if (pair.beside.model, pair.model) == (model, other):
        return difference(pair.label, pair.beside.score, pair.score)
    return None


def of_correction(pair: Pair, model: str, correction: Correction) -> float | None:
    """The difference of the score of ``model`` by this ``correction`` to its own; None where there are not both, or no label.

    Labels come late: for a while they are of decisions that were served by the correction before.
    """
    if pair.model != model or pair.uncorrected is None or pair.label is None:
        return None
    expected = corrected(np.array([pair.uncorrected]), correction.before, correction.now)[0]
    if not abs(pair.score - expected) <= SAME:
        return None
    return difference(pair.label, pair.score, pair.uncorrected)


class Step(StrEnum):
    """What a comparison calls for."""

    ROLLBACK = "rollback"  # the live model is worse than the one before
    DROP = "drop"  # the challenger is worse than the live model
    ADVANCE = "advance"  # the challenger is not worse: its next stage
    END = "end"  # the live model has proved itself: the one before is let go
    WITHDRAW = "withdraw"  # the correction does harm


class Finding(msgspec.Struct, frozen=True):
    """A step and its reason, with numbers."""

    step: Step
    reason: str


def judged(role: Role, model: str, other: str, evidence: Evidence, policy: Retrain) -> Finding | None:
    """What ``evidence`` of ``model`` against ``other`` calls for; None: go on watching.

    With ``PREVIOUS`` the ``model`` is the live one, otherwise the challenger. A challenger that is not shown to be worse stays in
    its stage while its mean is by more than ``policy.margin``: more labels tell.
    """
    numbers = (
        f"by {evidence.mean:+.4f} nats of log-loss on {evidence.pairs:,} decisions of {evidence.users:,} users, evidence "
        f"10^{evidence.log10:.1f} of 10^{-math.log10(ALPHA):.0f}"
    )
    if evidence.worse:
        step = Step.ROLLBACK if role is Role.PREVIOUS else Step.DROP
        return Finding(step, f"{model} is worse than {other} {numbers}")
    if role is Role.PREVIOUS:
        if evidence.pairs >= policy.watch_labels:
            return Finding(Step.END, f"{model} is not worse than {other}: it differs {numbers}")
    elif evidence.pairs >= policy.stage_labels and evidence.mean <= policy.margin:
        return Finding(
            Step.ADVANCE, f"{model} as {role.value} is not worse than {other}: it differs {numbers}"
        )
    return None


def judged_correction(model: str, evidence: Evidence) -> Finding | None:
    """Whether ``evidence`` says that the correction of ``model`` does harm."""
    if not evidence.worse:
        return None
    return Finding(
        Step.WITHDRAW,
        f"the corrected scores of {model} are worse than its own by {evidence.mean:+.4f} nats of log-loss on "
        f"{evidence.pairs:,} decisions of {evidence.users:,} users, evidence 10^{evidence.log10:.1f} of "
        f"10^{-math.log10(ALPHA):.0f}",
    )


def begun(releases: Sequence[Release]) -> int:
    """At which of ``releases`` what is compared now began: the same live version with the same one beside it, in its role."""
    first = len(releases) - 1
    while first > 0 and _compared(releases[first - 1]) == _compared(releases[-1]):
        first -= 1
    return first


def _compared(release: Release) -> tuple[str, str, str]:
    live = "" if release.live is None else release.live.version
    beside = release.beside
    return (live, "", "") if beside is None else (live, beside.model.version, beside.role)
