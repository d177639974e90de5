"""Facts about the worker, as a user of its topics sees it, on a real Kafka."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
from confluent_kafka.admin import AdminClient

from deploy import topics
from deploy.settings import Events, Settings, kafka_client
from stream.layout import layout_of
from stream.producer import EventProducer
from stream.scoring import Score
from tests.events import USECASE, event, stream, usecase
from tests.test_events import BAD
from tests.workers import Worker, changelog, lag, read, send


def scores(settings: Settings) -> list[Score]:
    """Every record of the scores topic."""
    return [
        msgspec.json.decode(message.value() or b"", type=Score)
        for message in read(settings, settings.topics.scores)
    ]


def test_events_become_profiles_and_scores(settings: Settings, tmp_path: Path) -> None:
    """Every user gets a profile row, every decision one score, in the user's partition, keyed by user."""
    events = stream(3000, users=100)
    send(settings, events)
    with Worker(settings, tmp_path) as worker:
        worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
        assert worker.stop() == 0
    assert {each["user"].encode() for each in events} == set(changelog(settings))
    decisions = {each["id"]: each for each in events if each["type"] == "offer"}
    found = read(settings, settings.topics.scores)
    assert sorted(decisions) == sorted(each.id for each in scores(settings))
    places = {message.key(): message.partition() for message in read(settings, settings.topics.events)}
    assert all(places[message.key()] == message.partition() for message in found)
    assert {"prior"} == {each.model for each in scores(settings)}


def test_bad_records_are_dead_letters_with_their_reason(settings: Settings, tmp_path: Path) -> None:
    """Each kind of bad record arrives as it came, with topic, partition, offset and reason, and is counted."""
    good = stream(200, users=10)
    limits = Events(max_bytes=2000, max_bad_ratio=0.9)
    settings = msgspec.structs.replace(settings, events=limits)
    with EventProducer(settings) as producer:
        for position, each in enumerate(good):
            producer.send_encoded(str(each["user"]).encode(), msgspec.json.encode(each))
            if position < len(BAD):
                producer.send_encoded(b"ann", BAD[position][1])  # type: ignore[arg-type]  # a tombstone too
    with Worker(settings, tmp_path) as worker:
        worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
        counted = worker.metric("eddyline_dead_letters_total")
    letters = read(settings, settings.topics.dead_letters)
    sent = {(m.partition(), m.offset()): m for m in read(settings, settings.topics.events)}
    reasons: Counter[str] = Counter()
    for letter in letters:
        headers = dict(letter.headers() or [])
        assert headers["topic"] == settings.topics.events.encode()
        source = sent[int(headers["partition"]), int(headers["offset"])]  # type: ignore[arg-type]
        assert (source.value() or b"", source.key()) == (letter.value(), letter.key())
        assert headers["detail"]
        reasons[headers["reason"].decode()] += 1  # type: ignore[union-attr]
    assert Counter(reason.value for _, _, reason in BAD) == reasons
    assert counted == len(BAD) == len(letters)


def test_a_flood_of_bad_records_stops_the_worker(settings: Settings, tmp_path: Path) -> None:
    """Beyond the set ratio the worker ends with 1 and says why; nothing of the flood is committed."""
    send(settings, stream(500, users=10))
    with Worker(settings, tmp_path) as worker:
        worker.wait_for(lambda: lag(settings) == 0, "the good events are committed")
        with EventProducer(settings) as producer:
            for _ in range(4000):
                producer.send_encoded(b"ann", b"not an event")
        assert worker.process.wait(60) == 1
        assert "are bad" in worker.text()
        assert "events.max_bad_ratio" in worker.text()
    dead = len(read(settings, settings.topics.dead_letters))
    assert lag(settings) == 4000 - dead  # only what was dead-lettered may be committed


def test_a_stopped_worker_has_committed_all_that_it_wrote(settings: Settings, tmp_path: Path) -> None:
    """SIGTERM in mid-stream: what is being processed is finished and committed, so that nothing is read again."""
    send(settings, stream(100_000, users=100))
    engine = msgspec.structs.replace(settings.engine, batch_records=1000, commit_interval_s=60.0)
    with Worker(msgspec.structs.replace(settings, engine=engine), tmp_path) as worker:
        worker.wait_for(lambda: worker.metric("eddyline_records_total") > 10_000, "events are flowing")
        assert worker.stop() == 0
    dtype = layout_of(usecase()).dtype
    places = {message.key(): message.partition() for message in read(settings, settings.topics.events)}
    last: dict[int | None, int] = {}
    for key, row in changelog(settings).items():
        offset = int(np.frombuffer(row, dtype)["offset"][0])
        last[places[key]] = max(offset, last.get(places[key], -1))
    assert lag(settings) == 100_000 - sum(offset + 1 for offset in last.values())


