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
    GROWTH = "growth"  # so many more labels than the live model knows: `growth` of the same
    HAND = "hand"  # `eddyline retrain`
    PROGRAM = "program"  # POST /retrain, or a record of the requests topic that is not ours


PEOPLE = frozenset({Trigger.HAND, Trigger.PROGRAM})  # who ask by the requests topic


class Weighting(StrEnum):
    """Which examples are trained on, and how much each counts (:mod:`retrain.dataset`)."""

    SINCE = "since"  # those since the change: what was learned before no longer holds
    IMPORTANCE = "importance"  # all of the window, weighted to look like those since the change
    ROLLING = "rolling"  # the window before now, as [training] of the use case says


class RetrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A wish for a new model; two with one ``id`` are one. ``asked`` is ms of the asker's clock.

    ``since`` is the first moment, ms of event time, of the data that it is about, from which labels are counted; with
    ``rolling`` it may be None: all of the window. ``verdict`` is the drift verdict that asks, in its ``revision``, ``model``
    the version that it judged, ``slice`` and ``value`` where the drift was (empty: everywhere). ``urgent`` skips cooldown
    and budget, which only a person may ask.
    """

    id: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9._:-]{1,120}$")]
    trigger: Trigger
    reason: str
    by: str
    asked: Annotated[int, Meta(ge=0)]
    weighting: Weighting = Weighting.ROLLING
    since: int | None = None
    verdict: str = ""
    revision: int = 0
    model: str = ""
    slice: str = ""
    value: str = ""
    labels: Annotated[int, Meta(ge=0, le=1_000_000_000)] = (
        0  # that must be known since `since`; 0: as many as [retrain] says
    )
    urgent: bool = False


class State(StrEnum):
    """What became of a request so far."""

    # Refused for now, and decided on again: too few labels, cooldown, budget, another job.
    WAITING = "waiting"
    BLOCKED = "blocked"  # the data is at fault: decided on again once that has ended
    REFUSED = "refused"  # for good: pinned, overtaken by a newer one, no longer called for
    RUNNING = "running"
    FAILED = "failed"
    KEPT = "kept"  # trained, and the gate kept the live model
    STAGED = "staged"  # passed the gate and scores beside, in the shadow or as a canary
    RELEASED = "released"  # live
    ROLLED_BACK = "rolled-back"  # was live, and the watch found it worse than the model before

    @property
    def final(self) -> bool:
        """Whether nothing more comes of it."""
        return self in {State.REFUSED, State.FAILED, State.KEPT, State.RELEASED, State.ROLLED_BACK}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the ``retrains`` topic. ``at`` is ms of the trainer's clock, ``labels`` what was known since the change.

    ``job`` is the last attempt's submission id, ``generation`` what it may publish with, ``seconds`` what training took
    over all attempts so far. ``version`` is what they make; ``ended`` and ``gate`` come with its end.
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
    ended: int | None = None
    version: str = ""
    gate: GateDecision | None = None


class RequestError(ValueError):
    """A record of the requests topic is no request: the rule, what came."""


_decode = msgspec.json.Decoder(RetrainRequest).decode
_recall = msgspec.json.Decoder(Record).decode


def decode(value: bytes | str | None) -> RetrainRequest:
    """The request in a record of the requests topic; raises :class:`RequestError`."""
    try:
        request = _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"not a request to retrain: {error}") from error
    check(request)
    return request


def check(request: RetrainRequest) -> None:
    """Raise :class:`RequestError` unless ``request`` is one that may come by the topic."""
    if request.trigger not in PEOPLE:
        named = " or ".join(sorted(PEOPLE))
        raise RequestError(
            f"`trigger` is {named} in what others ask for, got {request.trigger}: verdicts and the calendar ask by themselves"
        )
    if request.urgent and request.trigger is not Trigger.HAND:
        raise RequestError(
            "`urgent` skips cooldown and budget, which only a person may ask: `eddyline retrain --urgent`"
        )
    if request.since is None and request.weighting is not Weighting.ROLLING:
        raise RequestError(
            f"`weighting` {request.weighting} needs `since`, the first moment of the new data in ms"
        )


def recalled(value: bytes | str | None) -> Record:
    """The record of the ``retrains`` topic in ``value``; raises :class:`RequestError`."""
    try:
        return _recall(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"not a record of what became of a request: {error}") from error
