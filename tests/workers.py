"""Worker and sink processes and what Kafka says about them, for the tests against a real broker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Self

import msgspec
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from deploy.settings import Settings, kafka_client
from deploy.topics import state_changelog
from stream.feedback import PREFIX
from stream.producer import EventProducer
from tests.events import USECASE

PATIENCE_S = 150.0


class _Process:
    """An ``eddyline`` command that takes a use case, in a process of its own; killed when the block ends."""

    command: str
    group: str  # the settings that hold its metrics port

    def __init__(self, settings: Settings, directory: Path, *options: str, usecase: str = USECASE) -> None:
        declared = directory / "usecase.toml"
        declared.write_text(usecase)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = directory / f"{self.command}-{self.port}.log"
        env = os.environ | {
            f"EDDYLINE_{group}_{name}".upper(): str(value)
            for group in settings.__struct_fields__
            for name, value in msgspec.structs.asdict(getattr(settings, group)).items()
        }
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "eddyline", self.command, str(declared), *options),
                    *(f"--{self.group}-metrics-port", str(self.port)),
                ],
                stdout=file,
                stderr=file,
                env=env,
            )

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples called ``name`` with ``labels``; 0 while the process does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2) as answer:
                text = answer.read().decode()
        except (OSError, urllib.error.URLError):
            return 0.0
        families = text_string_to_metric_families(text)
        samples = (sample for family in families for sample in family.samples if sample.name == name)
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Until ``condition`` holds; an error with its log if it ends or takes too long."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                logs = "\n".join(
                    f"{log.name}:\n{log.read_text(errors='replace')[-3000:]}"
                    for log in self.log.parent.glob("*.log")
                )
                raise AssertionError(f"{what}: {self.log.name} ended with {self.process.poll()}\n{logs}")
            time.sleep(0.05)

    def text(self) -> str:
        """What it printed."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Worker(_Process):
    """An ``eddyline worker``."""

    command, group = "worker", "engine"


class SinkProcess(_Process):
    """An ``eddyline sink``."""

    command, group = "sink", "sink"


class MonitorProcess(_Process):
    """An ``eddyline monitor``."""

    command, group = "monitor", "monitor"


class TrainerProcess(_Process):
    """An ``eddyline trainer``."""

    command, group = "trainer", "trainer"


def send(settings: Settings, events: list[dict[str, object]]) -> None:
    """Produce ``events`` as they are."""
    with EventProducer(settings) as producer:
        for each in events:
            producer.send_encoded(str(each["user"]).encode(), msgspec.json.encode(each))


def read(settings: Settings, topic: str) -> list[Message]:
    """Every record of ``topic`` that is there now, each partition in order."""
    consumer = Consumer(
        kafka_client(settings.kafka) | {"group.id": "none", "enable.partition.eof": False, "log_level": 0}
    )
    try:
        found: list[Message] = []
        for partition in consumer.list_topics(topic, timeout=20).topics[topic].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
            consumer.assign([TopicPartition(topic, partition, low)])
            while consumer.position([TopicPartition(topic, partition)])[0].offset < high and low < high:
                for message in consumer.consume(10_000, timeout=1.0):
                    assert message.error() is None
                    found.append(message)
        return found
    finally:
        consumer.close()


def lag(settings: Settings, topic: str = "", group: str = "") -> int:
    """Records of ``topic``, the events if not given, that the engine, or another ``group``, has not committed."""
    topic = topic or settings.topics.events
    consumer = Consumer(
        kafka_client(settings.kafka) | {"group.id": group or settings.engine.id, "log_level": 0}
    )
    try:
        partitions = [
            TopicPartition(topic, p) for p in consumer.list_topics(topic, timeout=20).topics[topic].partitions
        ]
        left = 0
        try:
            committed = consumer.committed(partitions, timeout=20)
        except KafkaException:  # a broker that is just starting has no coordinator yet: nothing is known
            return sys.maxsize
        for partition in committed:
            low, high = consumer.get_watermark_offsets(partition, timeout=20)
            left += high - max(low, partition.offset)
        return left
    finally:
        consumer.close()


def changelog(settings: Settings) -> dict[bytes, bytes]:
    """The profiles that a new worker would restore: of each user the row written last."""
    rows: dict[bytes, bytes] = {}
    for message in read(settings, state_changelog(settings.engine.id)):
        key, value = message.key(), message.value()
        assert isinstance(key, bytes)
        if key.startswith(PREFIX):
            continue
        if value is None:
            rows.pop(key, None)
        else:
            assert isinstance(value, bytes)
            rows[key] = value
    return rows
