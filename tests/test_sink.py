"""Facts about retrain/sink.py and the commands around the log, on a real Kafka.

However sinks come and go, every example of the topic is read from the log exactly once, as it was sent.
"""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from click.testing import CliRunner

import eddyline
from deploy.settings import Events, Settings
from model.example_log import ExampleLog, ExampleLogError
from model.examples import Example, read_examples, table_of
from retrain.sink import REASON, Sink, SinkError, group, open_log
from stream.producer import EventProducer
from tests.broker import Broker
from tests.builders import SPEC, START, USECASE
from tests.conftest import fresh_settings
from tests.test_examples import example
from tests.workers import SinkProcess, lag, read

STEP_MS = 10_000  # 20 000 examples are two days and a bit


def made(n: int, first: int = 0) -> list[Example]:
    """``n`` examples of 300 users, some with missing features."""
    chance = random.Random(first)
    return [
        example(
            f"d{number}",
            user=f"u{chance.randrange(300)}",
            time=START + number * STEP_MS,
            label=number % 2,
            features={"views": chance.random(), "spend": None, "item": "x", "plan": chance.choice("abc")},
        )
        for number in range(first, first + n)
    ]


def publish(settings: Settings, examples: list[Example]) -> None:
    """What the worker does, in its own partitions."""
    with producer(settings) as examples_producer:
        for each in examples:
            examples_producer.send_encoded(each.user.encode(), msgspec.json.encode(each))


def producer(settings: Settings) -> EventProducer:
    """A producer to the examples topic."""
    aimed = msgspec.structs.replace(settings.topics, events=settings.topics.examples)
    return EventProducer(msgspec.structs.replace(settings, topics=aimed))


def sinking(settings: Settings, folder: Path, **sink: Any) -> Settings:
    """Settings with the log in ``folder``; a dead sink is noticed within two seconds."""
    sink = {"log": str(folder / "log"), "flush_rows": 500, "flush_s": 0.2} | sink
    return msgspec.structs.replace(
        settings,
        kafka=msgspec.structs.replace(settings.kafka, session_timeout_s=2.0),
        sink=msgspec.structs.replace(settings.sink, **sink),
    )


def left(settings: Settings) -> int:
    """Examples that no sink has committed."""
    return lag(settings, settings.topics.examples, group(settings))


def stored(settings: Settings) -> int:
    """Rows in the files, repeats included."""
    return ds.dataset(settings.sink.log, exclude_invalid_files=True).count_rows()


def check(settings: Settings, examples: list[Example]) -> None:
    """The fact above."""
    found = ExampleLog(settings.sink.log).read().sort_by("time")
    assert found.equals(table_of(examples, SPEC))


@pytest.mark.timeout(120)
def test_what_is_sent_is_read_and_what_is_stopped_is_committed(settings: Settings, tmp_path: Path) -> None:
    """A sink told to stop writes and commits what it holds: nothing is read again, and no row is there twice."""
    settings = sinking(settings, tmp_path, flush_rows=1_000_000, flush_s=3600.0)
    examples = made(3000)
    publish(settings, examples)
    with SinkProcess(settings, tmp_path, usecase=USECASE) as sink:
        sink.wait_for(lambda: sink.metric("eddyline_log_buffered_rows") == 3000, "all are read")
        assert left(settings) == 3000  # what is not written is not committed
        assert sink.stop() == 0
    assert left(settings) == 0
    assert stored(settings) == 3000
    check(settings, examples)
    assert len(read_examples(settings.sink.log, SPEC)) == 3000


@pytest.mark.timeout(300)
def test_kill_9_at_several_moments(broker: Broker, tmp_path: Path) -> None:
    """A sink killed again and again while it writes small files and merges them loses no example."""
    settings = sinking(fresh_settings(broker), tmp_path, compact_files=3)
    examples = made(20_000)
    publish(settings, examples)
    chance = random.Random(4)
    for _ in range(6):
        moment = chance.randrange(1, 3000)
        with SinkProcess(settings, tmp_path, usecase=USECASE) as sink:
            sink.wait_for(lambda: sink.metric("eddyline_log_rows_total") >= moment, "examples are flowing")  # noqa: B023 — called at once
            sink.kill()
    assert left(settings) > 0  # the kills were in the middle of it
    with SinkProcess(settings, tmp_path, usecase=USECASE) as sink:
        sink.wait_for(lambda: left(settings) == 0, "all examples are committed")
        assert sink.stop() == 0
    check(settings, examples)


