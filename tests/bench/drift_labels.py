"""Labels that come late: what a panel makes of decisions that never change, while their outcomes are on their way.

One decision in ten is positive, which is known some 200 decisions later; that one is not, when its window of
``HORIZON`` decisions has closed. The engine tells every label then and not before. For contrast: what comes of telling
each as soon as it is known, when those that are known first are all positive.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.episode import Identity
from detectors.panel import Panel, Policy
from detectors.rows import Rows
from detectors.verdict import Kind, Verdict
from model.usecase import Drift
from tests.bench.drift_pool import Spread
from tests.bench.drift_world import SCHEMA, independent

EVENTS = 1_000_000
EARLY_EVENTS, EARLY_STREAMS = 50_000, 8
HORIZON = 2000  # decisions
SOON = 200.0  # decisions until a positive is known, on average
PRIOR = -2.98  # logit: one decision in ten is positive
REFERENCE = 5000
BATCH = 4096
OF_LABELS = (Kind.LABEL, Kind.CONCEPT, Kind.MIXED)


class Joining(msgspec.Struct, frozen=True):
    """How labels are told: ``early`` as soon as each is known."""

    events: int
    early: bool
    seed: int = 0


def measure(spread: Spread, scale: float = 1.0) -> dict[str, Any]:
    """Figures by name: ``false_delayed_verdicts``, and the same of labels that are told early."""
    tasks = [Joining(EARLY_EVENTS, early=True, seed=seed) for seed in range(EARLY_STREAMS)]
    late, *early = spread(run, [Joining(int(EVENTS * scale), early=False), *tasks])
    return {
        "false_delayed_verdicts": late["of_labels"],
        "delayed_labels": late,
        "delayed_labels_told_early": early,
    }


def run(joining: Joining) -> dict[str, Any]:
    """Feed ``joining.events`` decisions and their labels to a panel with the default policy."""
    random = np.random.default_rng([6, joining.events, joining.seed])
    reference = independent(random, REFERENCE, 0, PRIOR)
    rows = independent(random, joining.events, REFERENCE, PRIOR)
    default = Drift()
    policy = Policy(default.events_between_false_alarms, default.labels, default.alpha)
    panel = Panel(Identity("bench", "world"), SCHEMA, reference, policy)
    order = _arrivals(rows.label, random, early=joining.early)
    verdicts: list[Verdict] = []
    for begin in range(0, len(order), BATCH):
        told = order[begin : begin + BATCH]
        verdicts += panel.observe(_told(rows, told), np.arange(begin, begin + len(told)))
    final = [each for each in verdicts if each.final]
    return {
        "events": joining.events,
        "positive": float(rows.label.mean()),
        "alarms": sum(each.revision == 0 for each in verdicts),
        "verdicts": dict(Counter(each.kind.value for each in final)),
        "of_labels": sum(each.kind in OF_LABELS for each in final),
        "positive_read": [each.prior_counted.value for each in verdicts if each.prior_counted is not None][
            :5
        ],
    }


def _arrivals(label: NDArray[np.float64], random: np.random.Generator, *, early: bool) -> NDArray[np.int64]:
    """Who comes, in that order: i is decision i scored, n + i the same with its label."""
    n = len(label)
    known = np.arange(n) + HORIZON + 0.5
    if early:
        soon = np.arange(n) + 0.5 + random.exponential(SOON, n)
        known = np.where(label == 1, np.minimum(soon, known), known)
    order = np.argsort(np.concatenate([np.arange(n), known]), kind="stable")
    return order[: n + int((known < n).sum())]  # the stream ends with the last decision


def _told(rows: Rows, told: NDArray[np.int64]) -> Rows:
    n = len(rows)
    found = rows[told % n]
    return msgspec.structs.replace(found, label=np.where(told < n, np.nan, found.label))
