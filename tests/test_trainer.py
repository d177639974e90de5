"""Facts about retrain/app.py, on a real Kafka and a real registry: what is asked for is done, by one trainer, and not twice.

Jobs are told what to say by the test; tests/test_trainer_process.py has real ones.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Producer
from prometheus_client import REGISTRY

from deploy import transitions
from deploy.registry import Registry
from deploy.release import Change, Placed, Release
from deploy.settings import Settings, kafka_producer
from model.example_log import ExampleLog
from retrain import history
from retrain.app import TrainerError, TrainerProcess, check, group
from retrain.gate import GateDecision
from retrain.job import JobState
from retrain.request import Record, RetrainRequest, State, Trigger
from retrain.spec import JobResult
from retrain.verdicts import Action, Estimate, Verdict
from tests import trainers
from tests.drifting import USECASE, bundle
from tests.trainers import Backend, case, verdict
from tests.workers import lag, read

PATIENCE_S = 60.0
RETRAIN = '[retrain]\nlabels = 100\ncooldown = "1s"\nwatch_labels = 1000\n'
BEGIN = trainers.CHANGED


class Trainer:
    """A trainer's process in a thread; what it said is in ``said``."""

    def __init__(self, settings: Settings, backend: Backend) -> None:
        self.said: list[str] = []
        text = USECASE + RETRAIN
        self._process = TrainerProcess(
            settings, case(RETRAIN.partition("\n")[2]), text, backend, self.said.append
        )
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._process.run()
        except BaseException as error:  # noqa: BLE001  # raised in the test's thread
            self._error = error

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Until ``condition`` holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if self._error is not None:
                raise self._error
            assert time.monotonic() < deadline, f"{what}; it said {self.said}"
            time.sleep(0.02)

    def deciding(self) -> bool:
        """Whether it has taken over."""
        return any("deciding as" in line for line in self.said)

    def stop(self) -> None:
        """As by SIGTERM."""
        self._process.stop()
        self._thread.join(PATIENCE_S)
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()
        self._thread.join(PATIENCE_S)


