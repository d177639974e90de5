"""Facts about stream/producer.py: what cannot be delivered is told to whoever sent it."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from deploy.settings import Kafka, Settings
from stream.producer import DeliveryError, EventProducer, NewEvent
from tests.workers import read

NOWHERE = Settings(kafka=Kafka(bootstrap_servers="127.0.0.1:1", delivery_timeout_s=1.5))
EVENT = NewEvent(id="e1", type="page", user="ann", time=dt.datetime(2024, 1, 1, tzinfo=dt.UTC), item="p1")


def test_an_event_arrives_under_its_user(settings: Settings) -> None:
    """A typed event is in the topic, keyed by its user, once the block has ended."""
    with EventProducer(settings) as producer:
        producer.send(EVENT)
    (message,) = read(settings, settings.topics.events)
    assert message.key() == b"ann"
    assert msgspec.json.decode(message.value() or b"", type=NewEvent) == EVENT


def test_an_undelivered_event_is_an_error() -> None:
    """Without a broker the flush says how many events are not in the topic, and which was the first."""
    producer = EventProducer(NOWHERE)
    producer.send(EVENT)
    with pytest.raises(DeliveryError, match="1 events were not"):
        producer.flush()


def test_an_event_that_kafka_would_not_take_is_an_error() -> None:
    """An event over the client's limit is refused at once, with its size."""
    with pytest.raises(DeliveryError, match="an event of 2000000 bytes was not accepted"):
        EventProducer(NOWHERE).send_encoded(b"ann", b"x" * 2_000_000)


def test_a_time_without_a_zone_is_refused() -> None:
    """A naive time could mean any hour, so it is not sent."""
    event = msgspec.structs.replace(EVENT, time=dt.datetime(2024, 1, 1))  # noqa: DTZ001 — that is the point
    with pytest.raises(ValueError, match="has no time zone"):
        EventProducer(NOWHERE).send(event)
