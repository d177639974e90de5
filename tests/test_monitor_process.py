"""Facts about detectors/app.py, on a real Kafka: however monitors come and go, the verdicts are those of one that never died."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from confluent_kafka import Message, Producer

import eddyline
from deploy import transitions
from deploy.registry import Registry
from deploy.settings import Events, Kafka, Settings, kafka_producer
from deploy.topics import monitor_changelog
from deploy.transitions import Why
from detectors.app import PASSED, REASON, group, sent
from detectors.app import MonitorProcess as App
from detectors.monitor import Monitor
from detectors.releases import Watched
from detectors.samples import SampleError, SampleRecord, decode
from detectors.verdict import Action, Kind, Verdict
from model.reference import Reference
from stream.producer import EventProducer
from tests.broker import Broker
from tests.conftest import fresh_settings
from tests.drifting import USECASE, bundle, reference, samples, usecase
from tests.test_monitor import by_episode
from tests.workers import MonitorProcess, lag, read

CHANGE = 2000
DRIFTED = samples(4000, CHANGE)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A bundle of v1 with this world's reference."""
    return bundle(tmp_path / "v1")


def quick(settings: Settings) -> Settings:
    """Settings with which the dead are noticed within two seconds."""
    replace = msgspec.structs.replace
    return replace(
        settings,
        kafka=replace(settings.kafka, session_timeout_s=2.0),
        monitor=replace(settings.monitor, commit_interval_s=0.1),
    )


def publish(settings: Settings, values: list[bytes]) -> None:
    """What the workers do, with events that were sent two seconds after their time."""
    producer = Producer(kafka_producer(settings.kafka))
    for each in values:
        headers: dict[str, str | bytes | None] = {}
        try:
            sample = decode(each)
            if sample.label is None:
                headers["sent"] = b"%d" % (sample.time + 2000)
        except SampleError:
            pass
        producer.produce(settings.topics.samples, each, headers=headers)
    assert producer.flush(60) == 0


def left(settings: Settings) -> int:
    """Samples that no monitor has committed."""
    return lag(settings, settings.topics.samples, group(settings))


def verdicts(settings: Settings) -> list[Verdict]:
    """What stands in the topic, in its order; every record keyed by its model."""
    found = []
    for message in read(settings, settings.topics.drift):
        value = message.value()
        assert isinstance(value, bytes)
        found.append(msgspec.json.decode(value, type=Verdict))
        assert message.key() == found[-1].model.encode()
    return found


def expected(settings: Settings, **models: Reference) -> list[Verdict]:
    """What one monitor says that sees all of the topic; of v1 unless other ``models`` are given."""
    given = []
    for offset, message in enumerate(read(settings, settings.topics.samples)):
        value = message.value()
        assert isinstance(value, bytes)
        assert offset == message.offset()
        given.append(SampleRecord(offset, int(dict(message.headers() or []).get("sent") or 0), value))
    return by_episode(Monitor(usecase(), models or {"v1": reference()}).observe(given).verdicts)


def once(found: list[Verdict]) -> list[Verdict]:
    """``found`` without what a crash repeats, which must be equal."""
    by_revision: dict[tuple[str, int], Verdict] = {}
    for each in found:
        assert by_revision.setdefault((each.id, each.revision), each) == each
    return by_episode(list(by_revision.values()))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("sent", b"1700000000123")], 1_700_000_000_123),
        ([("other", b"1"), ("sent", b"7")], 7),
        (None, 0),
        ([], 0),
        *(([("sent", wrong)], 0) for wrong in (b"", b"-5", b"1.5", b"soon", b"\xff", b"9" * 40, None)),
    ],
)
def test_a_sample_arrived_when_its_event_was_sent(headers: Any, expected: int) -> None:
    """The header tells; not the record's own timestamp, which says when a worker wrote it. Nonsense is unknown."""
    assert expected == sent(Message(headers=headers, timestamp=(1, 1_700_009_999_999)))


