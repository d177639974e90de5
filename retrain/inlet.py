"""The inlet: verdicts and pairs of scores, as they come. Whoever decides reads both topics by itself, in no group."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from confluent_kafka import OFFSET_END, Consumer, KafkaException, Message, TopicPartition

from deploy import metrics
from deploy.consumer import PASSING, ConsumerError
from deploy.settings import Settings, kafka_client
from deploy.topics import TIMEOUT_S
from deploy.watch import Pair
from retrain.verdicts import Verdict, VerdictError, decode

FETCHED = 2000  # records of one call: few enough that a signal is heard soon

log = logging.getLogger(__name__)

_pair = msgspec.json.Decoder(Pair).decode


class At(NamedTuple):
    """A pair, and when its record was written, ms."""

    pair: Pair
    at: int


class Inlet:
    """Follows the ``drift`` topic from offset ``drift``, and ``samples`` from the moment ``since`` (ms; None: from now on)."""

    def __init__(self, settings: Settings, drift: int, since: int | None) -> None:
        self._drift, self._samples = settings.topics.drift, settings.topics.samples
        self._consumer = Consumer(
            kafka_client(settings.kafka)
            | {
                "group.id": "none",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(self._drift, 0, drift), self._from(since)])

    def _from(self, since: int | None) -> TopicPartition:
        if since is None:
            return TopicPartition(self._samples, 0, OFFSET_END)
        found = self._consumer.offsets_for_times([TopicPartition(self._samples, 0, since)], timeout=TIMEOUT_S)
        return TopicPartition(self._samples, 0, found[0].offset)

    def take(self) -> Iterator[Verdict | At]:
        """What has come since; raises :class:`ConsumerError` for what does not pass by itself."""
        for message in self._consumer.consume(FETCHED, 0.0):
            error = message.error()
            if error is None:
                found = self._read(message)
                if found is not None:
                    yield found
            elif error.code() not in PASSING:
                raise ConsumerError(
                    f"{message.topic()} cannot be read: {error}; correct that and start again"
                )
            else:
                log.warning("%s", error)

    def _read(self, message: Message) -> Verdict | At | None:
        value = message.value()
        if message.topic() == self._drift:
            return verdict_of(value)
        # Of samples most have no label yet, or were scored by one model alone: nothing to compare.
        raw = value.encode() if isinstance(value, str) else value or b""
        if b'"label"' not in raw or (b'"beside"' not in raw and b'"uncorrected"' not in raw):
            return None
        try:
            return At(_pair(raw), message.timestamp()[1])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            metrics.TRAINER_FAILURES.labels("samples").inc()  # the monitor writes its dead letter
            return None

    def again(self, since: int) -> bool:
        """Read the samples written from ``since`` (ms) on once more; False if that cannot be done yet."""
        try:
            self._consumer.seek(self._from(since))
        except KafkaException as error:  # the partition is only just assigned, or the broker is away
            log.warning("samples since %d are read again later: %s", since, error)
            return False
        return True

    def close(self) -> None:
        """Follow no more."""
        self._consumer.close()


def verdict_of(value: bytes | str | None) -> Verdict | None:
    """The verdict in ``value``; None, counted and told, if it is none."""
    try:
        return decode(value)
    except VerdictError as error:
        metrics.TRAINER_FAILURES.labels("drift").inc()
        log.warning("%s; it is passed over", error)
        return None
