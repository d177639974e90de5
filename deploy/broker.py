"""The embedded broker: librdkafka's in-process mock cluster, so that the demo needs nothing installed.

It keeps everything in memory, about 5 MiB a partition, and knows no CreateTopics: for demos, never for data.
"""

from __future__ import annotations

from confluent_kafka import Producer

PARTITIONS = 4  # what the mock cluster gives every topic


class EmbeddedBroker:
    """A mock cluster that lives as long as this object."""

    def __init__(self) -> None:
        self._cluster = Producer(
            {"test.mock.num.brokers": 1, "bootstrap.servers": "embedded", "log_level": 0}
        )
        brokers = self._cluster.list_topics(timeout=10).brokers.values()
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def create(self, topics: list[str]) -> None:
        """Make ``topics`` exist: the mock cluster creates a topic when it is first asked about."""
        for topic in topics:
            self._cluster.list_topics(topic, timeout=10)