class Scene:
    """An engine with v1 live, v2 in the registry, and 499 labels known since the change."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        replace = msgspec.structs.replace
        self.settings = replace(
            settings,
            registry=replace(settings.registry, url=str(folder / "registry"), poll_s=0.1),
            sink=replace(settings.sink, log=str(folder / "log")),
            kafka=replace(settings.kafka, session_timeout_s=2.0),
        )
        self.folder, self.backend = folder, Backend()
        self.registry = Registry(self.settings.registry.url)
        self.v1, self.v2 = (self.registry.add(bundle(folder / v, v)) for v in ("v1", "v2"))
        self.registry.publish(
            lambda now: transitions.promote(now, self.v1, share=0.2, **trainers.why(trainers.NOW))
        )
        n = 500
        time_ = BEGIN + 60_000 * np.arange(n, dtype=np.int64)
        columns: dict[str, Any] = {"id": [f"d{i}" for i in range(n)], "time": time_, "closes": time_ + 1000}
        columns["label"] = np.tile(np.array([0, 1], np.int8), n // 2)
        ExampleLog(folder / "log").append(pa.table(columns), "examples")

    def trainer(self) -> Trainer:
        """Another trainer."""
        return Trainer(self.settings, self.backend)

    def produce(self, topic: str, *values: Any) -> None:
        """Write ``values`` as JSON, or as they are if they are bytes."""
        producer = Producer(kafka_producer(self.settings.kafka))
        for value in values:
            producer.produce(topic, value if isinstance(value, bytes) else msgspec.json.encode(value))
        assert producer.flush(60) == 0

    def hear(self, *verdicts: Verdict) -> None:
        """What the monitor does."""
        self.produce(self.settings.topics.drift, *verdicts)

    def ask(self, **changed: Any) -> None:
        """What a person does."""
        self.produce(self.settings.topics.requests, trainers.request(**changed))

    def finish(self, job: str, placed: Placed | None = None, *, passed: bool = True) -> None:
        """What a job does that made ``placed``, v2 if not given."""
        placed = placed or self.v2
        gate: GateDecision = trainers.gate(passed=passed, challenger=placed.version)
        found = JobResult(placed=placed, gate=gate, rows=500, seconds=3.0)
        self.registry.write(f"jobs/{job}/result.json", msgspec.json.encode(found))
        self.backend.states[job] = JobState.SUCCEEDED

    def records(self) -> list[Record]:
        """What the trainers have written."""
        return list(history.records_in(self.settings))

    def states(self) -> dict[str, State]:
        """What became of each request."""
        return {each.request.id: each.state for each in history.newest(self.records())}

    def changes(self) -> list[Change]:
        """The release log after the first release, without claims."""
        return [each.change for each in self.registry.releases()[1:] if each.change is not Change.CLAIM]

    def announced(self) -> list[Release]:
        """The models topic."""
        found = []
        for message in read(self.settings, self.settings.topics.models):
            value = message.value()
            assert isinstance(value, bytes)
            assert message.key() == b"shop"
            found.append(msgspec.json.decode(value, type=Release))
        return found


@pytest.fixture
def scene(settings: Settings, tmp_path: Path) -> Scene:
    """A scene of its own."""
    return Scene(settings, tmp_path)


def failures(what: str) -> float:
    """The metric of what could not be done."""
    return REGISTRY.get_sample_value("eddyline_trainer_failures_total", {"what": what}) or 0.0


def pair(number: int, score: float, other: float) -> dict[str, object]:
    """A positive decision of v2 that v1 scored, too."""
    return {
        "id": f"d{number}",
        "type": "offer",
        "time": 1,
        "model": "v2",
        "score": score,
        "label": 1,
        "beside": {"model": "v1", "score": other},
        "features": {},
    }


def test_from_a_verdict_to_a_live_model_and_back(scene: Scene) -> None:
    """It is trained for, released, announced; and rolled back as soon as labels show that it is worse."""
    with scene.trainer() as trainer:
        scene.hear(verdict(Action.RETRAIN))
        trainer.wait_for(lambda: scene.backend.submitted, "a job is started")
        spec = scene.backend.submitted[0]
        raw = scene.registry.read(f"{spec.folder}/spec.json")
        assert raw == msgspec.json.encode(spec)
        assert spec.champion == scene.v1
        assert (spec.usecase, spec.examples) == (USECASE + RETRAIN, str(scene.folder / "log"))
        scene.finish(spec.id)
        trainer.wait_for(lambda: scene.changes() == [Change.PROMOTE], "it is released")
        trainer.wait_for(lambda: State.RELEASED in scene.states().values(), "and recorded")
        scene.produce(scene.settings.topics.samples, *[pair(number, 0.4, 0.7) for number in range(200)])
        trainer.wait_for(lambda: scene.changes() == [Change.PROMOTE, Change.ROLLBACK], "it is rolled back")
        trainer.wait_for(lambda: State.ROLLED_BACK in scene.states().values(), "and recorded")
    release = scene.registry.latest()
    assert release.live == scene.v1
    assert release.by == "watch"
    assert [each.change for each in scene.announced()] == [Change.CLAIM, Change.PROMOTE, Change.ROLLBACK]
    record = next(each for each in scene.records() if each.state is State.RUNNING)  # the last window is open
    assert "499 labels" in record.reasons[0]


def test_a_label_shift_is_corrected_from_the_base_rate_of_the_bundle(scene: Scene) -> None:
    """Which the trainer reads from the registry."""
    with scene.trainer() as trainer:
        scene.hear(verdict(Action.CORRECT_PRIOR, prior_counted=Estimate(0.9, 0.85, 0.95)))
        trainer.wait_for(lambda: scene.changes() == [Change.CORRECT], "it is corrected")
    live = scene.registry.latest().live
    assert live is not None
    assert live.correction is not None
    assert live.correction.now == 0.9
    assert live.correction.before == pytest.approx(0.5, abs=0.1)  # as the reference's labels are
    assert scene.backend.submitted == []


def test_the_next_trainer_takes_up_the_running_job(scene: Scene) -> None:
    """By another generation; the job goes on, and what it made is released once."""
    with scene.trainer() as one:
        scene.ask()
        one.wait_for(lambda: scene.backend.submitted, "a job is started")
        one.wait_for(
            lambda: lag(scene.settings, scene.settings.topics.requests, group(scene.settings)) == 0,
            "committed",
        )
        one.stop()
    scene.backend.states["hand-1-1"] = JobState.RUNNING  # as on a cluster, where it outlives the trainer
    with scene.trainer() as other:
        other.wait_for(other.deciding, "the other takes over")
        scene.finish("hand-1-1")
        other.wait_for(lambda: scene.states() == {"hand-1": State.RELEASED}, "it is released")
    assert len(scene.backend.submitted) == 1
    assert scene.changes() == [Change.PROMOTE]
    assert scene.registry.latest().generation == 2


def test_a_job_that_died_with_its_trainer_is_started_again(scene: Scene) -> None:
    """As the next attempt."""
    with scene.trainer() as one:
        scene.ask()
        one.wait_for(lambda: scene.backend.submitted, "a job is started")
        scene.registry.write("jobs/hand-1-1/heartbeat.json", b'{"at": 1.0, "phase": "fitting"}')
        one.stop()
    scene.backend.states["hand-1-1"] = JobState.LOST
    with scene.trainer() as other:
        other.wait_for(lambda: len(scene.backend.submitted) == 2, "the next attempt")
        assert scene.backend.submitted[1].id == "hand-1-2"
        scene.finish("hand-1-2")
        other.wait_for(lambda: scene.states() == {"hand-1": State.RELEASED}, "it is released")


def test_of_two_trainers_one_decides_and_the_other_goes_on_when_it_ends(scene: Scene) -> None:
    """Nothing is done twice, and nothing is lost that came in between."""
    with scene.trainer() as one, scene.trainer() as other:
        one.wait_for(lambda: one.deciding() or other.deciding(), "one decides")
        active, standby = (one, other) if one.deciding() else (other, one)
        scene.ask()
        active.wait_for(lambda: scene.states() == {"hand-1": State.RUNNING}, "it is trained for")
        scene.finish("hand-1-1", passed=False)
        active.wait_for(lambda: scene.states() == {"hand-1": State.KEPT}, "the gate keeps it")
        active.stop()
        scene.ask(id="hand-2", urgent=True)
        standby.wait_for(lambda: "hand-2" in scene.states(), "the other decides")
    assert [spec.id for spec in scene.backend.submitted] == ["hand-1-1", "hand-2-1"]


def test_a_trainer_whose_registry_another_claims_decides_no_more(scene: Scene) -> None:
    """The release log fences it: two engines must not share one."""
    with scene.trainer() as trainer:
        trainer.wait_for(trainer.deciding, "it decides")
        scene.registry.publish(
            lambda now: transitions.claim(now, reason="another", by="trainer", created=trainers.iso(0))
        )
        trainer.wait_for(
            lambda: any("another trainer has claimed" in line for line in trainer.said), "it says so"
        )
        scene.ask()
        assert scene.states() == {}


def test_a_registry_that_is_gone_for_a_while_loses_nothing(scene: Scene) -> None:
    """It is tried again; what was asked meanwhile is done then."""
    with scene.trainer() as trainer:
        trainer.wait_for(trainer.deciding, "it decides")
        home, before = scene.folder / "registry", failures("registry")
        home.rename(scene.folder / "away")
        home.write_text("not a folder")
        scene.ask()
        scene.hear(verdict(Action.RETRAIN))
        trainer.wait_for(lambda: failures("registry") > before, "it notices")
        assert scene.backend.submitted == []
        home.unlink()
        (scene.folder / "away").rename(home)
        trainer.wait_for(lambda: len(scene.states()) == 2, "both are answered")
        assert len(scene.backend.submitted) == 1


def test_bad_records_stop_nothing(scene: Scene) -> None:
    """A request that is none becomes a dead letter; a bad verdict or sample is passed over."""
    topics = scene.settings.topics
    scene.produce(topics.drift, b"no verdict", {"id": 1})
    with scene.trainer() as trainer:
        trainer.wait_for(trainer.deciding, "it decides")
        forged = msgspec.structs.replace(trainers.request(id="x"), trigger=Trigger.VERDICT)
        scene.produce(topics.requests, b"{", forged)
        scene.produce(topics.samples, b'{"label": "beside"}')
        scene.produce(topics.drift, b"\xff")
        scene.ask()
        trainer.wait_for(lambda: scene.states() == {"hand-1": State.RUNNING}, "the good one is answered")
        trainer.wait_for(
            lambda: lag(scene.settings, topics.requests, group(scene.settings)) == 0, "committed"
        )
    letters = read(scene.settings, topics.dead_letters)
    assert [dict(letter.headers() or [])["reason"] for letter in letters] == [b"not-a-request"] * 2
    assert b"ask by themselves" in (dict(letters[1].headers() or [])["detail"] or b"")


def test_a_request_that_comes_again_is_one(scene: Scene) -> None:
    """By its id, also after a restart."""
    for _ in range(2):
        with scene.trainer() as trainer:
            scene.ask()
            trainer.wait_for(
                lambda: lag(scene.settings, scene.settings.topics.requests, group(scene.settings)) == 0,
                "committed",
            )
            trainer.wait_for(lambda: scene.states().get("hand-1") is State.RUNNING, "it runs")
            trainer.stop()
        scene.backend.states["hand-1-1"] = JobState.RUNNING
    assert len(scene.backend.submitted) == 1


def test_pairs_of_before_a_restart_count_after_it(scene: Scene) -> None:
    """The evidence is computed again from the samples, from the release on that put the other model beside."""
    samples = scene.settings.topics.samples
    scene.produce(samples, *[pair(number, 0.1, 0.9) for number in range(1000, 1010)])  # before the release
    with scene.trainer() as one:
        one.wait_for(one.deciding, "it decides")
        scene.registry.publish(
            lambda now: transitions.promote(
                now, scene.v2, share=0.2, **trainers.why(time.time_ns() // 1_000_000)
            )
        )
        scene.produce(samples, *[pair(number, 0.4, 0.7) for number in range(15)])
        one.wait_for(lambda: scene.registry.latest().beside is not None, "it is released")
        one.stop()
    assert scene.changes() == [Change.PROMOTE]
    with scene.trainer() as other:
        other.wait_for(other.deciding, "the other decides")
        scene.produce(samples, *[pair(number, 0.4, 0.7) for number in range(10, 60)])
        other.wait_for(lambda: scene.changes() == [Change.PROMOTE, Change.ROLLBACK], "it is rolled back")
    reason = scene.registry.latest().reason
    assert "nats of log-loss on " in reason
    pairs = int(reason.partition("log-loss on ")[2].split()[0])
    assert 15 < pairs <= 60


def test_the_request_of_a_person_is_typed_and_followed(scene: Scene) -> None:
    """`RetrainRequest` survives the topic; :func:`retrain.history.follow` tells its states to the end."""
    sent: RetrainRequest = trainers.request(id=history.new_id("hand"))
    history.send(scene.settings, sent)
    with scene.trainer() as trainer:
        trainer.wait_for(lambda: scene.states() == {sent.id: State.RUNNING}, "it runs")
        scene.finish(f"{sent.id}-1", passed=False)
        told = [record.state for record in history.follow(scene.settings, sent.id)]
    assert told == [State.RUNNING, State.KEPT]


def test_a_registry_that_cannot_serve_is_told_at_the_start(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that takes no files ends it; one in which nothing is released may be another than the workers'."""
    replace = msgspec.structs.replace

    def at(url: Path) -> Settings:
        return replace(settings, registry=replace(settings.registry, url=str(url)))

    (tmp_path / "file").write_text("no folder")
    with pytest.raises(TrainerError, match=r"cannot be written: .* needs a folder that takes files"):
        check(at(tmp_path / "file"))
    check(at(tmp_path / "empty"))
    assert "empty: nothing is released, so there is no model to watch" in caplog.text
    assert Registry(str(tmp_path / "empty")).names("") == []
