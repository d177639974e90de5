"""The arena: one broker, the topics on it, and jobs for the contestants; what every measurement is made in."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.bench import topics
from tests.bench.contestants import BenchError, Contestant, Running
from tests.bench.job import Job

POLL_S = 0.05
PATIENCE_S = 900.0  # until a contestant's silence is a failure
ID = re.compile(rb'"id":\s*"([^"]+)"')
SCORE = re.compile(rb'"score":\s*([-+.\deE]+)')


class Scored(NamedTuple):
    """A record of a scores topic: the decision's id, its score, and when it was here (seconds since the epoch)."""

    id: str
    score: float
    at: float


class Arena:
    """A broker at ``broker``, a model ``bundle`` and a ``directory`` for what the runs leave behind."""

    def __init__(self, broker: str, bundle: Path, directory: Path) -> None:
        self.broker, self._bundle, self._directory = broker, bundle, directory
        self._admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def job(self, contestant: Contestant, events: str) -> Iterator[Job]:
        """Give a job of its own on topic ``events``; its topics are deleted afterwards, so that later runs are alike."""
        name = f"{contestant.name}-{next(self._numbers):03d}"
        state = self._directory / name
        state.mkdir()
        job = Job(
            broker=self.broker,
            events=events,
            scores=f"{name}-scores",
            partitions=str(topics.PARTITIONS),
            name=name,
            model=str(self._bundle),
            state=str(state),
        )
        self.create(job.scores)
        try:
            yield job
        finally:
            own = [topic for topic in self._admin.list_topics(timeout=30).topics if name in topic]
            for future in self._admin.delete_topics(own).values() if own else ():
                future.result(30)

    def create(self, topic: str) -> None:
        """Create ``topic``."""
        topics.create(self._admin, topic)

    def fill(self, topic: str, values: Iterator[tuple[bytes, bytes]]) -> None:
        """Create ``topic`` and send (key, value) pairs to it."""
        topics.fill(self._admin, self.broker, topic, values)

    def await_count(self, running: Running, topic: str, count: int) -> int:
        """Wait until ``topic`` has ``count`` records; returns how many there are then."""
        deadline = time.monotonic() + PATIENCE_S
        while (present := topics.count(self._admin, topic)) < count:
            running.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{running.name}: {present} of {count} scores after {PATIENCE_S:.0f} s")
            time.sleep(POLL_S)
        return present

    def scores(self, topic: str, until: Callable[[], bool]) -> Iterator[Scored]:
        """Yield what arrives in ``topic``, from its beginning on, until ``until`` says so while nothing arrives."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.broker,
                "group.id": "bench",
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        consumer.assign([TopicPartition(at.topic, at.partition, 0) for at in topics.partitions(topic)])
        try:
            while True:
                message = consumer.poll(POLL_S)
                if message is None:
                    if until():
                        return
                    continue
                value = message.value()
                assert value is not None, message.error()
                identity, score = ID.search(value), SCORE.search(value)
                assert identity is not None
                assert score is not None
                yield Scored(identity[1].decode(), float(score[1]), time.time())
        finally:
            consumer.close()