@pytest.mark.timeout(120)
def test_a_drift_becomes_verdicts_and_nothing_is_read_again(
    settings: Settings, model: Path, tmp_path: Path
) -> None:
    """They stand on the topic, each once, the metrics say so, and the command lists and explains them."""
    settings = quick(settings)
    publish(settings, DRIFTED)
    with MonitorProcess(settings, tmp_path, "--model", str(model), usecase=USECASE) as monitor:
        monitor.wait_for(lambda: left(settings) == 0, "all is watched")
        assert monitor.metric("eddyline_monitor_samples_total", kind="scored") == 4000
        assert monitor.metric("eddyline_monitor_samples_total", kind="matured") == 3800
        assert monitor.metric("eddyline_monitor_watching") == 1
        threshold = "eddyline_drift_threshold_log10"
        assert monitor.metric(threshold, slice="plan", value="plus") == pytest.approx(np.log10(10_000))
        whole = expected(settings)
        monitor.wait_for(
            lambda: monitor.metric("eddyline_drift_verdicts_total", model="v1") == len(whole), "and counted"
        )
        assert monitor.stop() == 0
        assert (
            f"shop: watching {settings.topics.samples} from offset 0 for drift of v1: 3 panels"
            in monitor.text()
        )
    assert by_episode(verdicts(settings)) == whole
    final = {(each.value, each.kind) for each in whole if each.final}
    assert {(value, Kind.COVARIATE) for value in ("", "basic", "plus")} <= final
    with MonitorProcess(settings, tmp_path, "--model", str(model), usecase=USECASE) as monitor:
        monitor.wait_for(lambda: monitor.metric("eddyline_monitor_watching") == 1, "it watches again")
        assert monitor.stop() == 0
        assert f"from offset {len(DRIFTED)} " in monitor.text()
        assert monitor.metric("eddyline_monitor_samples_total") == 0
    assert len(verdicts(settings)) == len(whole)
    arguments = [
        "drift",
        "--kafka-bootstrap-servers",
        settings.kafka.bootstrap_servers,
        "--topics-drift",
        settings.topics.drift,
    ]
    ran = CliRunner().invoke(eddyline.cli, arguments)
    assert ran.exit_code == 0, ran.output
    assert whole[0].id in ran.output
    ran = CliRunner().invoke(eddyline.cli, [*arguments, whole[0].id])
    assert "What changed" in ran.output


