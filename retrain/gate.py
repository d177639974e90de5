"""The gate: whether a challenger may take the place of the live model, the champion. Pure: labels and two models' scores in.

Both are compared on the same decisions, later than any that either was trained on. :mod:`retrain.pipeline` asks, and the
decision is stored with the version.

What is judged is two-step, as in :mod:`model.training`. The challenger here is a twin of the model that would go live: the
same fit, without the holdout. The live model itself has been fitted to the holdout as well, so no figure of it there is
honest; but as a file it must not be *worse* there than the champion by more than the margin, either, which catches what
goes wrong between the twin and the file, such as a broken export.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.evaluation import LEVEL, MISSING, SLICE_ROWS, Float64, auc, surprise
from model.features import Float32

DRAWS = 1000  # of the users, for the intervals
GROUPS = 20_000  # that users are drawn in, when there are more: it costs no width, and bounds the work
CHUNK = 2048  # groups drawn at once, 16 MB
LEAST_USERS = 20  # of a slice; the interval of fewer is too narrow


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Champion and challenger on the same ``rows``; ``slice`` and ``value`` are empty for all of them.

    ``difference`` is the challenger's mean log-loss minus the champion's, ``low`` and ``high`` its 95 % interval by a
    bootstrap that draws users: negative is better. AUC is None where only one label is there.
    """

    slice: str
    value: str
    rows: int
    champion_log_loss: float
    challenger_log_loss: float
    champion_auc: float | None
    challenger_auc: float | None
    difference: float
    low: float
    high: float


class GateDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the challenger passes, why, and the numbers; times are ISO 8601. The first of ``compared`` is over all rows.

    ``champion`` is empty where nothing was live: then the challenger passes if it beats the constant base rate.
    """

    passed: bool
    reasons: tuple[str, ...]
    champion: str
    challenger: str
    margin: float
    begin: str  # of the holdout
    end: str
    compared: tuple[Comparison, ...]


class Scores(NamedTuple):
    """Scores [n] of the holdout: of the ``champion``, as it would be served; of the ``challenger``, the twin; of the ``live`` file."""

    champion: Float32
    challenger: Float32
    live: Float32


class Holdout(NamedTuple):
    """What is known of n decisions: ``label`` [n], ``user`` [n] and, by slice, the value [n] of each, None where missing."""

    label: Float32
    user: NDArray[np.int64]
    slices: Mapping[str, NDArray[np.object_]]
    begin: str  # ISO 8601
    end: str


class Terms(NamedTuple):
    """What a challenger has to show. With ``better`` it has to be better in ``slice`` and ``value``; empty: over all."""

    champion: str
    challenger: str
    margin: float
    better: bool
    slice: str = ""
    value: str = ""


def judge(holdout: Holdout, scores: Scores, terms: Terms, seed: int) -> GateDecision:
    """Whether the challenger may go live.

    It passes if its log-loss is not worse by more than the margin: over all, with the upper end of the 95 % interval; in a
    slice, unless it surely is, by the lower end of an interval that holds for all slices at once (Bonferroni), since of
    many small slices some always look worse. And, where a drift asked for it, if it is better there. A slice counts with
    :data:`~model.evaluation.SLICE_ROWS` rows, :data:`LEAST_USERS` users and both labels. Scores that are no numbers
    never pass. Equal arguments give equal decisions.
    """
    compared: list[Comparison] = []
    reasons: list[str] = []
    odd = [name for name, each in zip(_NAMES, scores, strict=True) if not _probabilities(each)]
    if not odd:
        parts = [("", "", np.ones(len(holdout.label), np.bool_)), *_parts(holdout)]
        losses = [surprise(holdout.label, each) for each in scores]
        drawn = _drawn(holdout.user, losses[1] - losses[0], [rows for *_, rows in parts], seed)
        compared = [
            _comparison(part, holdout, scores, losses, draws)
            for part, draws in zip(parts, drawn, strict=True)
        ]
        excess = float((losses[2] - losses[0]).mean())
        reasons = _reasons(compared, [float(np.std(draws)) for draws in drawn], excess, terms)
    else:
        reasons = [
            f"{name}: scores are probabilities, got others; look at its features and export" for name in odd
        ]
    against = terms.champion or "the constant base rate"
    passed = not reasons
    if passed:
        found = compared[0]
        losses_of = f"{found.challenger_log_loss:.4f} against {found.champion_log_loss:.4f} of {against}"
        reasons = [f"log-loss {losses_of} on {found.rows} decisions: {_interval(found)}"]
    return GateDecision(
        passed=passed,
        reasons=tuple(reasons),
        champion=terms.champion,
        challenger=terms.challenger,
        margin=terms.margin,
        begin=holdout.begin,
        end=holdout.end,
        compared=tuple(compared),
    )


_NAMES = ("champion", "challenger", "live file")
_Part = tuple[str, str, NDArray[np.bool_]]


def _probabilities(score: Float32) -> bool:
    return bool(((score >= 0) & (score <= 1)).all())  # NaN is neither


def _parts(holdout: Holdout) -> list[_Part]:
    """The slices that count: their name, value and rows [n]."""
    found = []
    for name, column in holdout.slices.items():
        values = np.array([MISSING if value is None else value for value in column.tolist()], np.str_)
        for value in np.unique(values):
            rows = values == value
            labels, users = np.unique(holdout.label[rows]), np.unique(holdout.user[rows])
            if rows.sum() >= SLICE_ROWS and len(labels) == 2 and len(users) >= LEAST_USERS:
                found.append((name, str(value), rows))
    return found


def _drawn(
    user: NDArray[np.int64], worse: Float64, parts: list[NDArray[np.bool_]], seed: int
) -> list[Float64]:
    """The mean of ``worse`` [n] in each of ``parts``, had other users come: [DRAWS] each, without those that drew nobody.

    Each user counts Poisson(1) times, which is the bootstrap for many (Chamandy et al. 2012), the same in all parts.
    """
    random = np.random.default_rng(seed)
    _, codes = np.unique(user, return_inverse=True)
    users = int(codes.max()) + 1
    groups = min(users, GROUPS)
    group = (random.permutation(users) % groups)[codes]  # [n]
    sums = [
        np.bincount(group, kind * rows, groups) for rows in parts for kind in (worse, np.ones(len(worse)))
    ]
    columns = np.column_stack(sums)  # [groups, 2 * parts]
    totals = np.zeros((DRAWS, columns.shape[1]))
    for first in range(0, groups, CHUNK):
        chunk = columns[first : first + CHUNK]
        totals += random.poisson(1.0, (DRAWS, len(chunk))) @ chunk
    found = []
    for k in range(len(parts)):
        worsened, counted = totals[:, 2 * k], totals[:, 2 * k + 1]
        found.append(worsened[counted > 0] / counted[counted > 0])
    return found


def _comparison(
    part: _Part, holdout: Holdout, scores: Scores, losses: list[Float64], draws: Float64
) -> Comparison:
    slice_, value, rows = part
    low, high = np.percentile(draws, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]).tolist()
    label = holdout.label[rows]
    both = len(np.unique(label)) == 2
    champion, challenger = (float(each[rows].mean()) for each in losses[:2])
    return Comparison(
        slice=slice_,
        value=value,
        rows=int(rows.sum()),
        champion_log_loss=champion,
        challenger_log_loss=challenger,
        champion_auc=auc(label, scores.champion[rows]) if both else None,
        challenger_auc=auc(label, scores.challenger[rows]) if both else None,
        difference=challenger - champion,
        low=low,
        high=high,
    )


def _reasons(compared: list[Comparison], errors: list[float], excess: float, terms: Terms) -> list[str]:
    """Why not; nothing if nothing speaks against it."""
    overall, *slices = compared
    margin, reasons = terms.margin, []
    if overall.high > margin:
        reasons.append(
            f"over all {overall.rows} decisions its log-loss may be worse by {overall.high:.4f}, more than the margin of "
            f"{margin}: {_interval(overall)}"
        )
    # so many standard errors below the difference that all slices' bounds hold at once, 97.5 % of the time
    deviations = NormalDist().inv_cdf(1 - (1 - LEVEL) / 2 / max(1, len(slices)))
    for each, error in zip(slices, errors[1:], strict=True):
        least = each.difference - deviations * error
        if least > margin:
            reasons.append(
                f"{each.slice} {each.value}: on {each.rows} decisions its log-loss is worse by {least:.4f} at least, more than "
                f"the margin of {margin}: {_interval(each)}"
            )
    where = next((each for each in slices if (each.slice, each.value) == (terms.slice, terms.value)), None)
    drifted = where or overall
    if terms.better and drifted.difference >= 0:
        place = f"{terms.slice} {terms.value}" if where else "over all"
        unknown = (
            f" ({terms.slice} {terms.value} has too few decisions to tell)"
            if terms.slice and not where
            else ""
        )
        reasons.append(f"it is not better where the drift was, {place}{unknown}: {_interval(drifted)}")
    if not terms.champion and overall.difference >= 0 and not terms.better:
        reasons.append(f"it does not beat the constant base rate: {_interval(overall)}")
    if excess > margin:
        reasons.append(
            f"the file that would go live has a log-loss worse than the champion's by {excess:.4f} on the holdout, to which it "
            "was even fitted, more than the margin: look at its export and at the rows that only it was fitted to"
        )
    return reasons


def _interval(found: Comparison) -> str:
    return f"{_signed(found.difference)}, 95 % interval {_signed(found.low)} to {_signed(found.high)}"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")  # noqa: RUF001  # a minus sign, as people write it
