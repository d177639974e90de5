"""How many decisions pass between two false alarms of a panel, against what its policy promises.

For each of several references, because a deployment has one and lives with its errors. Each is watched for so many
times the promised number of decisions, with a new panel after every alarm, so a bad one has more alarms to be judged
by. Nothing is cut off: what passed since the last alarm counts as well. Alarms come nearly as a Poisson process (runs
vary less than exponential ones, since evidence takes a while to gather: their coefficient of variation is told), so the
lower 95 % bound of the mean is twice the decisions over the 95 % point of chi-squared with two degrees of freedom for
every alarm, and two more.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from scipy.stats import chi2

from detectors.episode import Identity
from detectors.panel import Panel, Policy
from detectors.rows import Rows
from tests.bench.drift_pool import Spread
from tests.bench.drift_world import SCHEMA, Stream, samples

REFERENCES = 20
ROWS = 5000  # of a reference
BATCH = 250  # decisions: a panel that is alarmed in one has too few yet to diagnose anything
CONFIDENCE = 0.95


class Setting(msgspec.Struct, frozen=True):
    """A stream, a threshold, and how many times that many decisions each reference is watched for."""

    kind: str
    threshold: int
    rows: int
    times: int
    reference: int = 0


SETTINGS = (
    Setting("independent", 1000, ROWS, 100),
    Setting("thinned", 1000, ROWS, 100),
    Setting("independent", 10_000, ROWS, 60),
    Setting("thinned", 10_000, ROWS, 60),
)
BESIDE = (  # not promised: a smaller reference, and bursts of which every event is monitored
    Setting("independent", 1000, 1000, 100),
    Setting("bursts", 1000, ROWS, 10),
)


def measure(spread: Spread, references: int, settings: tuple[Setting, ...] = SETTINGS) -> dict[str, Any]:
    """Figures by name: ``run_length_ratio_min``, and what it is the least of."""
    tasks = [
        msgspec.structs.replace(each, reference=reference)
        for each in sorted((*settings, *BESIDE), key=lambda each: -each.threshold)  # the longest first
        for reference in range(references)
    ]
    by_setting: dict[tuple[str, int, int], list[list[int]]] = {}
    for task, found in zip(tasks, spread(lengths, tasks), strict=True):
        by_setting.setdefault((task.kind, task.threshold, task.rows), []).append(found)
    table = [
        _summary(each, by_setting[each.kind, each.threshold, each.rows]) for each in (*settings, *BESIDE)
    ]
    return {
        "run_length_ratio_min": min(each["least_bound"] for each in table[: len(settings)]),
        "run_lengths": table,
    }


def _summary(setting: Setting, runs: list[list[int]]) -> dict[str, Any]:
    alarms = np.array([len(each) for each in runs])
    bounds = [lower_bound(setting.times, count) for count in alarms.tolist()]
    # Around each reference's own mean, of which a run is a part.
    relative = [length / np.mean(each) for each in runs if len(each) > 1 for length in each]
    lost = sum(len(each) > 1 for each in runs)
    return {
        "stream": setting.kind,
        "threshold": setting.threshold,
        "reference_rows": setting.rows,
        "references": len(runs),
        "times": setting.times,
        "alarms": int(alarms.sum()),
        "mean": float(setting.times * len(runs) / max(alarms.sum(), 1)),
        "least_mean": float(setting.times / max(alarms.max(), 1)),
        "least_bound": min(bounds),
        "bounds": bounds,
        "variation": float(np.sqrt(np.sum((np.array(relative) - 1) ** 2) / max(len(relative) - lost, 1))),
    }


def lower_bound(watched: float, alarms: int) -> float:
    """The lower 95 % confidence bound of the mean time between ``alarms`` that came while ``watched``."""
    return float(2 * watched / chi2.ppf(CONFIDENCE, 2 * (alarms + 1)))


def lengths(setting: Setting) -> list[int]:
    """Decisions to each alarm from the one before, with one reference; what is left after the last is not among them."""
    kinds = ("independent", "thinned", "bursts")
    seed = [kinds.index(setting.kind), setting.threshold, setting.rows, setting.reference]
    stream = Stream(setting.kind, seed)
    reference = stream.reference(setting.rows)
    left = setting.times * setting.threshold
    found: list[int] = []
    while (run := _until_alarm(stream, reference, setting.threshold, left)) is not None:
        found.append(run)
        left -= run
    return found


def _until_alarm(stream: Stream, reference: Rows, threshold: int, most: int) -> int | None:
    panel = Panel(Identity("bench", "world"), SCHEMA, reference, Policy(threshold))
    for seen in range(0, most, BATCH):
        decisions = stream.take(min(BATCH, most - seen))
        verdicts = panel.observe(samples(decisions), np.arange(2 * seen, 2 * (seen + len(decisions))))
        if verdicts:
            return seen + verdicts[0].alarmed - int(decisions.time[0]) + 1
    return None
