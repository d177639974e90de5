"""A training job as the trainer sees it: a seam with two backends, a child process here and Ray's Jobs API.

A backend only starts, stops and looks; what a job should do is in its spec and what came of it in its result, both in
the registry. When to give one up is :mod:`retrain.supervision`'s business.
"""

from __future__ import annotations

import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from deploy.settings import Settings
from retrain.spec import JobSpec

LOG_BYTES = 64 * 1024  # of a job's log that are given: its end
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1"}  # TensorFlow's log starts at errors


class JobState(StrEnum):
    """Where a job is, by its backend's word, which may be out of date: a killed node leaves its jobs RUNNING for ever."""

    PENDING = "pending"  # waits for the cluster
    RUNNING = "running"
    SUCCEEDED = "succeeded"  # its process ended with 0; what came of it is in its result
    FAILED = "failed"
    STOPPED = "stopped"  # as somebody asked
    LOST = "lost"  # the backend knows no such job, or no more

    @property
    def ended(self) -> bool:
        """Whether it runs no more and never will."""
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED}


class JobError(RuntimeError):
    """A backend refuses, and will again: where, what came, what to do."""


class JobUnavailableError(JobError):
    """A backend does not answer, or not yet: whoever asked asks again later, and nothing is known of the job till then."""


class Backend(Protocol):
    """Where jobs run. Each call may raise :class:`JobUnavailableError`, which may pass, and :class:`JobError`."""

    def submit(self, spec: JobSpec) -> None:
        """Start the job, unless one with its id was ever started. Its spec is in the registry by then."""

    def state(self, job: str) -> JobState:
        """Where the job with that id is."""

    def stop(self, job: str) -> None:
        """End it, by force if it has to be; nothing happens if it has ended or is not known."""

    def log(self, job: str) -> str:
        """The end of what it printed; empty if there is none."""


def command(spec: JobSpec, python: str = sys.executable) -> tuple[str, ...]:
    """The process that does the job on one machine: the pipeline itself, or ranks that share the training."""
    module = "retrain.pipeline" if spec.workers == 1 else "retrain.ranks"
    return (python, "-m", module, spec.registry, spec.id)


def backend_of(settings: Settings) -> Backend:
    """The backend that ``trainer.backend`` names; raises :class:`JobError` if its token cannot be read."""
    if settings.trainer.backend == "ray":
        from retrain.ray_job import RayBackend  # noqa: PLC0415  # aiohttp takes .3 s, and local jobs do not need it

        return RayBackend(settings.trainer)
    from retrain.local_job import LocalBackend  # noqa: PLC0415  # it imports this module

    cache = settings.registry.cache
    return LocalBackend(Path(cache) / "jobs" if cache else Path(tempfile.mkdtemp(prefix="eddyline-jobs-")))
