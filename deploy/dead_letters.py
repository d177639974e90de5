"""Dead letters: a record that cannot be used, as it came, with where it came from and why. ``docs/events.md``.

:func:`dead_letter` makes them; :mod:`stream.app` sends them by Faust's producer, :mod:`retrain.sink` by :class:`DeadLetters`.
"""

from __future__ import annotations

from typing import NamedTuple, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from deploy import metrics
from deploy.consumer import ConsumerError
from deploy.settings import Settings, kafka_producer

# Of a record that is longer the rest is cut, so that it fits with its headers; no good key is longer than 1 KiB.
VALUE_BYTES, KEY_BYTES = 512 * 1024, 1024
DETAIL_CHARACTERS = 1000

ROOM_S = 0.05  # between attempts to queue one while the producer's queue is full

Headers = list[tuple[str, bytes]]


class DeadLetterError(RuntimeError):
    """Dead letters were not taken by their topic: which, why, what to do."""


class DeadLetter(NamedTuple):
    """A record of the dead letters' topic."""

    key: bytes | None
    value: bytes
    headers: Headers


def dead_letter(
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    *,
    reason: str,
    detail: str,
) -> DeadLetter:
    """The dead letter of the record ``key``, ``value`` that stood at ``offset``; what is too long is cut."""
    value = value or b""
    headers = [
        ("topic", topic.encode()),
        ("partition", str(partition).encode()),
        ("offset", str(offset).encode()),
        ("reason", reason.encode()),
        ("detail", detail[:DETAIL_CHARACTERS].encode(errors="replace")),
    ]
    if len(value) > VALUE_BYTES:
        headers.append(("truncated_from", str(len(value)).encode()))
    if key is not None and len(key) > KEY_BYTES:
        headers.append(("key_truncated_from", str(len(key)).encode()))
        key = key[:KEY_BYTES]
    return DeadLetter(key, value[:VALUE_BYTES], headers)


class DeadLetters:
    """Sends dead letters; :meth:`flush` returns once all are acknowledged."""

    def __init__(self, settings: Settings) -> None:
        self._topic, self._timeout_s = settings.topics.dead_letters, settings.kafka.delivery_timeout_s
        self._failed: list[str] = []
        self._producer = Producer(kafka_producer(settings.kafka) | {"on_delivery": self._on_delivery})

    def send(self, message: Message, *, reason: str, detail: str) -> None:
        """Queue the dead letter of ``message``, for the partition that it came in."""
        # Only a message that was never sent has no place.
        place = cast(tuple[str, int, int], (message.topic(), message.partition(), message.offset()))
        letter = dead_letter(*place, message.key(), message.value(), reason=reason, detail=detail)
        while True:
            try:
                self._producer.produce(
                    self._topic, letter.value, letter.key, place[1], headers=list(letter.headers)
                )
                return
            except BufferError:
                self._producer.poll(ROOM_S)
            except KafkaException as error:
                raise DeadLetterError(f"a dead letter was not accepted: {error.args[0]}") from error

    def flush(self) -> None:
        """Wait for the acknowledgements; raises :class:`DeadLetterError` if one does not come."""
        left = self._producer.flush(self._timeout_s)
        if left or self._failed:
            what = self._failed[0] if self._failed else f"no answer to {left} within {self._timeout_s:.0f} s"
            raise DeadLetterError(
                f"dead letters were not taken by {self._topic}: {what}; correct it and start again"
            )

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed.append(error.str())


class Refusals:
    """Dead-letters the bad records of one of our topics, and stops its reader where they are too large a share of all."""

    def __init__(self, settings: Settings, topic: str, setting: str, reason: str) -> None:
        """``setting`` names ``topic`` for whoever has to correct it."""
        self._limits, self._topic, self._setting, self._reason = settings.events, topic, setting, reason
        self._letters = DeadLetters(settings)
        self._records = self._bad = 0  # of the window over which the share of bad records is taken

    def count(self) -> None:
        """Count a record, good or bad."""
        self._records += 1

    def refuse(self, message: Message, detail: str) -> None:
        """Send the dead letter of ``message``, which is counted; raises :class:`deploy.consumer.ConsumerError` of too many."""
        limits = self._limits
        self._bad += 1
        if self._records >= limits.bad_window:
            if self._bad > limits.max_bad_ratio * self._records:
                raise ConsumerError(
                    f"{self._bad} of the last {self._records} records of {self._topic} are bad; the limit is events.max_bad_ratio"
                    f" = {limits.max_bad_ratio}. The last, at offset {message.offset()} of partition "
                    f"{message.partition()}: {detail}. Correct {self._setting}, or raise the limit, and start again"
                )
            self._records = self._bad = 0
        self._letters.send(message, reason=self._reason, detail=detail)
        metrics.DEAD_LETTERS.labels(self._reason).inc()

    def flush(self) -> None:
        """Wait for the acknowledgements; raises :class:`DeadLetterError` if one does not come."""
        self._letters.flush()
