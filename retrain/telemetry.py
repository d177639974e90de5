"""What the trainer tells Prometheus. :mod:`retrain.app` calls; the names are in :mod:`deploy.metrics`."""

from __future__ import annotations

from collections import Counter

from deploy import metrics
from retrain.knowledge import Knowledge
from retrain.request import Record, State
from retrain.spec import Heartbeat

PROGRESS = ("epoch", "epochs", "rows", "loss", "attempt")


def written(record: Record, before: Record | None) -> None:
    """Count ``record``, which was written after ``before``."""
    if before is None:
        metrics.RETRAIN_REQUESTS.labels(record.request.trigger).inc()
    if record.ended is not None and (before is None or before.ended is None):
        metrics.RETRAINS.labels(record.state).inc()
        metrics.RETRAIN_SECONDS.observe(record.seconds)


def standing(known: Knowledge, spent: float) -> None:
    """Show how things stand; ``spent`` are seconds of the budget."""
    counts = Counter(each.state for each in known.records.values())
    for state in State:
        metrics.RETRAIN_STATE.labels(state).set(counts[state])
    for name, comparison in (("models", known.beside), ("correction", known.correction)):
        metrics.WATCH_EVIDENCE.labels(name).set(comparison.evidence.log10)
        metrics.WATCH_PAIRS.labels(name).set(comparison.evidence.pairs)
    metrics.BUDGET_SPENT.set(spent)


def progress(beat: Heartbeat | None, attempt: int) -> None:
    """Show how far the running job is, by its last sign of life."""
    told: dict[str, float] = {"attempt": attempt}
    if beat is not None:
        told |= {"epoch": beat.epoch, "epochs": beat.epochs, "rows": beat.rows, "loss": beat.loss or 0.0}
    for name in PROGRESS:
        metrics.RETRAIN_PROGRESS.labels(name).set(told.get(name, 0))


def clear() -> None:
    """Show nothing: another trainer decides."""
    metrics.TRAINER_ACTIVE.set(0)
    for gauge in (
        metrics.RETRAIN_STATE,
        metrics.RETRAIN_PROGRESS,
        metrics.WATCH_EVIDENCE,
        metrics.WATCH_PAIRS,
    ):
        gauge.clear()
