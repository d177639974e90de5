"""Data faults through the panel: how many injected ones are called that.

Each of ``tests.bench.injection``'s faults sets in some thousand decisions after the reference of a frozen model, which
scores what it then gets. Some faults change no column's law (copies of other rows, a wrong clock) and so raise no alarm;
whether their check would find them, were it asked of the first rows, is told beside. The data are those of the protocol, with their first column's fifth as a category, and with
times: decisions 2 s apart on average, received within seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from detectors.episode import Identity
from detectors.faults import arrival_faults, column_faults
from detectors.pace import pace_of
from detectors.panel import FIRST, Panel, Policy
from detectors.rows import Float64, Rows, Schema, rows_of
from detectors.verdict import Kind
from tests.bench.drift_pool import Spread
from tests.bench.drift_protocol import ALPHA, LABELS, THRESHOLD, data
from tests.bench.drift_world import samples
from tests.bench.injection import FAULTS, inject_fault

SHARE = 0.15  # of the data that the model is fitted to; 10 % are its reference
AFTER = (1000, 3000)  # decisions after the reference, between which a fault sets in
PATIENCE = 3000  # decisions after that
START = 1_700_000_000_000  # ms
GAP, LAG = 2000.0, 500.0  # ms: between decisions, and to their receipt
FIFTHS = np.array(list("abcde"), np.object_)


class Outcome(msgspec.Struct, frozen=True):
    """What the panel made of a fault: whether there was an alarm, whether it was called a fault, and by which checks."""

    fault: str
    alarmed: bool
    called: bool
    checks: tuple[str, ...]
    asked: bool  # its check finds it in the first rows, alarm or not
    early: bool  # called a fault before there was one


class _Task(msgspec.Struct, frozen=True):
    csv: Path | None
    seed: int


def measure(spread: Spread, csv: Path | None, episodes: int) -> dict[str, Any]:
    """Figures by name: ``fault_recall`` over ``episodes`` of each fault."""
    outcomes = [
        each for found in spread(run, [_Task(csv, seed) for seed in range(episodes)]) for each in found
    ]
    return {
        "fault_recall": float(np.mean([each.called for each in outcomes])),
        "fault_recall_of_alarmed": _share([each.called for each in outcomes if each.alarmed]),
        "faults_called_early": sum(each.early for each in outcomes),
        "fault_cells": [_cell(name, [each for each in outcomes if each.fault == name]) for name in FAULTS],
    }


def _cell(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "fault": name,
        "episodes": len(outcomes),
        "alarmed": _share([each.alarmed for each in outcomes]),
        "called": _share([each.called for each in outcomes]),
        "by_its_check": _share([name in each.checks for each in outcomes]),
        "if_asked": _share([each.asked for each in outcomes]),
    }


def _share(found: Sequence[bool]) -> float:
    return float(np.mean(found)) if found else 0.0


def run(task: _Task) -> list[Outcome]:
    """Every fault in one stream, with one model."""
    random = np.random.default_rng(task.seed)
    found = data(task.csv)
    order = random.permutation(len(found.label))
    features, label = found.features[order], found.label[order]
    fitted, begin = int(SHARE * len(order)), int((SHARE + 0.1) * len(order))
    features, label = features[: begin + AFTER[1] + PATIENCE], label[: begin + AFTER[1] + PATIENCE]
    model = HistGradientBoostingClassifier(max_iter=60, random_state=0).fit(features[:fitted], label[:fitted])
    rows = _timed(features, label, random)
    rows = _scored(model, rows)
    schema = Schema(found.columns, ("fifth",))
    return [
        _run(model, schema, rows[fitted:begin], rows[begin:], name, np.random.default_rng([task.seed, at]))
        for at, name in enumerate(FAULTS)
    ]


def _timed(features: Float64, label: np.ndarray[Any, Any], random: np.random.Generator) -> Rows:
    n = len(label)
    time = START + np.cumsum(random.exponential(GAP, n)).astype(np.int64)
    edges = np.nanquantile(features[:, 0], (0.2, 0.4, 0.6, 0.8))
    rows = rows_of(
        features, np.zeros(n), label, FIFTHS[np.searchsorted(edges, features[:, 0])][:, None], time
    )
    return msgspec.structs.replace(rows, received=time + random.exponential(LAG, n).astype(np.int64))


def _scored(model: Any, rows: Rows) -> Rows:
    return msgspec.structs.replace(rows, score=model.predict_proba(rows.numeric)[:, 1])


def _run(
    model: Any, schema: Schema, reference: Rows, rows: Rows, name: str, random: np.random.Generator
) -> Outcome:
    begin = int(random.integers(*AFTER))
    decisions = _scored(model, inject_fault(rows[: begin + PATIENCE], begin, name, random))
    first = decisions[begin : begin + FIRST]
    faulty = samples(decisions)
    panel = Panel(Identity("bench", "frozen"), schema, reference, Policy(THRESHOLD, LABELS, ALPHA))
    at = np.arange(len(faulty))
    verdicts = panel.observe(faulty[: 2 * begin], at[: 2 * begin], pace_of(decisions[:begin]))
    newest = int(decisions.time[:begin].max())
    now = pace_of(decisions[begin:], newest)
    verdicts += panel.observe(faulty[2 * begin :], at[2 * begin :], now)
    # By the offset at which the alarm was raised: the clock may be what is at fault.
    after = [each for each in verdicts if int(each.id.rpartition("/")[2]) >= 2 * begin]
    called = [each for each in after if each.kind is Kind.FAULT]
    return Outcome(
        fault=name,
        alarmed=bool(after),
        called=bool(called),
        checks=tuple({fault.check for each in called for fault in each.faults}),
        asked=any(
            fault.check == name
            for fault in (
                *column_faults(reference, first, schema),
                *arrival_faults(reference, first, pace_of(decisions[:begin]), now),
            )
        ),
        early=any(each.kind is Kind.FAULT for each in verdicts if each not in after),
    )
