"""Scoring: the decisions of a batch become ``scores`` records, with the features each was made from.

Called by ``stream/engine.py``. What scores is read once a batch, so no batch is scored by half of a change. With no model
the score is the decision's declared prior, under the model version ``prior``; when a model fails on a batch, that batch
gets priors too: scoring never stops. A model beside that fails is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from deploy.live import PRIOR, ROWS, Live, Model, Source, positions
from deploy.release import Role
from model.features import CategoryHasher, Features, FeatureSpec, Float32, Int32, feature_spec
from model.usecase import UseCase
from stream.events import Event

log = logging.getLogger(__name__)


class Other(msgspec.Struct, frozen=True, gc=False):
    """What another model says of the same decision: its version, and its score as it would be served."""

    model: str
    score: float


class Score(msgspec.Struct, frozen=True):
    """A record of the ``scores`` topic; its key is the user.

    ``id`` is the decision event's, so that the repeats which a crash can cause are told by it. ``model`` is the
    version that scored, ``profile_offset`` the source offset of the last event the features have seen (-1: none),
    ``features`` what was scored, by name, null for missing.

    ``uncorrected`` is the model's own score, while it is served with a prior correction; ``beside`` is what the other
    model says, if there is one and the user is in its share. Both are left out where there is none.
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
    uncorrected: float | UnsetType = UNSET
    beside: Other | UnsetType = UNSET


class _Served:
    """What the decisions of a batch [n] are served: by one ``model``, but for what the lists say, if there are any."""

    def __init__(self, model: str, scores: list[float], uncorrected: list[float] | None = None) -> None:
        self.model, self.scores = model, scores
        self.models: list[str] | None = None
        self.uncorrected: list[float | UnsetType] | None = None if uncorrected is None else [*uncorrected]
        self.beside: list[Other | UnsetType] | None = None

    @property
    def plain(self) -> bool:
        """One model, no correction, and nothing beside."""
        return self.models is None and self.uncorrected is None and self.beside is None

    def note(self, chosen: list[int], model: Model, own: Float32) -> None:
        """Note what ``model`` says of the ``chosen`` decisions [k], by its ``own`` scores [k] of them."""
        beside: list[Other | UnsetType] = [UNSET] * len(self.scores)
        for position, value in zip(chosen, model.served(own).tolist(), strict=True):
            beside[position] = Other(model.version, value)
        self.beside = beside

    def give_way(self, chosen: list[int], model: Model, own: Float32) -> None:
        """Serve ``model`` to the ``chosen`` decisions [k], and note what would have been served."""
        n = len(self.scores)
        models, uncorrected = [self.model] * n, self.uncorrected
        beside: list[Other | UnsetType] = [UNSET] * n
        if uncorrected is None and model.correction is not None:
            uncorrected = [UNSET] * n
        for position, value, its_own in zip(chosen, model.served(own).tolist(), own.tolist(), strict=True):
            beside[position] = Other(self.model, self.scores[position])
            self.scores[position], models[position] = value, model.version
            if uncorrected is not None:
                uncorrected[position] = UNSET if model.correction is None else its_own
        self.models, self.uncorrected, self.beside = models, uncorrected, beside


class Scoring:
    """Scores the decisions of one use case with what ``source`` has live."""

    def __init__(self, usecase: UseCase, source: Source) -> None:
        self._spec: FeatureSpec = feature_spec(usecase)
        self._names = [*self._spec.numeric, *(column.name for column in self._spec.categorical)]
        self._priors = {name: decision.prior for name, decision in usecase.decisions.items()}
        self._hash = CategoryHasher(self._spec)
        self._source = source
        self._told: tuple[int, str] | None = (
            None  # the release and the version beside whose failure is logged
        )
        self.failures = 0  # batches that the live model failed on
        self.beside_failures = 0  # and the one beside
        self.beside_scores = 0  # decisions that it scored

    def __call__(
        self,
        events: Sequence[Event],
        features: Features,
        times: NDArray[Any],
        offsets: NDArray[Any],
    ) -> list[Score]:
        """One :class:`Score` a decision of ``events`` [n], from its ``features``; ``offsets`` are the profiles'."""
        served = self._served(events, features)
        # Exactly what was scored is logged: float32 as is, NaN as null.
        columns = [column.tolist() for column in features.numeric.T] + [list(c) for c in features.categorical]
        rows = zip(*columns, strict=True)
        names, model = self._names, served.model
        # What most batches are is written out: each field more costs every decision.
        scores = [
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
                events, times.tolist(), served.scores, offsets.tolist(), rows, strict=True
            )
        ]
        return scores if served.plain else _completed(scores, served)

    def _served(self, events: Sequence[Event], features: Features) -> _Served:
        live = self._source.current
        if live.model is None and live.beside is None:
            last = [column[-ROWS:] for column in features.categorical]
            numeric = features.numeric[-ROWS:]
            self._source.scored(numeric, self._hash(last, len(numeric)))  # for the first model that comes
            return self._prior(events)
        ids = self._hash(features.categorical, len(features))
        served = self._by_model(live.model, events, features.numeric, ids)
        if live.beside is not None and (served.model != PRIOR or live.model is None):
            self._look_beside(live, events, features.numeric, ids, served)
        return served

    def _prior(self, events: Sequence[Event]) -> _Served:
        return _Served(PRIOR, [self._priors[event.type] for event in events])

    def _by_model(
        self, model: Model | None, events: Sequence[Event], numeric: Float32, ids: Int32
    ) -> _Served:
        if model is None:
            return self._prior(events)
        try:
            own = model.score(numeric, ids)
        except (ValueError, RuntimeError):
            self.failures += 1
            log.exception("model %s failed on %d decisions: priors instead", model.version, len(events))
            return self._prior(events)
        self._source.scored(numeric, ids)
        if model.correction is None:
            return _Served(model.version, own.tolist())
        return _Served(model.version, model.served(own).tolist(), own.tolist())

    def _look_beside(
        self, live: Live, events: Sequence[Event], numeric: Float32, ids: Int32, served: _Served
    ) -> None:
        """Let the model beside score its share of the batch: a canary's scores are served, others' are noted."""
        beside = live.beside
        chosen = positions([event.user for event in events], live.share)
        if beside is None or not chosen:
            return
        try:
            own = beside.score(numeric[chosen], ids[chosen])
        except Exception:  # whatever it is, the live model's scores are there
            self.beside_failures += 1
            if self._told != (which := (live.release.number, beside.version)):
                self._told = which
                log.exception("model %s beside failed on %d decisions: left out", beside.version, len(chosen))
            return
        self.beside_scores += len(chosen)
        if live.role is Role.CANARY:
            served.give_way(chosen, beside, own)
        else:
            served.note(chosen, beside, own)


def _completed(scores: list[Score], served: _Served) -> list[Score]:
    """The ``scores`` [n] with what is not the same for all of them."""
    n = len(scores)
    models = served.models or [served.model] * n
    uncorrected = served.uncorrected or [UNSET] * n
    beside = served.beside or [UNSET] * n
    replace = msgspec.structs.replace
    return [
        replace(score, model=model, uncorrected=own, beside=other)
        for score, model, own, other in zip(scores, models, uncorrected, beside, strict=True)
    ]
