"""The producer client: events into Kafka, keyed by user, idempotent, with delivery errors that surface.

For people who produce from Python, and for ``eddyline produce``. Producers in other languages need only the
contract (``stream/events.schema.json``): the user as key, and Kafka's murmur2 partitioner.
"""

from __future__ import annotations

import datetime as dt
from types import TracebackType
from typing import Self

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from deploy.settings import Settings, kafka_producer

QUEUE_RECORDS = 500_000


class DeliveryError(RuntimeError):
    """Kafka refused an event, or did not acknowledge it in time; it is not in the topic."""


class NewEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event to send. ``time`` must carry a time zone; ``id`` must be the event's own, the same when it is resent."""

    id: str
    type: str
    user: str
    time: dt.datetime
    item: str | None = None
    value: float | None = None
    context: dict[str, str | float | bool] | None = None


class EventProducer:
    """Sends events to the events topic; a context manager that flushes at its end.

    ``send`` returns at once; an earlier event's failure is raised by the next ``send`` or by ``flush``.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topics.events
        self._timeout_s = settings.kafka.delivery_timeout_s
        self._failed: list[str] = []
        self._producer = Producer(
            kafka_producer(settings.kafka)
            | {
                "partitioner": "murmur2_random",  # as Kafka's Java clients do: one user, one partition for all
                "linger.ms": 5,
                "queue.buffering.max.messages": QUEUE_RECORDS,
                "on_delivery": self._on_delivery,
            }
        )

    def send(self, event: NewEvent) -> None:
        """Queue ``event``; raises :class:`DeliveryError` for an earlier one and ValueError for a naive time."""
        if event.time.tzinfo is None:
            raise ValueError(f"event {event.id}: time {event.time} has no time zone; give it one")
        self.send_encoded(event.user.encode(), msgspec.json.encode(event))

    def send_encoded(self, key: bytes | None, value: bytes) -> None:
        """Queue an event that is already JSON, under its user in UTF-8."""
        while True:
            try:
                self._producer.produce(self._topic, value, key)
                break
            except BufferError:
                self._producer.poll(0.05)  # back-pressure: wait for room
            except KafkaException as error:
                raise DeliveryError(
                    f"an event of {len(value)} bytes was not accepted: {error.args[0]}"
                ) from error
        self._producer.poll(0)
        self._raise()

    def flush(self) -> None:
        """Wait until everything queued is acknowledged; raises :class:`DeliveryError` if something is not."""
        left = self._producer.flush(self._timeout_s)
        self._raise()
        if left:
            raise DeliveryError(
                f"{left} events were not acknowledged within {self._timeout_s:.0f} s; send them again"
            )

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(f"{(message.value() or b'')[:200]!r}: {error.str()}")

    def _raise(self) -> None:
        if self._failed:
            failed, self._failed = self._failed, []
            raise DeliveryError(f"{len(failed)} events were not delivered; the first: {failed[0]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()