@pytest.mark.timeout(300)
def test_sinks_come_and_go(broker: Broker, tmp_path: Path) -> None:
    """Sinks join, are stopped, killed and frozen while examples are sent; nothing is skipped."""
    settings = sinking(fresh_settings(broker), tmp_path, compact_files=4)
    examples = made(30_000)
    pause = threading.Event()  # never set: its wait paces the producer, so that it outlives the changes

    def produce() -> None:
        with producer(settings) as out:
            for number, each in enumerate(examples):
                out.send_encoded(each.user.encode(), msgspec.json.encode(each))
                if number % 100 == 0:
                    pause.wait(0.05)

    def flowing(sink: SinkProcess) -> None:
        before = sink.metric("eddyline_log_rows_total")
        sink.wait_for(lambda: sink.metric("eddyline_log_rows_total") > before, "it has its share")

    sender = threading.Thread(target=produce)
    with SinkProcess(settings, tmp_path, usecase=USECASE) as first:
        sender.start()
        flowing(first)
        with SinkProcess(settings, tmp_path, usecase=USECASE) as second:
            flowing(second)
            assert first.stop() == 0
            flowing(second)
            with SinkProcess(settings, tmp_path, usecase=USECASE) as third:
                flowing(third)
                second.process.send_signal(signal.SIGSTOP)  # what it has fetched goes to the third
                sender.join()
                third.wait_for(lambda: left(settings) == 0, "all examples are committed")
                third.kill()
                second.process.send_signal(signal.SIGCONT)
                later = made(2000, first=30_000)
                publish(settings, later)
                second.wait_for(lambda: left(settings) == 0, "it goes on")
                assert second.stop() == 0
    check(settings, examples + later)


class Dying(ExampleLog):
    """A log whose process ends right after it has written."""

    def append(self, table: pa.Table, name: str) -> Any:
        """Write and end."""
        super().append(table, name)
        raise ExampleLogError("the store is gone")


@pytest.mark.timeout(120)
def test_offsets_are_committed_only_after_the_write(settings: Settings, tmp_path: Path) -> None:
    """A sink that ends between write and commit has committed nothing; the next one writes it again."""
    settings = sinking(settings, tmp_path, flush_rows=1000, flush_s=3600.0)
    one = [each for each in made(3000) if each.user == "u7"]  # one partition
    publish(settings, one * 300)
    assert len(one) * 300 > 1000
    with pytest.raises(SinkError, match=r"the store is gone\. Nothing of this was committed: start again"):
        Sink(settings, SPEC, Dying(settings.sink.log)).run()
    assert left(settings) == len(one) * 300
    check(settings, one)
    with SinkProcess(sinking(settings, tmp_path), tmp_path, usecase=USECASE) as sink:
        sink.wait_for(lambda: left(settings) == 0, "it is written again")
        assert sink.stop() == 0
    check(settings, one)


@pytest.mark.timeout(120)
def test_bad_records_are_dead_letters(settings: Settings, tmp_path: Path) -> None:
    """What is no example arrives as it came with place and reason, is counted, and does not hold the others up."""
    settings = sinking(settings, tmp_path)
    examples = made(100)
    label = msgspec.json.encode(msgspec.structs.asdict(examples[0]) | {"label": 7})
    bad = {b"ann": b"not an example", b"bob": label, b"eve": b"", None: b"[" * 600_000}
    publish(settings, examples[:50])
    with producer(settings) as out:
        for key, value in bad.items():
            out.send_encoded(key, value)
    publish(settings, examples[50:])
    with SinkProcess(settings, tmp_path, usecase=USECASE) as sink:
        sink.wait_for(lambda: left(settings) == 0, "all is committed")
        assert sink.metric("eddyline_dead_letters_total") == len(bad)
        assert sink.stop() == 0
    check(settings, examples)
    sent = {(m.partition(), m.offset()): m for m in read(settings, settings.topics.examples)}
    letters = read(settings, settings.topics.dead_letters)
    assert sorted(map(repr, bad)) == sorted(repr(letter.key()) for letter in letters)
    for letter in letters:
        headers = dict(letter.headers() or [])
        source = sent[int(headers["partition"]), int(headers["offset"])]  # type: ignore[arg-type]
        assert headers["topic"] == settings.topics.examples.encode()
        assert headers["reason"] == REASON.encode()
        assert str(headers["detail"]).startswith("b'not a record of the examples topic: ")
        assert (source.key(), (source.value() or b"")[: 512 * 1024]) == (letter.key(), letter.value())
        assert letter.partition() == source.partition()


@pytest.mark.timeout(120)
def test_a_flood_of_bad_records_stops_the_sink(settings: Settings, tmp_path: Path) -> None:
    """Beyond the set share of bad records the sink ends with 1 and says why; they are not committed."""
    settings = msgspec.structs.replace(
        sinking(settings, tmp_path, flush_s=3600.0, flush_rows=100_000), events=Events(bad_window=200)
    )
    with producer(settings) as out:
        for _ in range(500):
            out.send_encoded(b"ann", b"not an example")
    with SinkProcess(settings, tmp_path, usecase=USECASE) as sink:
        assert sink.process.wait(60) == 1
        assert "200 of the last 200 records" in sink.text()
        assert "events.max_bad_ratio = 0.5" in sink.text()
    assert left(settings) == 500


