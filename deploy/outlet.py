"""The outlet: where a process writes records of its own, one after another, and knows what has been acknowledged.

For what the monitor and the trainer write, which is little. Workers write by Faust's producer.
"""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from deploy.settings import Kafka, kafka_producer

ROOM_S = 0.05  # between attempts to queue a record while the producer's queue is full


class OutletError(RuntimeError):
    """Records were not taken by their topics: which, why."""


class Outlet:
    """Writes to topics that have one partition, each record after those sent before it."""

    def __init__(self, kafka: Kafka, timeout_s: float | None = None) -> None:
        self._timeout_s = kafka.delivery_timeout_s if timeout_s is None else timeout_s
        self._failed: list[str] = []
        limits = {"delivery.timeout.ms": int(self._timeout_s * 1000), "on_delivery": self._on_delivery}
        self._producer = Producer(kafka_producer(kafka) | limits)

    def send(self, topic: str, key: bytes, value: bytes | None) -> None:
        """Queue a record; None is a tombstone."""
        while True:
            try:
                self._producer.produce(topic, value, key, 0)
                return
            except BufferError:
                self._producer.poll(ROOM_S)
            except KafkaException as error:
                raise OutletError(f"a record for {topic} was not accepted: {error.args[0]}") from error

    def flush(self) -> None:
        """Wait for the acknowledgements; raises :class:`OutletError` if one does not come."""
        left = self._producer.flush(self._timeout_s)
        failed, self._failed = self._failed, []
        if left or failed:
            what = failed[0] if failed else f"no answer to {left} within {self._timeout_s:g} s"
            raise OutletError(f"not all records were taken: {what}")

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(f"{message.topic()}: {error.str()}")
