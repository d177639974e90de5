"""The bench's topics: made, filled and counted."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from deploy.settings import Topics
from stream.producer import EventProducer
from tests.bench.workload import settings

PARTITIONS = Topics().partitions  # as users get them
READY_WITHIN_S = 30.0


def partitions(topic: str) -> list[TopicPartition]:
    """Return the partitions of a topic of the bench."""
    return [TopicPartition(topic, partition) for partition in range(PARTITIONS)]


def count(admin: AdminClient, topic: str) -> int:
    """Return the records of ``topic``, from its end offsets."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # confluent-kafka's own omission
    ends = admin.list_offsets(dict.fromkeys(partitions(topic), latest))
    return sum(int(end.result(30).offset) for end in ends.values())


def create(admin: AdminClient, topic: str) -> None:
    """Create ``topic`` with :data:`PARTITIONS` partitions; return when the broker leads each."""
    admin.create_topics([NewTopic(topic, num_partitions=PARTITIONS)])[topic].result(30)
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            count(admin, topic)
            return
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
            admin.list_topics(topic, timeout=READY_WITHIN_S)  # or the client may go on without its leaders


def fill(admin: AdminClient, broker: str, topic: str, values: Iterator[tuple[bytes, bytes]]) -> None:
    """Create ``topic`` and send (key, value) pairs to it, through the producer that we give to users."""
    create(admin, topic)
    with EventProducer(settings(broker, topic, topic)) as producer:
        for key, value in values:
            producer.send_encoded(key, value)
