"""What the monitor's metrics say. :mod:`detectors.app` calls; the names are in ``deploy/metrics.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deploy import metrics
from detectors.episode import Identity
from detectors.monitor import Observed
from detectors.panel import Status
from detectors.verdict import Kind, Verdict

_STATES = {"watching": 0, "diagnosing": 1, "settling": 2}
_GAUGES = (metrics.EVIDENCE, metrics.EVIDENCE_THRESHOLD, metrics.DRIFT_STATE, metrics.DRIFT_OPEN)


def observed(observed: Observed) -> None:
    """Count what came of some records."""
    for kind, count in (
        ("scored", observed.scored),
        ("matured", observed.matured),
        ("repeated", observed.repeated),
        ("unknown-model", observed.unknown.total()),
    ):
        metrics.MONITORED.labels(kind).inc(count)
    for (model, name), count in observed.unwatched.items():
        metrics.UNWATCHED.labels(model, name).inc(count)
    if observed.latest:
        metrics.MONITOR_LATEST.set(observed.latest / 1000)


def written(verdicts: Sequence[Verdict]) -> None:
    """Count ``verdicts`` that were written."""
    for verdict in verdicts:
        metrics.VERDICTS.labels(verdict.model, verdict.kind.value, verdict.response.action.value).inc()


def standing(panels: Mapping[Identity, Status]) -> None:
    """Show how each panel stands."""
    for identity, status in panels.items():
        cohort = (identity.model, identity.slice, identity.value)
        metrics.EVIDENCE.labels(*cohort).set(status.log10_evidence)
        metrics.EVIDENCE_THRESHOLD.labels(*cohort).set(status.log10_threshold)
        metrics.DRIFT_STATE.labels(*cohort).set(_STATES[status.state])
        for kind in Kind:
            here = status.state == "diagnosing" and status.kind is kind
            metrics.DRIFT_OPEN.labels(*cohort, kind.value).set(float(here))


def clear() -> None:
    """Show nothing: another monitor watches."""
    for gauge in _GAUGES:
        gauge.clear()
