"""Facts about the way from a decision to its row in the example log, under kill -9 and rebalance, on a real Kafka."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from deploy.settings import Settings
from model.example_log import ExampleLog
from model.scorer import LiteRTScorer
from model.usecase import parse
from retrain.sink import group
from tests.broker import Broker
from tests.conftest import fresh_settings
from tests.events import START_MS, USECASE, event, stream
from tests.test_feedback import true_labels
from tests.test_replay import WATCHED, customers, records, replayed
from tests.workers import SinkProcess, Worker, lag, send

STEP_MS = 2000
JOURNEY = USECASE.replace('window = "14d"', 'window = "3h"')


def quick(settings: Settings, folder: Path) -> Settings:
    """Settings for faults: the dead are noticed within two seconds, batches are small, the log is in ``folder``."""
    replace = msgspec.structs.replace
    return replace(
        settings,
        kafka=replace(settings.kafka, session_timeout_s=2.0),
        engine=replace(settings.engine, batch_records=500),
        sink=replace(settings.sink, log=str(folder / "log"), flush_rows=300, flush_s=0.2),
    )


@pytest.mark.timeout(600)
def test_every_decision_ends_in_one_row_however_often_worker_and_sink_are_killed(
    broker: Broker, tmp_path: Path
) -> None:
    """Killed four times while joining and writing, with a rebalance at the end: one row a decision, its label right."""
    settings = quick(fresh_settings(broker), tmp_path)
    events = stream(60_000, users=300, seed=11, step_ms=STEP_MS)
    for each in events:
        each["item"] = f"i{int(each['item'][1:]) % 3}"
    # Of so many users one at least is in every partition: the windows of all decisions close.
    after = START_MS + len(events) * STEP_MS + 86_400_000
    closing = [event(id=f"z{n}", user=f"u{n}", time=after) for n in range(300)]
    send(settings, [*events, *closing])
    chance = random.Random(12)
    for _ in range(4):
        moment = chance.randrange(1, 6000)
        with (
            Worker(settings, tmp_path, usecase=JOURNEY) as worker,
            SinkProcess(settings, tmp_path, usecase=JOURNEY) as sink,
        ):
            worker.wait_for(lambda: worker.metric("eddyline_records_total") >= moment, "events are flowing")  # noqa: B023
            worker.kill()
            sink.kill()
    assert lag(settings) > 0  # the kills were in the middle of the stream
    with (
        Worker(settings, tmp_path, usecase=JOURNEY) as first,
        Worker(settings, tmp_path, usecase=JOURNEY) as second,
        SinkProcess(settings, tmp_path, usecase=JOURNEY) as sink,
    ):
        first.wait_for(lambda: first.metric("eddyline_records_total") > 0, "it has its share")
        second.wait_for(lambda: lag(settings) == 0, "all events are committed")
        assert first.stop() == 0
        assert second.stop() == 0
        sink.wait_for(
            lambda: lag(settings, settings.topics.examples, group(settings)) == 0,
            "all examples are committed",
        )
        assert sink.stop() == 0
    table = ExampleLog(settings.sink.log).read()
    found = dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))
    assert len(table) == len(found)
    assert true_labels([*events, *closing], parse(JOURNEY)) == found
    assert 0.1 < sum(found.values()) / len(found) < 0.9
    # A decision that was published twice was published alike, so it does not matter which row is kept.
    assert len(records(settings, settings.topics.examples)) == len(found)


@pytest.mark.timeout(600)
def test_no_sample_is_lost_however_often_the_worker_is_killed(
    broker: Broker, trained: Path, tmp_path: Path
) -> None:
    """Killed three times: the samples are those of a replay, none missing, none more, some perhaps written again."""
    settings = quick(fresh_settings(broker, partitions=1), tmp_path)
    events = customers(40_000, users=200, seed=13)
    send(settings, events)
    options = ("--model", str(trained))
    chance = random.Random(14)
    for _ in range(3):
        moment = chance.randrange(1, 6000)
        with Worker(settings, tmp_path, *options, usecase=WATCHED) as worker:
            worker.wait_for(lambda: worker.metric("eddyline_records_total") >= moment, "events are flowing")  # noqa: B023
            worker.kill()
    assert lag(settings) > 0  # the kills were in the middle of the stream
    with Worker(settings, tmp_path, *options, usecase=WATCHED) as worker:
        worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
        counted = {kind: worker.metric("eddyline_samples_total", kind=kind) for kind in ("scored", "matured")}
        worker.wait_for(lambda: 0 < worker.metric("eddyline_sampled_share") < 1, "the share is shown")
        assert worker.stop() == 0
    results, _ = replayed(events, LiteRTScorer.load(trained), text=WATCHED)
    expected = [value for each in results for value in each.joined.samples]
    assert set(expected) == set(records(settings, settings.topics.samples))
    assert all(0 < count <= len(expected) for count in counted.values())
