"""Facts about retrain/performer.py: what it does where a job or the registry does not do as it should. Without a Kafka."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from deploy.registry import Registry
from deploy.settings import Settings
from model.example_log import ExampleLog
from retrain import performer
from retrain.job import JobError, JobState
from retrain.labels import Labels
from retrain.request import State
from tests.drifting import bundle
from tests.trainers import CHANGED, Backend, World, case, first, request, result

replace = msgspec.structs.replace


class Outlet:
    """A topic that takes everything."""

    def __init__(self, *_: object) -> None: ...

    def send(self, *_: object) -> None:
        """Nobody reads it."""

    def flush(self) -> None:
        """Nothing is under way."""


class Refusing(Backend):
    """A cluster that wants another token."""

    def submit(self, spec: Any) -> None:
        """Not with this one."""
        raise JobError(f"{spec.id}: the cluster answers 401; set trainer.ray_token_file")

    def state(self, job: str) -> JobState:
        """Nor does it tell."""
        raise JobError(f"{job}: the cluster answers 401; set trainer.ray_token_file")


class Scene:
    """A performer in a registry where v1 is live, and the controller that it acts for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.world = folder, World()
        self.registry = Registry(str(folder / "registry"))
        placed = self.registry.add(bundle(folder / "v1", "v1"))
        live = replace(first(), live=placed)
        self.registry.publish(lambda _: live)
        self.world.known.released(self.registry.releases())
        time = CHANGED + 1000 * np.arange(2000, dtype=np.int64)
        columns: dict[str, Any] = {"id": [f"d{i}" for i in range(2000)], "time": time, "closes": time + 1000}
        ExampleLog(folder / "log").append(pa.table(columns | {"label": np.zeros(2000, np.int8)}), "examples")
        self.labels = Labels(ExampleLog(folder / "log"), case().training, lambda: 0.0)

    def begin(self, backend: Backend, **trainer: Any) -> Callable[[], None]:
        """What lets a new performer take a turn."""
        usual = Settings()
        settings = replace(
            usual,
            registry=replace(usual.registry, url=self.registry.url, poll_s=0.0),
            trainer=replace(usual.trainer, **trainer),
        )
        registry = Registry(self.registry.url)
        made = performer.Performer(settings, case("growth = 0.5"), registry, backend, lambda _: None)

        def turn() -> None:
            assert made.turn(self.world.controller, self.labels)

        return turn


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A scene of its own, looked at without waiting."""
    monkeypatch.setattr(performer, "Outlet", Outlet)
    monkeypatch.setattr(performer, "LOOK_S", 0.0)
    return Scene(tmp_path)


def running(scene: Scene) -> None:
    """A job runs that an earlier trainer started."""
    scene.world.known.ask(request())
    scene.world.turn()
    assert scene.world.states() == {"hand-1": State.RUNNING}


def test_a_damaged_manifest_of_the_live_version_stops_no_decision(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once of what it is needed for, and requests are decided on."""
    (scene.folder / "registry/versions/v1/bundle/manifest.json").write_text("{")
    turn = scene.begin(Backend())
    scene.world.known.ask(request())
    for _ in range(3):
        turn()
    assert "hand-1" in scene.world.states()
    assert caplog.text.count("the manifest of v1 cannot be read, so growth asks for nothing") == 1


def test_a_job_that_the_cluster_does_not_take_ends(scene: Scene) -> None:
    """With its words, and at once; nothing is tried again that needs a person."""
    turn = scene.begin(Refusing())
    scene.world.known.ask(request())
    turn()
    turn()
    record = scene.world.known.records["hand-1"]
    assert record.state is State.FAILED
    assert "answers 401; set trainer.ray_token_file" in record.reasons[0]


def test_a_job_of_which_nothing_is_ever_heard_ends(scene: Scene) -> None:
    """Whose cluster does not answer the trainer after the one that started it: it waits for `queue_s` and no longer."""
    running(scene)
    turn = scene.begin(Refusing(), queue_s=0.0)
    turn()
    turn()
    record = scene.world.known.records["hand-1"]
    assert record.state is State.FAILED
    assert "trainer.queue_s" in record.reasons[0]


def test_what_attempts_left_each_other_goes_when_the_job_is_done(scene: Scene) -> None:
    """The result and what else tells of it stay."""
    running(scene)
    backend = Backend()
    backend.states["hand-1-1"] = JobState.RUNNING
    turn = scene.begin(backend)
    scene.registry.write("jobs/hand-1/checkpoint/live.npz", b"...")
    turn()
    assert scene.registry.names("jobs/hand-1/checkpoint")
    failed = result(placed=None, gate=None, error="all labels are 0; wait")
    scene.registry.write("jobs/hand-1-1/result.json", msgspec.json.encode(failed))
    turn()
    assert scene.world.states() == {"hand-1": State.FAILED}
    assert scene.registry.names("jobs") == ["jobs/hand-1-1/result.json"]
