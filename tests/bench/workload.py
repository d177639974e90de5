"""The bench's events: what they are, from a fixed seed; and the model trained on them.

About 170 bytes of JSON each; 70 % pages, 10 % quizzes, 10 % submissions, and 10 % decisions (``due``).
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from deploy.settings import Engine, Events, Kafka, Settings, Topics
from model import usecase
from stream.replay import Replay, examples_of
from tests.bench.report import ROOT

USECASE = Path(__file__).with_name("usecase.toml")
TYPES, SHARES = ("page", "quiz", "submitted", "due"), (0.7, 0.1, 0.1, 0.1)
START_MS, SPAN_MS = (
    1_700_000_000_000,
    180 * 86_400_000,
)  # the workload's first event time, and how far it reaches
SEED = 20_260_101
CHUNK = 50_000
PAGES, ITEMS, MODULES = 500, 40, 20
TRAINING_EVENTS = 200_000


class Event(NamedTuple):
    """An event but for its id and time: ``value`` is its JSON from the type on."""

    key: bytes
    value: bytes
    decision: bool

    def encoded(self, identity: str, time_ms: int) -> bytes:
        """Return the event's JSON."""
        return b'{"id":"%s","time":%d,%s' % (identity.encode(), time_ms, self.value)


class Workload(NamedTuple):
    """``events`` events of ``users`` users drawn uniformly; equal arguments, equal events."""

    events: int
    users: int
    seed: int = SEED

    def drawn(self) -> Iterator[Event]:
        """Yield the events in order of time."""
        random = np.random.default_rng(self.seed)
        for begin in range(0, self.events, CHUNK):
            n = min(CHUNK, self.events - begin)
            users = random.integers(0, self.users, n).tolist()
            kinds = random.choice(len(TYPES), n, p=SHARES).tolist()
            numbers = random.integers(0, 1 << 30, n).tolist()
            for user, kind, number in zip(users, kinds, numbers, strict=True):
                yield _event(user, TYPES[kind], number)

    def values(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) of each event, ids by number, times spread evenly over :data:`SPAN_MS`."""
        step = SPAN_MS / self.events
        for number, event in enumerate(self.drawn()):
            yield event.key, event.encoded(f"bench-event-{number:012d}", START_MS + int(number * step))

    @property
    def decisions(self) -> int:
        """Events among them that are decisions."""
        return sum(event.decision for event in self.drawn())


def _event(user: int, kind: str, number: int) -> Event:
    name = f"learner-{user:07d}"
    module = f"module-{number % MODULES:02d}"
    if kind == "page":
        detail = f'"item":"{module}/page-{number % PAGES:04d}","value":{1 + number % 9}.0'
        context = f'{{"module":"{module}"}}'
    elif kind == "due":
        detail = f'"item":"{module}/assessment-{number % ITEMS:03d}"'
        test = "exam" if number % 4 == 0 else "assignment"
        context = f'{{"module":"{module}","kind":"{test}","weight":{number % 41}.5}}'
    else:
        detail = f'"item":"{module}/assessment-{number % ITEMS:03d}","value":{number % 1000 / 10}'
        context = f'{{"module":"{module}"}}'
    value = f'"type":"{kind}","user":"{name}",{detail},"context":{context}}}'
    return Event(name.encode(), value.encode(), kind == "due")


def everyone(users: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, value) of one event of each of ``users`` users, none a decision."""
    random = np.random.default_rng(SEED)
    numbers = random.integers(0, 1 << 30, users).tolist()
    for user, number in enumerate(numbers):
        event = _event(user, "page", number)
        yield event.key, event.encoded(f"bench-event-{user:012d}", START_MS + user)


def settings(broker: str, name: str, events: str = "") -> Settings:
    """Return the engine's settings for a run ``name`` on topic ``events``, with topics of its own for the rest."""
    topics = Topics(
        events=events or f"{name}-events",
        scores=f"{name}-scores",
        examples=f"{name}-examples",
        dead_letters=f"{name}-dead-letters",
    )
    return Settings(kafka=Kafka(bootstrap_servers=broker), topics=topics, engine=Engine(id=name))


def train(workload: Workload, directory: Path) -> Path:
    """Train the bench's model on the first part of ``workload`` and return its bundle, made once a ``directory``."""
    bundle = directory / "model"
    if bundle.exists():
        return bundle
    declared = usecase.load(USECASE)
    values = [value for _, value in itertools.islice(workload.values(), TRAINING_EVENTS)]
    chunks = (values[begin : begin + CHUNK] for begin in range(0, len(values), CHUNK))
    results = Replay(declared, Events(), None).run(chunks, int(time.time() * 1000))
    examples = directory / "examples.parquet"
    pq.write_table(examples_of(declared, results), examples)
    command = [sys.executable, "-m", "eddyline", "train", USECASE, examples, "--out", bundle]
    with (directory / "training.log").open("wb") as log:
        subprocess.run(
            [*map(str, command), "--version", "1", "--seed", "0", "--epochs", "3"],
            check=True,
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    return bundle
