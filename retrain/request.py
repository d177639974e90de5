"""Requests to retrain, and what became of each: values that the trainer reads, decides on, and records.

A request comes from a verdict, the calendar, a person or another program; :mod:`retrain.policy` decides on it, and each
change of its state is a record of the ``retrains`` topic, keyed by its id. The last one holds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from retrain.gate import GateDecision


class Trigger(StrEnum):
    """Who asks."""

    VERDICT = "verdict"  # the drift monitor
    SCHEDULE = "schedule"  # `every` of the use case's [retrain]
    HAND = "hand"  # `eddyline retrain`
    PROGRAM = "program"  # POST /retrain, or a record of the requests topic that is not ours


class Weighting(StrEnum):
    """Which examples are trained on, and how much each counts (:mod:`retrain.dataset`)."""

    SINCE = "since"  # those since the change: what was learned before no longer holds
    IMPORTANCE = "importance"  # all of the window, weighted to look like those since the change
    ROLLING = "rolling"  # the window before now, as [training] of the use case says


class RetrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A wish for a new model; two with one ``id`` are one. ``asked`` is ms of the asker's clock.

    ``since`` is the first moment, ms of event time, of the data that it is about; None with ``rolling``. ``verdict`` is the
    drift verdict that asks, ``model`` the version that it judged, ``slice`` and ``value`` where the drift was (empty: everywhere).
    ``urgent`` skips cooldown and budget, which only a person may ask.
    """

    id: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9._:-]{1,120}$")]
    trigger: Trigger
    reason: str
    by: str
    asked: int
    weighting: Weighting = Weighting.ROLLING
    since: int | None = None
    verdict: str = ""
    model: str = ""
    slice: str = ""
    value: str = ""
    labels: int = 0  # that must be known since `since`; 0: as many as [retrain] says
    urgent: bool = False


class State(StrEnum):
    """What became of a request so far."""

    WAITING = (
        "waiting"  # refused for now, and decided on again: too few labels, cooldown, budget, another job
    )
    BLOCKED = "blocked"  # the data is at fault: decided on again once that has ended
    REFUSED = "refused"  # for good: pinned, overtaken by a newer one, no longer called for
    RUNNING = "running"
    FAILED = "failed"
    KEPT = "kept"  # trained, and the gate kept the live model
    STAGED = "staged"  # passed the gate and scores beside, in the shadow or as a canary
    RELEASED = "released"  # live

    @property
    def final(self) -> bool:
        """Whether nothing more comes of it."""
        return self in {State.REFUSED, State.FAILED, State.KEPT, State.RELEASED}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the ``retrains`` topic. ``at`` is ms of the trainer's clock, ``labels`` what was known since the change.

    ``job`` is the last attempt's submission id, ``generation`` what it may publish with, ``seconds`` what training took
    over all attempts so far; ``version`` and ``gate`` come with its end.
    """

    request: RetrainRequest
    state: State
    reasons: tuple[str, ...]
    at: int
    labels: int | None = None
    attempt: int = 0
    job: str = ""
    generation: int = 0
    started: int | None = None
    seconds: float = 0.0
    version: str = ""
    gate: GateDecision | None = None