@pytest.mark.timeout(300)
def test_killed_again_and_again_it_says_the_same(broker: Broker, model: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, repeats of workers in the topic: the verdicts are those of a monitor never killed."""
    settings = quick(fresh_settings(broker))
    draw = random.Random(7)
    topic = list(DRIFTED)
    for _ in range(10):
        at = draw.randrange(len(topic) - 60)
        topic[at + 50 : at + 50] = topic[at : at + 50]
    parts = [topic[at : at + 1200] for at in range(0, len(topic), 1200)]
    for part in parts:
        publish(settings, part)
        before = left(settings)
        with MonitorProcess(settings, tmp_path, "--model", str(model), usecase=USECASE) as monitor:
            goal = draw.randrange(1, 1100)
            monitor.wait_for(lambda: left(settings) <= before - goal, "it goes on")  # noqa: B023 — called at once
            monitor.kill()
    with MonitorProcess(settings, tmp_path, "--model", str(model), usecase=USECASE) as monitor:
        monitor.wait_for(lambda: monitor.metric("eddyline_monitor_watching") == 1, "it watches")
        monitor.wait_for(lambda: left(settings) == 0, "all is watched")
        assert monitor.stop() == 0
    assert once(verdicts(settings)) == expected(settings)


@pytest.mark.timeout(300)
def test_a_second_monitor_stands_by_and_takes_over(broker: Broker, model: Path, tmp_path: Path) -> None:
    """It takes nothing from the first, goes on where that was killed or frozen, and is given back to it in turn."""
    settings = quick(fresh_settings(broker))
    third = len(DRIFTED) // 3
    with (
        MonitorProcess(settings, tmp_path, "--model", str(model), usecase=USECASE) as first,
        MonitorProcess(settings, tmp_path, "--model", str(model), usecase=USECASE) as second,
    ):
        both = (first, second)

        def watching() -> list[MonitorProcess]:
            return [each for each in both if each.metric("eddyline_monitor_watching") == 1]

        first.wait_for(lambda: len(watching()) == 1, "one watches")
        publish(settings, DRIFTED[:third])
        first.wait_for(lambda: left(settings) == 0, "the first third is watched")
        (one,) = watching()
        other = second if one is first else first
        assert "shop: watching" not in other.text()
        one.process.send_signal(signal.SIGSTOP)
        publish(settings, DRIFTED[third : 2 * third])
        other.wait_for(lambda: left(settings) == 0, "the standby takes over")
        one.process.send_signal(signal.SIGCONT)
        one.wait_for(lambda: watching() == [other], "the other one stands by")
        other.kill()
        publish(settings, DRIFTED[2 * third :])
        one.wait_for(lambda: left(settings) == 0, "it takes over in turn")
        assert one.stop() == 0
        assert one.text().count("shop: watching") == 2
    assert once(verdicts(settings)) == expected(settings)


def promote(settings: Settings, version: str, directory: Path) -> None:
    """Release a bundle of ``version``, made in ``directory``, whose reference is drawn by its number."""
    registry = Registry(settings.registry.url)
    placed = registry.add(bundle(directory / version, version, seed=int(version.removeprefix("v"))))
    why = Why(reason="a test", by="somebody", created="2023-11-14T00:00:00Z")
    registry.publish(lambda now: transitions.promote(now, placed, share=0.2, **why))


def swapped(values: list[bytes], number: int) -> list[bytes]:
    """``values`` as they are when v2 goes live with the decision of that ``number``; labels of those before are v1's."""
    decoded = [msgspec.json.decode(each) for each in values]
    return [
        msgspec.json.encode(each | {"model": "v2"} if int(each["id"][1:]) >= number else each)
        for each in decoded
    ]


@pytest.mark.timeout(120)
def test_without_a_model_the_releases_are_followed(settings: Settings, tmp_path: Path) -> None:
    """It waits for the first; the next one is watched with its first sample, and what was live keeps its state.

    No sample is passed over, and the verdicts are those of a monitor that knew both from the beginning.
    """
    settings = quick(settings)
    topic = swapped(DRIFTED, CHANGE + 300)
    change = next(at for at, each in enumerate(topic) if b'"v2"' in each)
    with MonitorProcess(settings, tmp_path, usecase=USECASE) as monitor:
        monitor.wait_for(lambda: "for nothing yet: no model is released" in monitor.text(), "it waits")
        promote(settings, "v1", tmp_path)
        monitor.wait_for(lambda: "for drift of v1: 3 panels" in monitor.text(), "it watches the first")
        publish(settings, topic[: change - 100])
        monitor.wait_for(lambda: left(settings) == 0, "all is watched")
        assert monitor.stop() == 0
    late = msgspec.structs.replace(settings.registry, poll_s=3600.0)
    with MonitorProcess(
        msgspec.structs.replace(settings, registry=late), tmp_path, usecase=USECASE
    ) as monitor:
        monitor.wait_for(lambda: monitor.metric("eddyline_monitor_watching") == 1, "it watches again")
        promote(settings, "v2", tmp_path)
        publish(settings, topic[change - 100 :])
        monitor.wait_for(lambda: left(settings) == 0, "the rest is watched")
        assert "for drift of v1, v2: 6 panels" in monitor.text()
        assert monitor.metric("eddyline_monitor_samples_total", kind="unknown-model") == 0
        assert monitor.metric("eddyline_drift_state", model="v2") >= 0
        assert monitor.stop() == 0
    whole = expected(settings, v1=reference(seed=1), v2=reference(seed=2))
    assert once(verdicts(settings)) == whole
    assert {"v1", "v2"} == {each.model for each in whole}


@pytest.mark.timeout(120)
def test_what_a_retired_model_left_open_ends(settings: Settings, tmp_path: Path) -> None:
    """Two promotions later it is not watched: its episodes have their last word, though no sample comes any more."""
    settings = quick(settings)
    promote(settings, "v1", tmp_path)
    with MonitorProcess(settings, tmp_path, usecase=USECASE) as monitor:
        publish(settings, DRIFTED[: 2 * CHANGE + 100])
        monitor.wait_for(lambda: left(settings) == 0, "the drift is seen")
        before = {each.id: each for each in verdicts(settings)}
        assert before
        assert not any(each.final for each in before.values())
        promote(settings, "v2", tmp_path)
        monitor.wait_for(lambda: "for drift of v1, v2: " in monitor.text(), "v1 is beside")
        assert {each.id: each for each in verdicts(settings)} == before
        promote(settings, "v3", tmp_path)
        monitor.wait_for(lambda: "for drift of v2, v3: " in monitor.text(), "v1 is retired")
        monitor.wait_for(lambda: len(verdicts(settings)) > len(before), "and said so")
        assert monitor.stop() == 0
    after = {each.id: each for each in verdicts(settings)}
    assert after.keys() == before.keys()
    assert all(each.final and each.response.action is Action.KEEP for each in after.values())
    with MonitorProcess(settings, tmp_path, usecase=USECASE) as monitor:
        monitor.wait_for(lambda: monitor.metric("eddyline_monitor_watching") == 1, "it starts again")
        assert monitor.stop() == 0
    assert {each.id: each for each in verdicts(settings)} == after


@pytest.mark.timeout(200)
def test_a_broker_that_is_gone_is_waited_for_and_then_told(model: Path, tmp_path: Path) -> None:
    """A restart is survived; a silence longer than set ends the monitor with 1, and the next one misses nothing."""
    with Broker.start(tmp_path / "kafka") as broker:
        settings = quick(fresh_settings(broker))
        publish(settings, DRIFTED[:3000])
        with MonitorProcess(settings, tmp_path, "--model", str(model), usecase=USECASE) as monitor:
            monitor.wait_for(lambda: left(settings) == 0, "the first are watched")
            broker.kill()
            broker.restart()
            publish(settings, DRIFTED[3000:5000])
            monitor.wait_for(lambda: left(settings) == 0, "it goes on")
            assert monitor.stop() == 0
        hasty = msgspec.structs.replace(settings.kafka, delivery_timeout_s=2.0)
        with MonitorProcess(
            msgspec.structs.replace(settings, kafka=hasty), tmp_path, "--model", str(model), usecase=USECASE
        ) as monitor:
            monitor.wait_for(lambda: monitor.metric("eddyline_monitor_watching") == 1, "it watches")
            broker.kill()
            assert monitor.process.wait(60) == 1
            assert "no broker of kafka.bootstrap_servers" in monitor.text()
        broker.restart()
        publish(settings, DRIFTED[5000:])
        with MonitorProcess(settings, tmp_path, "--model", str(model), usecase=USECASE) as monitor:
            monitor.wait_for(lambda: left(settings) == 0, "the rest is watched")
            assert monitor.stop() == 0
        assert once(verdicts(settings)) == expected(settings)


@pytest.mark.timeout(120)
def test_bad_samples_are_dead_letters_and_unknown_models_are_counted(
    settings: Settings, model: Path, tmp_path: Path
) -> None:
    """What is no sample arrives as it came with place and reason; neither holds the others up."""
    settings = quick(settings)
    publish(settings, [*samples(100)[:50], b"no sample", *samples(100)[50:], *samples(30, model="v9")])
    with MonitorProcess(settings, tmp_path, "--model", str(model), usecase=USECASE) as monitor:
        monitor.wait_for(lambda: left(settings) == 0, "all is watched")
        assert monitor.metric("eddyline_monitor_samples_total", kind="scored") == 100
        # Those of v9 have the ids of v1's: a decision is watched once.
        assert monitor.metric("eddyline_monitor_samples_total", kind="repeated") == 30
        publish(settings, [each.replace(b'"d', b'"e', 1) for each in samples(30, model="v9")])
        monitor.wait_for(
            lambda: monitor.metric("eddyline_monitor_samples_total", kind="unknown-model") == 30, "v9"
        )
        assert monitor.metric("eddyline_dead_letters_total", reason=REASON) == 1
        assert monitor.stop() == 0
        assert monitor.text().count("samples of models that are not watched: v9; start the monitor") == 1
    (letter,) = read(settings, settings.topics.dead_letters)
    headers = dict(letter.headers() or [])
    assert (letter.value(), headers["offset"], headers["reason"]) == (b"no sample", b"50", REASON.encode())
    assert str(headers["detail"]).startswith("b'not a record of the samples topic: ")


def test_models_are_looked_for_however_many_there_were_before() -> None:
    """Of a hundred unknown models the oldest is forgotten; one that is known is not looked for at every sample."""

    class Nothing:
        watched, advice, looks = Watched({}), "", 0

        def look(self) -> None:
            self.looks += 1

    models = Nothing()
    settings = Settings(kafka=Kafka(bootstrap_servers="127.0.0.1:1"))
    process = App(settings, models, lambda _: cast(Monitor, None), print)
    monitor = SimpleNamespace(models=set())
    for number in range(PASSED + 20):
        for raw in samples(2, model=f"v{number}"):
            process._missed(
                cast(Monitor, monitor), [cast(Message, SimpleNamespace(value=lambda raw=raw: raw))]
            )
    assert models.looks == PASSED + 20
    assert len(process._passed) == PASSED
    assert f"v{PASSED + 19}" in process._passed


@pytest.mark.timeout(120)
def test_a_flood_of_bad_samples_stops_the_monitor(settings: Settings, model: Path, tmp_path: Path) -> None:
    """Beyond the set share it ends with 1 and says why."""
    settings = msgspec.structs.replace(quick(settings), events=Events(bad_window=200))
    publish(settings, [b"no sample"] * 500)
    with MonitorProcess(settings, tmp_path, "--model", str(model), usecase=USECASE) as monitor:
        assert monitor.process.wait(60) == 1
        assert "of the last 200 records" in monitor.text() or "events.max_bad_ratio = 0.5" in monitor.text()


@pytest.mark.timeout(120)
def test_a_changelog_of_another_topic_is_refused(settings: Settings, model: Path, tmp_path: Path) -> None:
    """Of a topic that was made anew the offsets mean nothing; it would be deaf until they come round."""
    settings = quick(settings)
    publish(settings, DRIFTED[:10])
    aimed = msgspec.structs.replace(settings.topics, events=monitor_changelog(settings.engine.id))
    with EventProducer(msgspec.structs.replace(settings, topics=aimed)) as out:
        out.send_encoded(b'["next"]', b"999")
    with MonitorProcess(settings, tmp_path, "--model", str(model), usecase=USECASE) as monitor:
        assert monitor.process.wait(60) == 1
        assert "goes on at offset 999" in monitor.text()
        assert "which ends at 10: it is not the topic that was watched" in monitor.text()


@pytest.mark.timeout(120)
def test_a_monitor_that_cannot_work_does_not_start(settings: Settings, model: Path, tmp_path: Path) -> None:
    """A topic that is missing and a model of other features are told at once."""
    wrong = msgspec.structs.replace(settings, topics=msgspec.structs.replace(settings.topics, samples="none"))
    with MonitorProcess(wrong, tmp_path, "--model", str(model), usecase=USECASE) as monitor:
        assert monitor.process.wait(60) == 2
        assert "there is no topic none; create it with `eddyline topics`" in monitor.text()
    other = USECASE.replace('price = { kind = "context", field = "price" }', "")
    with MonitorProcess(settings, tmp_path, "--model", str(model), usecase=other) as monitor:
        assert monitor.process.wait(60) == 2
        assert "`price` is numeric in the model and absent in the use case" in monitor.text()


def test_the_monitor_is_small_and_quick_to_start(here: Path, model: Path) -> None:
    """It imports neither TensorFlow nor Faust, nor alibi-detect and river before an alarm, and takes less than 200 MB."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "import detectors.app, detectors.models\n"
        "from tests.drifting import USECASE, usecase\n"
        "declared = usecase(USECASE.replace('witnesses = []', ''))\n"
        f"detectors.models.maker(declared, [Path({str(model)!r})])()\n"
        "heavy = ('tensorflow', 'keras', 'faust', 'aiokafka', 'numba', 'alibi_detect', 'river', 'sklearn', 'torch')\n"
        "print([name for name in heavy if name in sys.modules])\n"
        # Not getrusage's: that of a process counts from its parent's.
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True)
    imported, kilobytes = out.stdout.split("\n")[:2]
    assert imported == "[]"
    assert int(kilobytes) < 200 * 1024
