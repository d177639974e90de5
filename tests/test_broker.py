"""Facts about the tests' own Kafka, tests/broker.py."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.broker import Broker, BrokerError

PARTITIONS = 4
WITHIN_S = 30.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One node, shared by the tests of this module."""
    with Broker.start(tmp_path_factory.mktemp("kafka")) as running:
        yield running


def create(broker: Broker, topic: str) -> None:
    """Create a topic with the cluster's default replication."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(topic, num_partitions=PARTITIONS)])[topic].result(WITHIN_S)


def produce(broker: Broker, topic: str, values: list[bytes]) -> None:
    """Write one record a value and return when the cluster has acknowledged them all, each once."""
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refused.append(error)

    producer = Producer(
        {"bootstrap.servers": broker.bootstrap, "acks": "all", "enable.idempotence": True, "log_level": 0}
    )
    for value in values:
        producer.produce(topic, value, key=value, on_delivery=delivered)
    assert 0 == producer.flush(WITHIN_S)
    assert [] == refused


def read(broker: Broker, topic: str, count: int) -> list[bytes]:
    """Read a topic from its start, and return the values in order of value, not of arrival."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "unused",  # required, though nothing is committed
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    values: list[bytes] = []
    deadline = time.monotonic() + WITHIN_S
    while len(values) < count and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            value = message.value()
            assert isinstance(value, bytes)
            values.append(value)
    consumer.close()
    return sorted(values)


def numbered(start: int, stop: int) -> list[bytes]:
    """Return distinct values that sort as they count."""
    return [b"%06d" % number for number in range(start, stop)]


def test_round_trip(broker: Broker) -> None:
    """A one-node cluster returns the record that was written to it."""
    create(broker, "round-trip")
    produce(broker, "round-trip", [b"hello"])

    assert [b"hello"] == read(broker, "round-trip", 1)


def test_restart(broker: Broker) -> None:
    """A node that was killed comes back on its ports with its data."""
    bootstrap = broker.bootstrap
    create(broker, "restart")
    produce(broker, "restart", numbered(0, 100))

    broker.kill()
    broker.restart()

    assert bootstrap == broker.bootstrap
    assert numbered(0, 100) == read(broker, "restart", 100)


def test_failed_start(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A node that cannot start, here for want of formatted storage, says so with the end of its log."""
    broker = Broker(tmp_path_factory.mktemp("kafka"), nodes=1)

    with pytest.raises(
        BrokerError, match=r"(?s)node 0 ended with exit status 1; .*kafka.log ends:.*meta.properties"
    ):
        broker.restart()


def test_three_nodes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Three nodes lose no acknowledged record and take new ones when one is killed, and it can come back."""
    with Broker.start(tmp_path_factory.mktemp("kafka"), nodes=3) as cluster:
        create(cluster, "survives")
        produce(cluster, "survives", numbered(0, 500))
        cluster.kill(0)
        produce(cluster, "survives", numbered(500, 1000))

        assert numbered(0, 1000) == read(cluster, "survives", 1000)

        cluster.restart(0)
        assert numbered(0, 1000) == read(cluster, "survives", 1000)
