"""The protocol of Cerqueira et al. (KDD 2026, arXiv 2606.07789) through the panel: four drifts, abrupt and gradual.

A stream is shuffled, and a drift injected between half and four fifths of it (:mod:`tests.bench.injection`). A model is
fitted to its first 15 % and stays as it is, the next 10 % are its reference, and the rest is monitored, labels known at
once. Every alarm from the drift on, until ``LATEST`` rows after it has fully set in, is a true positive, every other
one a false one, and an episode without a true one a false negative: so one F1 for the episodes of a drift.

``THRESHOLD`` was chosen before anything was run: one false alarm in about 20 streams.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from detectors.episode import Identity
from detectors.panel import Panel, Policy
from detectors.rows import Rows, Schema, rows_of
from detectors.verdict import Kind, Verdict
from tests.bench import drift_peers
from tests.bench.drift_data import Data, generated, read
from tests.bench.drift_pool import Spread
from tests.bench.drift_world import samples
from tests.bench.injection import DRIFTS, inject_drift

THRESHOLD = 1_000_000
LABELS, ALPHA = 1000, 0.01
LATEST = 2500  # rows
WIDTHS = {"abrupt": 0, "gradual": LATEST}  # rows over which a drift sets in
TRUTH = {"x_exceed_skip": Kind.COVARIATE, "y_prior_skip": Kind.LABEL, "y_swaps": Kind.CONCEPT}
OURS = "eddyline"


class Episode(msgspec.Struct, frozen=True):
    """One drift in one stream, by seed; ``csv`` None is the generated one."""

    csv: Path | None
    drift: str
    mode: str
    seed: int
    peers: bool


class Prepared(msgspec.Struct, frozen=True, eq=False):
    """A stream with its drift at ``location``, scored: ``reference`` and what is monitored, timed by row number."""

    schema: Schema
    reference: Rows
    rows: Rows
    location: int


class Outcome(msgspec.Struct, frozen=True):
    """What the panel made of an episode, and the peers' F1 counts: true, false alarms and whether any was true."""

    drift: str
    mode: str
    counts: dict[str, tuple[int, int, bool]]
    delay: int | None  # rows from the drift to the first true alarm
    kinds: tuple[Kind, ...]  # of that alarm's last verdict
    final: bool
    faulty: bool  # a verdict called it a data fault


@functools.lru_cache(maxsize=1)
def data(csv: Path | None) -> Data:
    """The data, once a process."""
    return generated() if csv is None else read(csv)


