"""Facts about `eddyline trainer` as a process, with a real Kafka, a real registry and real training: it may be killed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from deploy import transitions
from deploy.registry import Registry
from deploy.release import Role
from deploy.settings import Settings
from model.example_log import ExampleLog
from retrain import history
from retrain.request import State
from tests.builders import USECASE, examples
from tests.jobs import CHANGE, later
from tests.trainers import why
from tests.workers import TrainerProcess

replace = msgspec.structs.replace
RETRAIN = USECASE + '[retrain]\nlabels = 1000\ncooldown = "1s"\ngrowth = 0\n'


def free_port() -> int:
    """A TCP port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.timeout(600)
def test_a_trainer_killed_in_the_middle_of_its_job_is_followed_by_one_that_ends_it(
    settings: Settings, trained: Path, tmp_path: Path
) -> None:
    """A program asks by HTTP after the world has changed; what is trained then is better, and goes live."""
    log = ExampleLog(tmp_path / "log")
    log.append(pa.concat_tables([examples(), later(4000, flipped=True)]), "world")
    registry = Registry(str(tmp_path / "registry"))
    champion = registry.add(trained)
    registry.publish(lambda now: transitions.promote(now, champion, share=0.2, **why()))
    settings = replace(
        settings,
        registry=replace(settings.registry, url=registry.url, poll_s=0.2),
        sink=replace(settings.sink, log=log.url),
        trainer=replace(settings.trainer, port=free_port()),
    )

    def states() -> dict[str, State]:
        return {each.request.id: each.state for each in history.newest(history.records_in(settings))}

    with TrainerProcess(settings, tmp_path, usecase=RETRAIN) as one:
        one.wait_for(lambda: one.metric("eddyline_trainer_active") == 1, "it decides")
        body = json.dumps({"reason": "the world has changed", "id": "program-1", "since": CHANGE}).encode()
        call = urllib.request.Request(f"http://127.0.0.1:{settings.trainer.port}/retrain", body)
        with urllib.request.urlopen(call, timeout=30) as answer:
            assert answer.status == 202
        one.wait_for(lambda: registry.read("jobs/program-1-1/heartbeat.json") is not None, "the job works")
        one.kill()
    assert states() == {"program-1": State.RUNNING}
    with TrainerProcess(settings, tmp_path, usecase=RETRAIN) as other:
        other.wait_for(lambda: registry.read("jobs/program-1-2/spec.json") is not None, "it is tried again")
        other.wait_for(lambda: states()["program-1"].final, "it is done")
        record = next(each for each in history.newest(history.records_in(settings)))
        assert record.state is State.RELEASED, record.reasons
        assert other.metric("eddyline_retrains_total", outcome="released") == 1
        assert other.metric("eddyline_releases_total", change="promote") == 1
        assert other.stop() == 0
    release = registry.latest()
    assert release.live is not None
    assert (release.live.version, release.request) == (record.version, "program-1")
    assert release.beside is not None
    assert (release.beside.model, release.beside.role) == (champion, Role.PREVIOUS)
    assert (record.attempt, record.generation) == (2, 2)


def test_a_trainer_without_its_topics_says_what_to_do(settings: Settings, tmp_path: Path) -> None:
    """Before it does anything."""
    topics = replace(settings.topics, requests="nowhere")
    with TrainerProcess(replace(settings, topics=topics), tmp_path, usecase=USECASE) as trainer:
        assert trainer.process.wait(60) == 2
        assert "there is no topic nowhere; create it with `eddyline topics`" in trainer.text()


def test_the_trainer_imports_neither_tensorflow_nor_ray(here: Path) -> None:
    """Nor Optuna and matplotlib, whichever backend its jobs have: they load what they need themselves."""
    code = (
        "import sys, retrain.app, retrain.commands, retrain.local_job, retrain.ray_job, retrain.web\n"
        "heavy = ('tensorflow', 'keras', 'ray', 'optuna', 'matplotlib', 'faust', 'sklearn')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
