"""The outlet: where the monitor's process writes, one record after another, and knows what has been acknowledged."""

from __future__ import annotations

from confluent_kafka import KafkaError, Message, Producer

from deploy.settings import Kafka, kafka_producer

ROOM_S = 0.05  # between attempts to queue a record while the producer's queue is full


class OutletError(RuntimeError):
    """Records were not taken by their topics: which, why."""


class Outlet:
    """Writes to topics that have one partition, each record after those sent before it."""

    def __init__(self, kafka: Kafka) -> None:
        self._timeout_s = kafka.delivery_timeout_s
        self._failed: list[str] = []
        self._producer = Producer(kafka_producer(kafka) | {"on_delivery": self._on_delivery})

    def send(self, topic: str, key: bytes, value: bytes | None) -> None:
        """Queue a record; None is a tombstone."""
        while True:
            try:
                self._producer.produce(topic, value, key, 0)
                return
            except BufferError:
                self._producer.poll(ROOM_S)

    def flush(self) -> None:
        """Wait for the acknowledgements; raises :class:`OutletError` if one does not come."""
        left = self._producer.flush(self._timeout_s)
        if left or self._failed:
            what = self._failed[0] if self._failed else f"no answer to {left} within {self._timeout_s:g} s"
            raise OutletError(f"not all records were taken: {what}")

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(f"{message.topic()}: {error.str()}")