@pytest.mark.timeout(120)
def test_many_small_files_are_merged_on_the_way(settings: Settings, tmp_path: Path) -> None:
    """However small the portions, a date never keeps more small files than set, and the command merges the rest."""
    settings = sinking(settings, tmp_path, flush_rows=1, compact_files=4)
    examples = made(600)
    with SinkProcess(settings, tmp_path, usecase=USECASE) as sink:
        for first in range(0, 600, 100):
            publish(settings, examples[first : first + 100])
            sink.wait_for(lambda: left(settings) == 0, "they are written")
        assert sink.metric("eddyline_log_files_total") > 4
        assert sink.stop() == 0
        assert sink.metric("eddyline_log_compaction_failures_total") == 0
    log = ExampleLog(settings.sink.log)
    assert all(log.small_files(date) < 4 for date in log.dates())
    ran = CliRunner().invoke(eddyline.cli, ["compact", settings.sink.log])
    assert ran.exit_code == 0, ran.output
    assert f"of {len(log.dates())} dates" in ran.output
    assert all(log.small_files(date) == 1 for date in log.dates())
    check(settings, examples)


def test_compacting_where_no_log_is_says_so(tmp_path: Path) -> None:
    """A wrong URL is not taken for an empty log."""
    ran = CliRunner().invoke(eddyline.cli, ["compact", str(tmp_path / "nowhere")])
    assert ran.exit_code == 2
    assert "no example log is there; correct the URL" in ran.output


def test_a_sink_that_cannot_work_does_not_start(settings: Settings, tmp_path: Path) -> None:
    """A missing topic, a log that cannot be written and a driver that is not installed are told before reading."""
    (tmp_path / "log").write_text("in the way")
    with pytest.raises(SinkError, match="cannot be written"):
        open_log(sinking(settings, tmp_path))
    with pytest.raises(SinkError, match="no way to reach it"):
        open_log(sinking(settings, tmp_path, log="nosuch://bucket"))
    renamed = msgspec.structs.replace(settings.topics, examples="no-such-topic")
    with SinkProcess(
        msgspec.structs.replace(sinking(settings, tmp_path), topics=renamed), tmp_path, usecase=USECASE
    ) as sink:
        assert sink.process.wait(60) == 2
        assert "there is no topic no-such-topic; create it with `eddyline topics`" in sink.text()


def test_features_that_the_use_case_lacks_are_told_once(settings: Settings, tmp_path: Path) -> None:
    """A sink with an older use case than the worker's goes on, and says which features the log does not get."""
    settings = sinking(settings, tmp_path)
    publish(settings, [example("d", features={"views": 1.0, "novel": 2.0})])
    with SinkProcess(settings, tmp_path, usecase=USECASE) as sink:
        sink.wait_for(lambda: left(settings) == 0, "it is written")
        assert sink.stop() == 0
    assert sink.text().count("examples have features that this use case does not declare: novel;") == 1


@pytest.mark.timeout(200)
def test_a_broker_that_is_gone_is_waited_for_and_then_told(tmp_path: Path) -> None:
    """A restart is survived; a silence longer than set ends the sink with 1, and the next one loses nothing."""
    with Broker.start(tmp_path / "kafka") as broker:
        settings = sinking(fresh_settings(broker), tmp_path)
        examples = made(2000)
        publish(settings, examples[:1000])
        with SinkProcess(settings, tmp_path, usecase=USECASE) as sink:
            sink.wait_for(lambda: left(settings) == 0, "the first are committed")
            broker.kill()
            broker.restart()
            publish(settings, examples[1000:1500])
            sink.wait_for(lambda: left(settings) == 0, "it goes on")
            assert sink.stop() == 0
        hasty = msgspec.structs.replace(settings.kafka, delivery_timeout_s=2.0)
        with SinkProcess(msgspec.structs.replace(settings, kafka=hasty), tmp_path, usecase=USECASE) as sink:
            publish(settings, examples[1500:1600])
            sink.wait_for(lambda: left(settings) == 0, "it is at work")
            broker.kill()
            assert sink.process.wait(60) == 1
            assert "no broker of kafka.bootstrap_servers" in sink.text()
            assert "start again when one does: nothing is lost" in sink.text()
        broker.restart()
        publish(settings, examples[1600:])
        with SinkProcess(settings, tmp_path, usecase=USECASE) as sink:
            sink.wait_for(lambda: left(settings) == 0, "the rest is committed")
            assert sink.stop() == 0
        check(settings, examples)


def test_the_sink_imports_neither_tensorflow_nor_faust(here: Path) -> None:
    """The sink starts in a fraction of a second and fits into a small image."""
    import subprocess
    import sys

    code = (
        "import sys, retrain.sink, model.example_log\n"
        "print([m for m in ('tensorflow', 'keras', 'faust', 'numba') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
