"""What watching costs: time of a decision and of a diagnosis, bytes of the panel's state, at forty features.

Times are those that this process has a processor for: what else goes on on the machine is nobody's cost here.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import msgspec
import numpy as np

from detectors.diagnosis import diagnose
from detectors.episode import Identity
from detectors.panel import Panel, Policy
from detectors.panel_state import STATE
from detectors.rows import Rows, Schema, rows_of
from tests.bench.drift_peers import WINDOW, ks_drift, river
from tests.bench.drift_pool import Spread
from tests.bench.drift_world import samples

NUMERIC, CATEGORICAL, VALUES = 36, 4, 10
MISSING = 0.1
REFERENCE, DIAGNOSED = 5000, 1000  # rows
BATCH, BATCHES = 100, 40  # decisions, of each timing
REPEATS = 5
ALPHA = 0.01
SCHEMA = Schema(tuple(f"n{at}" for at in range(NUMERIC)), tuple(f"c{at}" for at in range(CATEGORICAL)))


def measure(spread: Spread) -> dict[str, Any]:
    """Figures by name; one process, so that nothing of ours stands in its way."""
    return spread(_measure, [0])[0]


def _measure(seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    reference = rows(random, REFERENCE, 0)
    panel = Panel(Identity("bench", "wide"), SCHEMA, reference, Policy(1e300))
    window = rows(random, DIAGNOSED, REFERENCE, shift=0.2)
    found = {
        "microseconds_per_event": 1e6 * _of_decision(panel, random),
        "diagnosis_ms": 1e3 * median(_seconds(lambda: diagnose(reference, window, SCHEMA, ALPHA))),
        "diagnosis_unlabelled_ms": 1e3
        * median(_seconds(lambda: diagnose(reference, _unlabelled(window), SCHEMA, ALPHA))),
        "state_bytes": len(panel.changes()[STATE] or b""),
        "adwin_microseconds": 1e6 * _of_adwin(random),
    }
    if importlib.util.find_spec("alibi_detect") is not None:
        known = np.nan_to_num(reference.numeric)
        detector = ks_drift(known, 0.05)
        windows = np.nan_to_num(window.numeric[:WINDOW])
        found["ksdrift_ms"] = 1e3 * median(_seconds(lambda: detector.predict(windows)))
    return found


def rows(random: np.random.Generator, count: int, first: int, shift: float = 0.0) -> Rows:
    """Decisions of forty features, a tenth of the values missing; ``shift`` moves every numeric column."""
    numeric = random.normal(size=(count, NUMERIC)) + shift
    logit = numeric[:, :6].sum(axis=1) / 2 - 1
    numeric[random.random(numeric.shape) < MISSING] = np.nan
    categorical = random.integers(VALUES, size=(count, CATEGORICAL)).astype(str).astype(object)
    categorical[random.random(categorical.shape) < MISSING] = None
    score = 1 / (1 + np.exp(-logit))
    label = (random.random(count) < score).astype(np.float64)
    return rows_of(numeric, score, label, categorical, np.arange(first, first + count), first)


def _of_decision(panel: Panel, random: np.random.Generator) -> float:
    """Seconds of a decision, scored and then matured."""
    batches = [samples(rows(random, BATCH, (1 + each) * BATCH)) for each in range(BATCHES)]

    def watch() -> None:
        for batch in batches:
            begin = panel.offset + 1
            panel.observe(batch, np.arange(begin, begin + len(batch)))

    watch()  # warm
    return median(_seconds(watch)) / (BATCH * BATCHES)


def _of_adwin(random: np.random.Generator) -> float:
    """Seconds of one value: a panel watches forty columns, the score, the label and the residual in each."""
    values = random.random(20_000).tolist()

    def watch() -> None:
        detector = river.ADWIN()
        for value in values:
            detector.update(value)

    return median(_seconds(watch)) / len(values)


def _unlabelled(window: Rows) -> Rows:
    return msgspec.structs.replace(window, label=np.full(len(window), np.nan))


def _seconds(work: Callable[[], object]) -> list[float]:
    found = []
    for _ in range(REPEATS):
        begin = time.process_time()
        work()
        found.append(time.process_time() - begin)
    return found
