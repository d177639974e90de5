"""Verdicts on drift, as far as the trainer reads them: the records of the ``drift`` topic, ``docs/drift.md``.

:mod:`retrain.policy` and :mod:`retrain.corrections` act on them, :mod:`retrain.app` reads them. What they do not need is
not named here, so the monitor may tell more without the trainer's knowing.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class VerdictError(ValueError):
    """A record of the topic is no verdict: what is wrong with it."""


class Kind(StrEnum):
    """What changed."""

    COVARIATE = "covariate"
    LABEL = "label"
    CONCEPT = "concept"
    MIXED = "mixed"
    UNDETERMINED = "undetermined"
    FAULT = "data-fault"


SINGLE = 3  # kinds that can be refuted: covariate, label, concept


class Action(StrEnum):
    """What the drift calls for."""

    WAIT = "wait"
    CORRECT_PRIOR = "correct-prior"
    KEEP = "keep"
    RETRAIN = "retrain"
    BLOCK = "block"


class Response(msgspec.Struct, frozen=True):
    """The action and why; ``since`` is the first moment, ms of event time, of the data that it concerns."""

    action: Action
    reason: str
    since: int


class Estimate(msgspec.Struct, frozen=True):
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Fault(msgspec.Struct, frozen=True):
    """A check of the data that failed."""

    check: str
    column: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an episode of drift; the highest ``revision`` of an ``id`` holds. Times are ms of event time."""

    id: str
    revision: int
    final: bool
    usecase: str
    model: str
    slice: str  # "" for all decisions
    value: str
    alarmed: int
    changed: int
    kind: Kind
    kinds: tuple[Kind, ...]
    response: Response
    prior_before: float
    prior_fitted: Estimate | None
    prior_counted: Estimate | None
    faults: tuple[Fault, ...] = ()

    @property
    def where(self) -> str:
        """What was watched, in words."""
        return f"{self.slice} = {self.value}" if self.slice else "all decisions"

    @property
    def blocking(self) -> bool:
        """Whether the data is at fault, and still is as far as the episode knows."""
        return self.response.action is Action.BLOCK and not self.final


_decode = msgspec.json.Decoder(Verdict).decode


def decode(value: bytes | str | None) -> Verdict:
    """The verdict in ``value``; raises :class:`VerdictError`."""
    try:
        return _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VerdictError(f"not a record of the drift topic: {error}") from error


def newest(verdicts: Iterable[Verdict]) -> dict[str, Verdict]:
    """Of each id the last revision, in order of their first."""
    found: dict[str, Verdict] = {}
    for verdict in verdicts:
        if verdict.id not in found or verdict.revision >= found[verdict.id].revision:
            found[verdict.id] = verdict
    return found
