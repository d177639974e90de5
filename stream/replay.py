"""Replay: events from files through the worker's own engine, in order of event time, without Kafka.

For backtests, and for building training sets from history: the same events give the same profiles, scores and
examples as they would through Kafka (in one partition, the same to the byte). Called by the command line, the demo
and the quality benchmark.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deploy.live import Scorer, fixed
from deploy.settings import Events
from model.evaluation import MISSING, auc, calibration_error, log_loss
from model.examples import Example, table_of
from model.features import Float32, feature_spec
from model.usecase import UseCase
from stream.engine import Engine, Processed
from stream.feedback import Outcomes, Untracked
from stream.files import FileRecord, key_of
from stream.state import State

UNBOUNDED = 1 << 62  # a replay tracks every decision
SWEEP = 64  # chunks between evictions of idle profiles

_example = msgspec.json.Decoder(Example).decode


class Replay:
    """One pass over a history, as one partition whose offsets number the events from 0."""

    def __init__(self, usecase: UseCase, limits: Events, scorer: Scorer | None) -> None:
        self._engine = Engine(usecase, limits, fixed(scorer))
        self.state = State(usecase, UNBOUNDED)

    @property
    def scoring_failures(self) -> int:
        """Batches that the model failed on."""
        return self._engine.scoring.failures

    def run(self, chunks: Iterable[Sequence[bytes]], now_ms: int) -> Iterator[Processed]:
        """Process ``chunks`` of encoded events in their order, at wall clock ``now_ms``; yields what each came to.

        Raises :class:`stream.engine.TooManyBadRecords`.
        """
        offset = 0
        for number, chunk in enumerate(chunks, 1):
            records = [FileRecord(at, 0, key_of(value), value) for at, value in enumerate(chunk, offset)]
            offset += len(records)
            if records:
                yield self._engine.process(self.state, records, now_ms)
            if number % SWEEP == 0:
                self.state.profiles.evict(offset)


def examples_of(usecase: UseCase, results: Iterable[Processed]) -> pa.Table:
    """The examples that matured in ``results``, as :mod:`model.examples` lays them out."""
    examples = [_example(value) for processed in results for value in processed.joined.examples]
    return table_of(examples, feature_spec(usecase))


class Period(msgspec.Struct, frozen=True):
    """Quality of the decisions of one UTC month by one model version: all, or those with one ``value`` of a ``slice``."""

    month: str
    model: str
    slice: str
    value: str
    decisions: int
    base_rate: float
    auc: float
    log_loss: float
    calibration_error: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay came to; counts are of events and decisions."""

    events: int
    bad: dict[str, int]  # by reason
    users: int  # whose profile is alive at the end
    decisions: dict[str, int]  # by model version
    scoring_failures: int
    examples: int
    positives: int
    samples: int  # decisions that the drift monitor is shown as scored
    matured_samples: int  # and with their label
    open: int  # decisions whose window had not closed when the events ended
    outcomes: dict[Outcomes, int]
    untracked: dict[Untracked, int]
    quality: list[Period]


class Tally:
    """Adds up what a replay yields."""

    def __init__(self, usecase: UseCase, replay: Replay) -> None:
        self._slices, self._replay = usecase.quality.slices, replay
        self._events = self._examples = self._positives = self._samples = self._matured = 0
        self._bad: Counter[str] = Counter()
        self._decisions: Counter[str] = Counter()
        self._outcomes: Counter[Outcomes] = Counter()
        self._untracked: Counter[Untracked] = Counter()
        # Of each closed decision, in columns; a history may have many millions.
        self._times, self._scores, self._labels = array("q"), array("f"), array("b")
        self._cohort = array("q")  # its number among the pairs of model version and slice values
        self._cohorts: dict[tuple[str, tuple[str | None, ...]], int] = {}

    def add(self, processed: Processed) -> None:
        """Take a chunk in."""
        joined = processed.joined
        self._events += processed.records
        self._bad.update(bad.reason.value for bad in processed.bad)
        self._decisions.update(score.model for score in processed.scores)
        self._examples += len(joined.examples)
        self._positives += joined.positives
        self._samples += len(joined.samples) - joined.matured
        self._matured += joined.matured
        self._outcomes.update(joined.outcomes)
        self._untracked.update(joined.untracked)
        for entry in joined.closed:
            self._times.append(entry.time)
            self._scores.append(entry.score)
            self._labels.append(entry.label)
            self._cohort.append(self._cohorts.setdefault((entry.model, entry.slices), len(self._cohorts)))

    def summary(self) -> Summary:
        """The sums so far, and the quality of every cohort that has closed."""
        return Summary(
            events=self._events,
            bad=dict(self._bad),
            users=len(self._replay.state.profiles),
            decisions=dict(self._decisions),
            scoring_failures=self._replay.scoring_failures,
            examples=self._examples,
            positives=self._positives,
            samples=self._samples,
            matured_samples=self._matured,
            open=len(self._replay.state.pending),
            outcomes=dict(self._outcomes),
            untracked=dict(self._untracked),
            quality=self._quality(),
        )

    def _quality(self) -> list[Period]:
        months = np.array(self._times, "datetime64[ms]").astype("datetime64[M]")
        score, label = np.array(self._scores, np.float32), np.array(self._labels, np.float32)
        groups: dict[tuple[str, str, str, str], list[NDArray[np.int64]]] = {}
        pairs, at = np.unique(np.stack([months.astype(np.int64), self._cohort]), axis=1, return_inverse=True)
        cohorts = list(self._cohorts)
        for number, (month, cohort) in enumerate(pairs.T.tolist()):
            positions = np.flatnonzero(at == number)
            (model, values), when = cohorts[cohort], str(np.datetime64(month, "M"))
            groups.setdefault((when, model, "", ""), []).append(positions)
            for name, value in zip(self._slices, values, strict=True):
                groups.setdefault((when, model, name, value or MISSING), []).append(positions)
        return [
            _period(group, score[rows], label[rows])
            for group, rows in ((group, np.concatenate(groups[group])) for group in sorted(groups))
        ]


def _period(group: tuple[str, str, str, str], score: Float32, label: Float32) -> Period:
    return Period(
        *group,
        decisions=len(label),
        base_rate=float(label.mean()),
        auc=auc(label, score),
        log_loss=log_loss(label, score),
        calibration_error=calibration_error(label, score),
    )