def prepare(found: Data, drift: str, width: int, seed: int) -> Prepared:
    """Inject ``drift``, fit the model to the beginning, and score the rest."""
    features, label, index, location = inject_drift(
        found.features, found.label, drift, np.random.default_rng(seed), width
    )
    begin = int(np.searchsorted(index, len(found.label) // 4))
    fitted = int(0.6 * begin)
    model = HistGradientBoostingClassifier(max_iter=60, random_state=0).fit(features[:fitted], label[:fitted])
    margin = model.decision_function(features)[:, None]
    # A score that is a probability, as our models' are.
    calibration = LogisticRegression(C=1e6).fit(margin[fitted:begin], label[fitted:begin])
    score = calibration.predict_proba(margin)[:, 1]
    rows = rows_of(features, score, label, time=index.astype(np.int64))
    return Prepared(Schema(found.columns), rows[fitted:begin], rows[begin:], location)


def run(episode: Episode) -> Outcome:
    """Play one episode."""
    width = WIDTHS[episode.mode]
    prepared = prepare(data(episode.csv), episode.drift, width, episode.seed)
    panel = Panel(
        Identity("bench", "frozen"), prepared.schema, prepared.reference, Policy(THRESHOLD, LABELS, ALPHA)
    )
    last = prepared.location + width + LATEST
    rows = samples(prepared.rows)
    by_alarm: dict[str, list[Verdict]] = {}
    for verdict in panel.observe(rows, np.arange(len(rows))):
        by_alarm.setdefault(verdict.id, []).append(verdict)
    counts = {OURS: _counts([each[0].alarmed for each in by_alarm.values()], prepared.location, last)}
    if episode.peers:
        counts |= {
            name: _counts(alarms, prepared.location, last)
            for name, alarms in drift_peers.alarms(prepared.reference, prepared.rows).items()
        }
    hits = [each for each in by_alarm.values() if prepared.location <= each[0].alarmed <= last]
    return Outcome(
        drift=episode.drift,
        mode=episode.mode,
        counts=counts,
        delay=hits[0][0].alarmed - prepared.location if hits else None,
        kinds=hits[0][-1].kinds if hits else (),
        final=bool(hits) and hits[0][-1].final,
        faulty=any(verdict.faults for each in by_alarm.values() for verdict in each),
    )


def _counts(alarms: Sequence[int], first: int, last: int) -> tuple[int, int, bool]:
    true = sum(first <= alarm <= last for alarm in alarms)
    return true, len(alarms) - true, true > 0


def measure(spread: Spread, csv: Path | None, episodes: int, *, peers: bool = True) -> dict[str, Any]:
    """Figures by name: F1 of ``episodes`` of each drift, how often the kind was right, and the same of the peers."""
    tasks = [
        Episode(csv, drift, mode, seed, peers)
        for mode in WIDTHS
        for drift in DRIFTS
        for seed in range(episodes)
    ]
    outcomes = spread(run, tasks)
    cells = [
        cell(drift, mode, [each for each in outcomes if (each.drift, each.mode) == (drift, mode)])
        for mode in WIDTHS
        for drift in DRIFTS
    ]
    names = list(outcomes[0].counts)
    means = {
        name: {
            mode: float(np.mean([each["f1"][name] for each in cells if each["mode"] == mode]))
            for mode in WIDTHS
        }
        for name in names
    }
    return {
        "f1_abrupt": means[OURS]["abrupt"],
        "f1_gradual": means[OURS]["gradual"],
        **kinds_of(outcomes),
        "drifts_called_faults": float(np.mean([each.faulty for each in outcomes])),
        "protocol_data": "RandomRBF" if csv is None else csv.stem,
        "protocol_episodes": episodes,
        "protocol_cells": cells,
        "protocol_f1": means,
    }


def cell(drift: str, mode: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What the episodes of one drift in one mode come to."""
    delays = [each.delay for each in outcomes if each.delay is not None]
    told = Counter(
        ("+".join(each.kinds) or "mixed") + ("" if each.final else ", open")
        for each in outcomes
        if each.delay is not None
    )
    return {
        "mode": mode,
        "drift": drift,
        "f1": {name: f1([each.counts[name] for each in outcomes]) for name in outcomes[0].counts},
        "false_alarms": {name: sum(each.counts[name][1] for each in outcomes) for name in outcomes[0].counts},
        "delay": float(np.mean(delays)) if delays else None,
        "told": dict(told.most_common()),
        "faults": sum(each.faulty for each in outcomes),
    }


def f1(counts: Sequence[tuple[int, int, bool]]) -> float:
    """F1 of true and false alarms and missed episodes, one triple an episode."""
    true, false = sum(each[0] for each in counts), sum(each[1] for each in counts)
    missed = sum(not each[2] for each in counts)
    return 2 * true / max(2 * true + false + missed, 1)


def kinds_of(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """How often the kind that was told last is the true one, of the episodes that were found and have a single one."""
    found = [each for each in outcomes if each.drift in TRUTH and each.delay is not None]
    single = [each for each in found if len(each.kinds) == 1 and each.final]

    def share(right: Sequence[bool]) -> float:
        return float(np.mean(right)) if right else 0.0

    return {
        "type_accuracy": share([each.kinds[:1] == (TRUTH[each.drift],) for each in found]),
        "set_coverage": share([TRUTH[each.drift] in each.kinds for each in found]),
        "single_type_precision": share([each.kinds == (TRUTH[each.drift],) for each in single]),
        "single_types": share([len(each.kinds) == 1 and each.final for each in found]),
    }
