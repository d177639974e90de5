"""Scoring: the decisions of a batch become ``scores`` records, with the features each was made from.

Called by ``stream/engine.py``. With no model the score is the decision's declared prior, under the model
version ``prior``; when a model fails on a batch, that batch gets priors too: scoring never stops.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.features import CategoryHasher, Features, FeatureSpec, Float32, Int32, feature_spec
from model.usecase import UseCase
from stream.events import Event

PRIOR = "prior"  # the model version of a score that no model gave

log = logging.getLogger(__name__)


class Scorer(Protocol):
    """A live model: :class:`model.scorer.LiteRTScorer`."""

    version: str

    def score(self, numeric: Float32, categorical: Int32) -> Float32:
        """Scores [n] of ``numeric`` [n, F] and ``categorical`` [n, C]."""
        ...


class Score(msgspec.Struct, frozen=True):
    """A record of the ``scores`` topic; its key is the user.

    ``id`` is the decision event's, so that the repeats which a crash can cause are told by it. ``model`` is the
    version that scored, ``profile_offset`` the source offset of the last event the features have seen (-1: none),
    ``features`` what was scored, by name, null for missing.
    """

    id: str
    type: str
    user: str
    item: str | None
    time: int  # ms since the epoch, the decision event's
    score: float
    model: str
    profile_offset: int
    features: dict[str, float | str | None]


class Scoring:
    """Scores the decisions of one use case with ``scorer``, or with priors while it is None."""

    def __init__(self, usecase: UseCase, scorer: Scorer | None) -> None:
        self._spec: FeatureSpec = feature_spec(usecase)
        self._names = [*self._spec.numeric, *(column.name for column in self._spec.categorical)]
        self._priors = {name: decision.prior for name, decision in usecase.decisions.items()}
        self._hash = CategoryHasher(self._spec)
        self.scorer = scorer
        self.failures = 0

    def __call__(
        self,
        events: Sequence[Event],
        features: Features,
        times: NDArray[np.int64],
        offsets: NDArray[np.int64],
    ) -> list[Score]:
        """One :class:`Score` a decision of ``events`` [n], from its ``features``; ``offsets`` are the profiles'."""
        model, values = self._values(events, features)
        # Exactly what was scored is logged: float32 as is, NaN as null.
        columns = [column.tolist() for column in features.numeric.T] + [list(c) for c in features.categorical]
        names = self._names
        return [
            Score(
                id=event.id,
                type=event.type,
                user=event.user,
                item=event.item,
                time=time,
                score=value,
                model=model,
                profile_offset=offset,
                features=dict(zip(names, row, strict=True)),
            )
            for event, time, value, offset, row in zip(
                events, times.tolist(), values, offsets.tolist(), zip(*columns, strict=True), strict=True
            )
        ]

    def _values(self, events: Sequence[Event], features: Features) -> tuple[str, list[float]]:
        if self.scorer is not None:
            try:
                ids = self._hash(features.categorical, len(features))
                values = self.scorer.score(features.numeric, ids)
                _finite(values)
                return self.scorer.version, values.tolist()
            except (ValueError, RuntimeError):
                self.failures += 1
                log.exception(
                    "model %s failed on %d decisions: priors instead", self.scorer.version, len(events)
                )
        return PRIOR, [self._priors[event.type] for event in events]


def _finite(values: Float32) -> None:
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise ValueError(f"{bad} of {len(values)} scores are not finite")
