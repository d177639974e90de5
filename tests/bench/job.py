"""One run's job as a contestant gets it, in environment variables: the standard library alone, for every environment."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

PREFIX = "BENCH_"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Where to read, where to write, under which name, with which model."""

    broker: str  # host:port
    events: str  # topic
    scores: str  # topic, as many partitions as `events`
    partitions: str
    name: str  # consumer group, engine id, prefix of changelogs
    model: str  # the bundle's directory
    state: str  # a new, empty directory of this run

    @classmethod
    def read(cls) -> Job:
        """Return the job that :meth:`environment` described."""
        return cls(**{name: os.environ[PREFIX + name.upper()] for name in cls.__dataclass_fields__})

    def environment(self) -> dict[str, str]:
        """Return this process's environment and the job."""
        return {**os.environ, **{PREFIX + name.upper(): value for name, value in asdict(self).items()}}

    @property
    def bundle(self) -> Path:
        """The model bundle's directory."""
        return Path(self.model)
