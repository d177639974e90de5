"""A training job's order and its answer: values that the trainer and the job's process leave each other in the registry.

In the registry under :attr:`JobSpec.folder`: ``spec.json`` once, ``heartbeat.json`` again and again, ``result.json`` at the
end; and what all attempts at one request share, under :attr:`JobSpec.checkpoints`. So a job needs nothing of the machine
that ordered it but the registry and the example log.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from deploy.release import Placed
from retrain.gate import GateDecision
from retrain.request import RetrainRequest


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to train. ``usecase`` is the file's text; ``examples`` and ``registry`` are URLs that the job can reach.

    ``as_of`` is ms of event time, None for all that the examples tell. ``champion`` is what the challenger has to beat
    and starts from, with the correction in force. ``workers`` processes share the training, each with ``gpus``.
    ``attempt`` counts from 1: each is a job of its own, since a cluster takes no id twice, and goes on from the checkpoint
    of the one before.
    """

    request: RetrainRequest
    attempt: Annotated[int, Meta(ge=1)] = 1
    version: str
    generation: int
    usecase: str
    examples: str
    registry: str
    champion: Placed | None
    as_of: int | None = None
    seed: int = 0
    workers: int = 1
    gpus: int = 0

    @property
    def id(self) -> str:
        """The job's, unlike that of any other request's or attempt's."""
        return f"{self.request.id}-{self.attempt}"

    @property
    def folder(self) -> str:
        """Where in the registry this attempt's spec, heartbeat and result are."""
        return folder(self.id)

    @property
    def checkpoints(self) -> str:
        """Where in the registry the checkpoints of all attempts at the request are."""
        return checkpoints(self.request.id)


def folder(job: str) -> str:
    """Where in the registry the spec, heartbeat and result of the job with that id are."""
    return f"jobs/{job}"


def checkpoints(request: str) -> str:
    """Where in the registry the checkpoints of all attempts at the request with that id are."""
    return f"jobs/{request}/checkpoint"


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
