"""Announcing a release on the ``models`` topic, so that workers look at once. Called by the trainer and ``eddyline models``.

The registry alone says what is live. An announcement that is lost costs a worker ``registry.poll_s``, and one that is late
or of an older release costs it a look: it reads the registry whatever the record says.
"""

from __future__ import annotations

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from deploy.release import Release
from deploy.settings import Kafka, kafka_producer

TIMEOUT_S = (
    10.0  # at most, however patient kafka.delivery_timeout_s is: workers find the release by themselves
)


class AnnounceError(RuntimeError):
    """The release was not announced; it holds all the same."""


def announce(kafka: Kafka, topic: str, usecase: str, release: Release) -> None:
    """Write ``release`` to ``topic`` under the name of its use case; raises :class:`AnnounceError` if no broker takes it."""
    failures: list[str] = []

    def delivered(error: KafkaError | None, _record: Message) -> None:
        if error is not None:
            failures.append(error.str())

    timeout_s = min(TIMEOUT_S, kafka.delivery_timeout_s)
    limits = {"delivery.timeout.ms": max(1, int(timeout_s * 1000)), "linger.ms": 0, "on_delivery": delivered}
    try:
        producer = Producer(kafka_producer(kafka) | limits)
        producer.produce(topic, key=usecase, value=msgspec.json.encode(release))
        unsent = producer.flush(timeout_s + 1)  # librdkafka gives up first, and says why
    except KafkaException as error:
        failures.append(str(error.args[0]))
        unsent = 0
    if failures or unsent:
        why = failures[0] if failures else "no broker answered"
        raise AnnounceError(
            f"release {release.number} was not announced on {topic} of kafka.bootstrap_servers = "
            f"{kafka.bootstrap_servers} within {timeout_s:g} s: {why}"
        )
