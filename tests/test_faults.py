"""Facts about the worker under kill -9, rebalance and a broker's restart, on a real Kafka.

After each: the profiles equal the fold of one event after another, to the byte; every decision is scored at
least once; and a decision scored again has the same record.
"""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.settings import Settings
from stream.events import Decoder
from stream.files import FileRecord
from stream.producer import EventProducer
from stream.profiles import Profiles
from tests.broker import Broker
from tests.conftest import fresh_settings
from tests.events import NOW_MS, stream, usecase
from tests.workers import Worker, changelog, lag, read, send


def one_after_another(settings: Settings) -> dict[bytes, bytes]:
    """The rows that folding the events topic gives, one partition after the other, from its beginning."""
    rows: dict[bytes, bytes] = {}
    decode = Decoder(usecase(), 65_536, 0)
    partitions: dict[int, list[FileRecord]] = {}
    for message in read(settings, settings.topics.events):
        offset, partition = message.offset(), message.partition()
        assert offset is not None
        assert partition is not None
        key, value = message.key(), message.value()
        partitions.setdefault(partition, []).append(FileRecord(offset, 0, key, value))
    for records in partitions.values():
        profiles = Profiles(usecase())
        for first in range(0, len(records), 997):
            folded = profiles.fold(decode(records[first : first + 997], NOW_MS)[0])
            rows.update(zip(folded.keys, folded.rows, strict=True))
    return rows


def check(settings: Settings, events: list[dict[str, Any]]) -> int:
    """The three facts; returns how many scores were repeats."""
    assert lag(settings) == 0
    assert changelog(settings) == one_after_another(settings)
    scored: dict[str, bytes] = {}
    repeats = 0
    for message in read(settings, settings.topics.scores):
        value = message.value()
        assert isinstance(value, bytes)
        name = msgspec.json.decode(value)["id"]
        repeats += name in scored
        assert scored.setdefault(name, value) == value
    assert {each["id"] for each in events if each["type"] == "offer"} == set(scored)
    return repeats


def quick(settings: Settings, **engine: Any) -> Settings:
    """Settings for faults: a dead worker is noticed within two seconds, and batches are small."""
    engine = {"batch_records": 1000} | engine
    return msgspec.structs.replace(
        settings,
        kafka=msgspec.structs.replace(settings.kafka, session_timeout_s=2.0),
        engine=msgspec.structs.replace(settings.engine, **engine),
    )


@pytest.mark.timeout(600)
def test_kill_9_at_ten_moments(broker: Broker, tmp_path: Path) -> None:
    """A worker killed ten times within 200 000 events leaves exact profiles, and no decision unscored."""
    settings = quick(fresh_settings(broker))
    events = stream(200_000, users=3000, seed=5, step_ms=1000)
    send(settings, events)
    chance = random.Random(6)
    for kill in range(10):
        moment = chance.randrange(1, 18_000)
        # The first three before anything was committed: the next one starts at the beginning, not where it fetched.
        interval = 60.0 if kill < 3 else 0.2
        with Worker(quick(settings, commit_interval_s=interval), tmp_path) as worker:
            worker.wait_for(lambda: worker.metric("eddyline_records_total") >= moment, "events are flowing")  # noqa: B023 — called at once
            worker.kill()
    assert lag(settings) > 0  # the kills were in the middle of the stream
    with Worker(settings, tmp_path) as worker:
        worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
        assert worker.stop() == 0
    check(settings, events)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_come_and_go_while_a_million_events_flow(broker: Broker, tmp_path: Path) -> None:
    """Workers join, are stopped, killed and replaced while events are sent; nothing is skipped."""
    settings = quick(fresh_settings(broker))
    events = stream(1_000_000, users=20_000, seed=7, step_ms=1000)
    pause = (
        threading.Event()
    )  # never set: its wait paces the producer, so that the stream outlives the changes

    def produce() -> None:
        with EventProducer(settings) as producer:
            for position, each in enumerate(events):
                producer.send_encoded(each["user"].encode(), msgspec.json.encode(each))
                if position % 1000 == 0:
                    pause.wait(0.03)

    sender = threading.Thread(target=produce)

    def flowing(worker: Worker) -> None:
        before = worker.metric("eddyline_records_total")
        worker.wait_for(lambda: worker.metric("eddyline_records_total") > before, "it has its share")

    with Worker(settings, tmp_path) as first:
        sender.start()
        flowing(first)
        with Worker(settings, tmp_path) as second, Worker(settings, tmp_path) as third:
            flowing(second)
            flowing(third)
            assert first.stop() == 0
            flowing(second)
            third.kill()
            flowing(second)
            with Worker(settings, tmp_path) as fourth:
                flowing(fourth)
                assert sender.is_alive()  # all of it happened in mid-stream
                sender.join()
                fourth.wait_for(lambda: lag(settings) == 0, "all events are committed")
                assert fourth.stop() == 0
                assert second.stop() == 0
    check(settings, events)


@pytest.mark.timeout(600)
def test_a_broker_restart_is_survived(tmp_path: Path) -> None:
    """The one broker is killed in mid-stream and comes back; the worker goes on by itself, and nothing is lost."""
    with Broker.start(tmp_path / "kafka") as broker:
        settings = quick(fresh_settings(broker))
        events = stream(60_000, users=2000, seed=8, step_ms=1000)
        send(settings, events[:30_000])
        with Worker(settings, tmp_path) as worker:
            worker.wait_for(lambda: worker.metric("eddyline_records_total") > 5000, "events are flowing")
            broker.kill()
            time.sleep(2)  # an outage has a length; this is the fault itself, not a wait for something
            broker.restart()
            send(settings, events[30_000:])
            worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
            assert worker.stop() == 0
        check(settings, events)


@pytest.mark.timeout(600)
def test_one_of_three_brokers_may_die(tmp_path: Path) -> None:
    """With three brokers and three copies, killing one in mid-stream stops nothing and loses nothing."""
    with Broker.start(tmp_path / "kafka", nodes=3) as broker:
        settings = quick(fresh_settings(broker, replication=3))
        events = stream(60_000, users=2000, seed=9, step_ms=1000)
        send(settings, events[:30_000])
        with Worker(settings, tmp_path) as worker:
            worker.wait_for(lambda: worker.metric("eddyline_records_total") > 5000, "events are flowing")
            broker.kill(1)
            send(settings, events[30_000:])
            worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
            assert worker.stop() == 0
        check(settings, events)
