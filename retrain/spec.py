"""A training job's order and its answer: values that the trainer and the job's process leave each other in the registry.

Under ``jobs/<id>/`` of the registry: ``spec.json`` once, ``heartbeat.json`` again and again, ``checkpoint/`` while it fits,
``result.json`` at the end. So a job needs nothing of the machine that ordered it but the registry and the example log.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from deploy.release import Placed
from retrain.gate import GateDecision
from retrain.request import RetrainRequest


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to train. ``usecase`` is the file's text; ``examples`` and ``registry`` are URLs that the job can reach.

    ``as_of`` is ms of event time, None for all that the examples tell. ``champion`` is what the challenger has to beat
    and starts from, with the correction in force. ``workers`` processes share the training.
    """

    id: str
    request: RetrainRequest
    version: str
    generation: int
    usecase: str
    examples: str
    registry: str
    champion: Placed | None
    as_of: int | None = None
    seed: int = 0
    workers: int = 1
    gpus: float = 0.0


class Phase(StrEnum):
    """What a job is at."""

    STARTING = "starting"
    READING = "reading"
    SEARCHING = "searching"
    FITTING = "fitting"
    JUDGING = "judging"
    STORING = "storing"


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """A sign of life; ``at`` is s since the epoch by the job's clock, so it is compared with an earlier one, not with ours."""

    at: float
    phase: Phase
    epoch: int = 0
    epochs: int = 0  # at most
    loss: float | None = None
    rows: int = 0


class JobResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended: with a stored version and the gate's decision on it, or with an ``error`` that says what to do.

    A version is stored even if it does not pass, so that it can be looked at; without a champion to beat it passes on its own.
    """

    error: str = ""
    placed: Placed | None = None
    gate: GateDecision | None = None
    rows: int = 0
    seconds: float = 0.0
