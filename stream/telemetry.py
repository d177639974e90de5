"""What the worker's metrics say of each run, and of what is held. ``stream/app.py`` calls; names: ``deploy/metrics.py``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from operator import attrgetter

from deploy import metrics
from model.usecase import UseCase
from stream.engine import Processed
from stream.quality import MODELS, Cohort, Quality
from stream.scoring import Scoring
from stream.state import State

_GAUGES = {
    "decisions": metrics.QUALITY_DECISIONS,
    "base_rate": metrics.QUALITY_BASE_RATE,
    "auc": metrics.QUALITY_AUC,
    "log_loss": metrics.QUALITY_LOG_LOSS,
    "calibration_error": metrics.QUALITY_CALIBRATION,
}
_CLOSED = {
    "decisions": metrics.CLOSED,
    "positives": metrics.CLOSED_POSITIVES,
    "score": metrics.CLOSED_SCORES,
    "log_loss": metrics.CLOSED_LOG_LOSS,
}


class Telemetry:
    """Counts runs, and remembers what the gauges of online quality show."""

    def __init__(self, usecase: UseCase) -> None:
        self._quality = Quality(usecase)
        self._shown: set[Cohort] = set()
        self._models: dict[str, None] = {}  # in order of their latest decision
        self._failures = self._beside_failures = self._beside_scores = 0

    def processed(self, processed: Processed) -> None:
        """Count a run that has been processed."""
        joined = processed.joined
        metrics.RECORDS.inc(processed.records)
        metrics.BATCH_RECORDS.observe(processed.records)
        metrics.SKIPPED.inc(processed.skipped)
        metrics.EXAMPLES.labels("positive").inc(joined.positives)
        metrics.EXAMPLES.labels("negative").inc(len(joined.examples) - joined.positives)
        metrics.SAMPLES.labels("scored").inc(len(joined.samples) - joined.matured)
        metrics.SAMPLES.labels("matured").inc(joined.matured)
        for outcome, count in joined.outcomes.items():
            metrics.OUTCOMES.labels(outcome.value).inc(count)
        for reason, count in joined.untracked.items():
            metrics.UNTRACKED.labels(reason.value).inc(count)
        for bad in processed.bad:
            metrics.DEAD_LETTERS.labels(bad.reason.value).inc()
        for stage, seconds in processed.seconds.items():
            metrics.STAGE_SECONDS.labels(stage).inc(seconds)
        for cohort, added in self._quality.observe(joined.closed).items():
            for field, counter in _CLOSED.items():
                counter.labels(*cohort).inc(getattr(added, field))

    def written(self, processed: Processed, now: float) -> None:
        """Count a run's scores, acknowledged at ``now`` (s since the epoch)."""
        for score, sent in zip(processed.scores, processed.sent, strict=True):
            metrics.SCORES.observe(score.score)
            metrics.LATENCY.observe(now - sent / 1000)
        for model, count in Counter(map(attrgetter("model"), processed.scores)).items():
            metrics.DECISIONS.labels(model).inc(count)
            self._models.pop(model, None)
            self._models[model] = None
        while len(self._models) > MODELS:
            oldest = next(iter(self._models))
            del self._models[oldest]
            metrics.DECISIONS.remove(oldest)

    def scored(self, scoring: Scoring) -> None:
        """Show what ``scoring`` has counted so far."""
        metrics.SCORING_FAILURES.inc(scoring.failures - self._failures)
        metrics.BESIDE_FAILURES.inc(scoring.beside_failures - self._beside_failures)
        metrics.BESIDE_SCORES.inc(scoring.beside_scores - self._beside_scores)
        self._failures, self._beside_failures = scoring.failures, scoring.beside_failures
        self._beside_scores = scoring.beside_scores

    def held(self, states: Collection[State]) -> None:
        """Show what the partitions hold here, and the quality of the decisions closed here."""
        metrics.PROFILES.set(sum(len(state.profiles) for state in states))
        metrics.PROFILE_BYTES.set(sum(state.profiles.nbytes for state in states))
        metrics.OPEN.set(sum(len(state.pending) for state in states))
        metrics.HELD.set(sum(state.pending.held for state in states))
        metrics.OPEN_BYTES.set(sum(state.pending.nbytes for state in states))
        if states:
            metrics.SAMPLED_SHARE.set(sum(state.pending.sampled_share for state in states) / len(states))
        measures = self._quality.measures()
        for gone in self._shown.difference(measures):
            for shown in (*_GAUGES.values(), *_CLOSED.values()):
                shown.remove(*gone)
        for cohort, measured in measures.items():
            for field, gauge in _GAUGES.items():
                gauge.labels(*cohort).set(getattr(measured, field))
        self._shown = set(measures)