def test_labels_and_the_quality_of_scores_are_shown(settings: Settings, tmp_path: Path) -> None:
    """Examples, outcomes, open and closed decisions and the quality of the scores are metrics of the worker."""
    events = stream(20_000, users=50, step_ms=5000)
    send(settings, events)
    declared = USECASE.replace('window = "14d"', 'window = "2h"') + '[quality]\nslices = ["plan"]\n'
    with Worker(settings, tmp_path, usecase=declared) as worker:
        worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
        decisions = sum(each["type"] == "offer" for each in events)
        closed = {plan: worker.metric("eddyline_closed_decisions_total", value=plan) for plan in ("", *"abc")}
        worker.wait_for(  # gauges are refreshed once a second
            lambda: worker.metric("eddyline_open_decisions") == decisions - closed[""], "gauges are shown"
        )
        assert closed[""] == closed["a"] + closed["b"] + closed["c"]
        outcomes = sum(each["type"] == "done" for each in events)
        assert outcomes == worker.metric("eddyline_outcomes_total")
        negative = worker.metric("eddyline_examples_total", label="negative")
        positive = worker.metric("eddyline_examples_total", label="positive")
        assert closed[""] == negative + worker.metric("eddyline_closed_positives_total", value="")
        assert positive >= worker.metric("eddyline_closed_positives_total", value="")
        assert worker.metric("eddyline_quality_auc", value="") == 0.5  # one prior for all
        base_rate = worker.metric("eddyline_quality_base_rate", value="")
        assert 0 < base_rate < 0.5
        assert worker.metric("eddyline_quality_calibration_error", value="") == pytest.approx(
            abs(base_rate - 0.3), abs=1e-6
        )


def test_events_after_a_quiet_time_are_processed_at_once(settings: Settings, tmp_path: Path) -> None:
    """A worker that has nothing to do takes up the next event when it comes."""
    with Worker(settings, tmp_path) as worker:
        for round_ in range(3):
            send(settings, [event(id=f"q{round_}", type="offer", user=f"u{round_}")])
            worker.wait_for(lambda: lag(settings) == 0, "the event is committed")
            assert worker.metric("eddyline_decisions_total") == round_ + 1


def test_a_worker_without_its_topics_says_what_to_do(settings: Settings, tmp_path: Path) -> None:
    """Missing topics end the worker before it starts, with the command that creates them."""
    renamed = msgspec.structs.replace(settings.topics, scores="no-such-topic")
    with Worker(msgspec.structs.replace(settings, topics=renamed), tmp_path) as worker:
        assert worker.process.wait(60) == 2
        assert "there is no topic no-such-topic; create it with `eddyline topics`" in worker.text()


def test_topics_of_one_order_have_one_partition(settings: Settings) -> None:
    """Of the topics that are not keyed by user a worker needs the samples', however many partitions it has."""
    counts = topics.partition_counts(settings)
    ordered = [settings.topics.samples, settings.topics.drift, topics.monitor_changelog(settings.engine.id)]
    assert [1, 1, 1] == [counts[name] for name in ordered]
    other = msgspec.structs.replace(settings.topics, samples=settings.topics.events, drift="no-such-topic")
    assert 4 == topics.check(msgspec.structs.replace(settings, topics=other))
    missing = msgspec.structs.replace(settings.topics, samples="no-samples")
    with pytest.raises(topics.TopicError, match="there is no topic no-samples; create it"):
        topics.check(msgspec.structs.replace(settings, topics=missing))
    mixed = msgspec.structs.replace(settings.topics, scores=settings.topics.samples)
    with pytest.raises(topics.TopicError, match=r"has 4 partitions, but .*: a user must stand in the same"):
        topics.check(msgspec.structs.replace(settings, topics=mixed))


def test_a_changelog_of_other_features_stops_the_worker(settings: Settings, tmp_path: Path) -> None:
    """A worker whose use case counts other things refuses the profiles that are there, and says what to do."""
    send(settings, stream(500, users=10))
    with Worker(settings, tmp_path) as worker:
        worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
        assert worker.stop() == 0
    other = USECASE.replace('half_life = "1d"', 'half_life = "2d"')
    with Worker(settings, tmp_path, usecase=other) as worker:
        assert worker.process.wait(60) == 1
        assert "set another engine.id" in worker.text()


def test_a_recreated_events_topic_stops_the_worker(settings: Settings, tmp_path: Path) -> None:
    """When the events topic is deleted and made anew, its small offsets are not taken for events seen before."""
    send(settings, stream(2000, users=10))
    with Worker(settings, tmp_path) as worker:
        worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
        assert worker.stop() == 0
    admin = AdminClient(kafka_client(settings.kafka))
    admin.delete_topics([settings.topics.events], operation_timeout=30)[settings.topics.events].result()
    while settings.topics.events in topics.partition_counts(settings):
        pass
    topics.create(settings)
    send(settings, stream(10, users=10))
    with Worker(settings, tmp_path) as worker:
        assert worker.process.wait(60) == 1
        assert "set another engine.id" in worker.text()


def test_the_worker_never_imports_tensorflow(here: Path) -> None:
    """Neither the worker's modules nor what they import bring TensorFlow or Keras in."""
    code = (
        "import sys, stream.app, model.scorer, deploy.metrics, deploy.topics\n"
        "print([m for m in ('tensorflow', 'keras', 'alibi_detect') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("command", [["--help"], ["worker", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(command: list[str], here: Path) -> None:
    """Help comes without Faust, numpy, Kafka or TensorFlow, so that it is quick."""
    code = (
        "import sys, eddyline\n"
        f"try: eddyline.cli({command!r})\n"
        "except SystemExit as end: print('exit', end.code)\n"
        "print([m for m in ('faust', 'numpy', 'confluent_kafka', 'tensorflow', 'rich') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True)
    assert out.stdout.strip().endswith("exit 0\n[]")
