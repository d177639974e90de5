"""What our confluent-kafka consumers share: their configuration, their errors' meaning, commits, whole topics.

:mod:`retrain.sink` and :mod:`detectors.app` consume as members of a group; the command line reads topics to their end.
"""

# ruff: noqa: SLF001 — librdkafka's own error codes begin with an underscore
from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from deploy.settings import Kafka, kafka_client

POLL_S = 0.5  # longest wait for a record, and so until a signal is heard when there are none

# A rebalance has given the partitions away, or is about to: whoever has them next reads what was not committed.
FENCED = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._ASSIGNMENT_LOST,
}
# What a broker's restart or a new leader brings; the client tries again by itself, or we do.
PASSING = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._WAIT_COORD,
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
}


class ConsumerError(RuntimeError):
    """Kafka does not answer, or not as it must: what came, what to do."""


def member(kafka: Kafka, group: str, on_error: Callable[[KafkaError], None]) -> dict[str, object]:
    """The configuration of a member of ``group`` that commits by itself and starts with the oldest record."""
    return kafka_client(kafka) | {
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "session.timeout.ms": int(kafka.session_timeout_s * 1000),
        "heartbeat.interval.ms": max(1, int(kafka.session_timeout_s * 1000 / 3)),
        "error_cb": on_error,
        "log_level": 0,
    }


def standby(kafka: Kafka, group: str, on_error: Callable[[KafkaError], None]) -> dict[str, object]:
    """:func:`member` of a group of which one works and the others stand by: who joins takes nothing from who works."""
    return member(kafka, group, on_error) | {"partition.assignment.strategy": "cooperative-sticky"}


def has_first(partitions: Iterable[TopicPartition]) -> bool:
    """Whether the first partition is among ``partitions``: by that one a group of standbys knows who works."""
    return any(each.partition == 0 for each in partitions)


class Reachability:
    """Notices when no broker has answered for longer than ``kafka.delivery_timeout_s``."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self._kafka, self._topic = kafka, topic
        self._unreachable_since: float | None = None

    def on_error(self, error: KafkaError) -> None:
        """What a consumer calls with its errors."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN and self._unreachable_since is None:
            self._unreachable_since = time.monotonic()

    def heard(self) -> None:
        """Note that a record has come."""
        self._unreachable_since = None

    def check(self, consumer: Consumer) -> None:
        """Raise :class:`ConsumerError` if the silence has lasted too long."""
        since, kafka = self._unreachable_since, self._kafka
        if since is None:
            return
        try:
            consumer.list_topics(self._topic, timeout=1.0)
            self._unreachable_since = None
        except KafkaException as error:
            if time.monotonic() - since > kafka.delivery_timeout_s:
                raise ConsumerError(
                    f"no broker of kafka.bootstrap_servers = {kafka.bootstrap_servers} has answered for "
                    f"kafka.delivery_timeout_s = {kafka.delivery_timeout_s:g} ({error.args[0]}); start again when one does: "
                    "nothing is lost"
                ) from error


def commit(consumer: Consumer, topic: str, offsets: Mapping[int, int], timeout_s: float) -> KafkaError | None:
    """Commit ``offsets`` by partition, trying for ``timeout_s``; returns why not, if the partitions are another's now.

    Raises :class:`ConsumerError` when the group does not take them for another reason.
    """
    wanted = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            committed = consumer.commit(offsets=wanted, asynchronous=False)
            error = next((each.error for each in committed if each.error is not None), None)
        except KafkaException as failed:
            error = failed.args[0]
        if error is None or error.code() in FENCED:
            return error
        if error.code() not in PASSING or time.monotonic() > deadline:
            raise ConsumerError(
                f"offsets {dict(offsets)} of {topic} were not committed: {error}. Start again; what is written twice then is "
                "recognised by its id"
            )
        time.sleep(POLL_S)


def read_to_end(kafka: Kafka, topic: str, partition: int = 0) -> Iterator[Message]:
    """Every record of ``partition`` of ``topic`` up to where it ends now; raises :class:`ConsumerError`."""
    consumer = Consumer(
        kafka_client(kafka)
        | {
            "group.id": "none",  # librdkafka wants a name; nothing is committed
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
        deadline = time.monotonic() + kafka.delivery_timeout_s
        while True:
            for message in consumer.consume(1000, POLL_S):
                error = message.error()
                if error is None:
                    deadline = time.monotonic() + kafka.delivery_timeout_s
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    return
                elif error.code() not in PASSING:
                    raise ConsumerError(f"{topic} cannot be read: {error}; correct that and start again")
            if time.monotonic() > deadline:
                raise ConsumerError(
                    f"{topic} was not read to its end: kafka.bootstrap_servers = {kafka.bootstrap_servers} did not answer for "
                    f"kafka.delivery_timeout_s = {kafka.delivery_timeout_s:g}; start again when it does"
                )
    finally:
        consumer.close()
