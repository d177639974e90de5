"""Facts about the loop when a part of it fails: worker and trainer as processes, a real Kafka, a real registry.

In each of them the live model goes on scoring, and what was broken heals or says what to do. Other faults have their
tests where the part has: a killed worker and a corrupt version in tests/test_worker_swap.py, a killed trainer and its
job in tests/test_trainer_process.py, a killed Ray worker, node and head in tests/test_job.py, and a worse challenger
that the gate refuses in tests/test_pipeline.py.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import pyarrow as pa
import pytest
from click.testing import CliRunner

from deploy.commands import models
from deploy.registry import Registry
from deploy.release import Change, Release
from deploy.settings import Settings
from model.example_log import ExampleLog
from model.usecase import parse
from retrain import app, history
from retrain.local_job import LocalBackend
from retrain.request import Record, State
from stream.scoring import Score
from tests import trainers
from tests.builders import USECASE, examples
from tests.jobs import later
from tests.test_replay import customers
from tests.variants import promoted, variant
from tests.workers import TrainerProcess, Worker, lag, read, send

replace = msgspec.structs.replace
RETRAIN = USECASE + '[retrain]\nlabels = 1000\ncooldown = "1s"\ngrowth = 0\n'
PARTS, PART = 3, 3000  # events; a window closes after 1,008 of them
PATIENCE_S = 120.0


@pytest.fixture(scope="session")
def versions(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of what `customers` do the one knows more, and the other is worse by about one nat of log-loss."""
    folder = tmp_path_factory.mktemp("versions")
    return {name: variant(trained, folder, name, shift) for name, shift in (("good", -4.0), ("bad", 2.0))}


@pytest.fixture
def parts() -> list[list[dict[str, Any]]]:
    """Events in :data:`PARTS` parts."""
    events = customers(PARTS * PART, users=200, seed=5)
    return [events[begin : begin + PART] for begin in range(0, len(events), PART)]


class Disk:
    """A small file system of its own: full or read-only it is for root as well."""

    def __init__(self, folder: Path, kib: int) -> None:
        folder.mkdir()
        self.folder, self._filler = folder, folder / "filler"
        self._mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs")

    def read_only(self) -> None:
        """Take no more files; who is writing one now may end that."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._mount("-o", "remount,ro")
            except subprocess.CalledProcessError:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def fill(self, room: int) -> None:
        """Leave about ``room`` bytes."""
        with self._filler.open("wb", buffering=0) as file:
            file.write(bytes(shutil.disk_usage(self.folder).free - room))

    def mend(self) -> None:
        """Take files again."""
        self._mount("-o", "remount,rw")
        self._filler.unlink(missing_ok=True)

    def remove(self) -> None:
        """End, at the latest when nobody uses it any more."""
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    def _mount(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments, self.folder], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """4 MiB, empty; only root may make one."""
    try:
        made = Disk(tmp_path / "disk", 4096)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield made
    made.remove()


def at(settings: Settings, url: Path) -> tuple[Settings, Registry]:
    """``settings`` with the registry at ``url``, and that."""
    return replace(settings, registry=replace(settings.registry, url=str(url))), Registry(str(url))


def command(settings: Settings, *arguments: str) -> str:
    """What `eddyline models` prints."""
    name, *rest = arguments
    flags = ["--registry-url", settings.registry.url]
    if name == "promote":
        flags += ["--kafka-bootstrap-servers", settings.kafka.bootstrap_servers]
        flags += ["--topics-models", settings.topics.models]
    done = CliRunner().invoke(models, [name, *flags, *rest], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def by(settings: Settings, events: Sequence[dict[str, Any]]) -> set[str]:
    """The versions that scored the decisions among ``events``; none of these is without a score, and none has two."""
    found: dict[str, list[str]] = {each["id"]: [] for each in events if each["type"] == "offer"}
    for message in read(settings, settings.topics.scores):
        score = msgspec.json.decode(message.value() or b"", type=Score)
        if score.id in found:
            found[score.id].append(score.model)
    assert {len(each) for each in found.values()} == {1}
    return {each[0] for each in found.values()}


def newest(settings: Settings) -> dict[str, Record]:
    """What became of each request."""
    return {each.request.id: each for each in history.newest(history.records_in(settings))}


def active(trainer: TrainerProcess) -> bool:
    """Whether it is the one that decides."""
    return trainer.metric("eddyline_trainer_active") == 1


def rolled_back(registry: Registry) -> Release | None:
    """The release that holds, if it is a rollback."""
    now = registry.latest()
    return now if now.change is Change.ROLLBACK else None


# --- a worse model past the gate


def test_a_worse_model_planted_past_the_gate_is_rolled_back(
    settings: Settings, versions: dict[str, Path], parts: list[list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Promoted by hand, it serves until labels tell; the watch says why in the log, and no decision goes without a score."""
    registry = Registry(settings.registry.url)
    promoted(registry, versions["good"])
    registry.add(versions["bad"])
    with (
        Worker(settings, tmp_path, usecase=USECASE) as worker,
        TrainerProcess(settings, tmp_path, usecase=RETRAIN) as trainer,
    ):
        trainer.wait_for(lambda: active(trainer), "it decides")
        send(settings, parts[0])
        worker.wait_for(lambda: lag(settings) == 0, "the first are scored")
        command(settings, "promote", "bad", "--share", "1.0", "--reason", "it looks fine to me")
        worker.wait_for(lambda: worker.metric("eddyline_model_live", model="bad", role="live") == 1, "live")
        send(settings, parts[1])
        trainer.wait_for(lambda: rolled_back(registry) is not None, "labels tell")
        worker.wait_for(lambda: worker.metric("eddyline_model_live", model="good", role="live") == 1, "back")
        worker.wait_for(lambda: lag(settings) == 0, "the second are scored")
        send(settings, parts[2])
        worker.wait_for(lambda: lag(settings) == 0, "all are scored")
        trainer.wait_for(
            lambda: trainer.metric("eddyline_releases_total", change="rollback") == 1, "it is counted"
        )
        assert (trainer.stop(), worker.stop()) == (0, 0)
    assert [by(settings, parts[0]), by(settings, parts[2])] == [{"good"}, {"good"}]
    assert "bad" in by(settings, parts[1])
    log = [json.loads(line) for line in command(settings, "log", "--json").splitlines()]
    assert [(each["change"], each["by"]) for each in log[-2:]] == [
        ("promote", log[-2]["by"]),
        ("rollback", "watch"),
    ]
    assert log[-2]["reason"] == "it looks fine to me"
    assert log[-1]["live"]["version"] == "good"
    assert log[-1]["reason"].startswith("bad is worse than good by +")
    assert "nats of log-loss on" in log[-1]["reason"]


def test_a_worse_model_is_rolled_back_as_soon_as_the_registry_takes_files_again(
    disk: Disk,
    settings: Settings,
    versions: dict[str, Path],
    parts: list[list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    """Read-only, it lets nobody publish: the trainer says once what to do, what is live scores on, and no evidence is lost."""
    settings, registry = at(settings, disk.folder / "registry")
    promoted(registry, versions["good"])
    with (
        Worker(settings, tmp_path, usecase=USECASE) as worker,
        TrainerProcess(settings, tmp_path, usecase=RETRAIN) as trainer,
    ):
        trainer.wait_for(lambda: active(trainer), "it decides")
        planted = promoted(registry, versions["bad"], share=1.0)
        worker.wait_for(lambda: worker.metric("eddyline_release") == planted.number, "it is live")
        disk.read_only()
        send(settings, [*parts[0], *parts[1]])
        trainer.wait_for(
            lambda: trainer.metric("eddyline_trainer_failures_total", what="registry") > 2, "it tries"
        )
        worker.wait_for(lambda: lag(settings) == 0, "all are scored")
        assert registry.latest() == planted
        assert worker.metric("eddyline_release") == planted.number
        disk.mend()
        trainer.wait_for(lambda: rolled_back(registry) is not None, "now it is rolled back")
        worker.wait_for(lambda: worker.metric("eddyline_model_live", model="good", role="live") == 1, "back")
        send(settings, parts[2])
        worker.wait_for(lambda: lag(settings) == 0, "all are scored")
        assert (trainer.stop(), worker.stop()) == (0, 0)
    assert trainer.text().count("cannot be written: Read-only file system") == 1
    assert "the registry needs a folder that takes files and hard links, with room left" in trainer.text()
    assert [by(settings, [*parts[0], *parts[1]]), by(settings, parts[2])] == [{"bad"}, {"good"}]


# --- a registry that cannot be used


def test_a_registry_that_cannot_be_read_stops_no_scoring(
    settings: Settings, versions: dict[str, Path], parts: list[list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Worker and trainer count it and say it once; when it is mended a promotion goes through, and requests are answered."""
    registry = Registry(settings.registry.url)
    promoted(registry, versions["good"])
    releases, away = Path(registry.url, "releases"), Path(registry.url, "away")
    with (
        Worker(settings, tmp_path, usecase=USECASE) as worker,
        TrainerProcess(settings, tmp_path, usecase=RETRAIN) as trainer,
    ):
        trainer.wait_for(lambda: active(trainer), "it decides")
        worker.wait_for(
            lambda: worker.metric("eddyline_release") == registry.latest().number, "it has followed"
        )
        releases.rename(away)
        releases.symlink_to(releases)  # who opens it gets an error that is not "there is none", root as well
        worker.wait_for(lambda: worker.metric("eddyline_registry_failures_total") > 2, "it notices")
        trainer.wait_for(
            lambda: trainer.metric("eddyline_trainer_failures_total", what="registry") > 2, "it does, too"
        )
        send(settings, parts[0])
        history.send(settings, trainers.request())
        worker.wait_for(lambda: lag(settings) == 0, "the first are scored")
        assert by(settings, parts[0]) == {"good"}
        releases.unlink()
        away.rename(releases)
        trainer.wait_for(lambda: "hand-1" in newest(settings), "the request is answered")
        release = promoted(registry, versions["bad"])
        worker.wait_for(lambda: worker.metric("eddyline_release") == release.number, "the next one is live")
        send(settings, parts[1])
        worker.wait_for(lambda: lag(settings) == 0, "all are scored")
        assert active(trainer)
        assert (trainer.stop(), worker.stop()) == (0, 0)
    assert by(settings, parts[1]) == {"bad"}
    assert newest(settings)["hand-1"].state is State.WAITING  # for labels: there are none
    for process in (worker, trainer):
        assert process.text().count("make the registry readable") == 1


class Trainer:
    """A trainer in a thread whose jobs are real, and of few epochs."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.said: list[str] = []
        backend = LocalBackend(
            folder, lambda spec: (sys.executable, "-m", "tests.small_job", spec.registry, spec.id)
        )
        self._process = app.TrainerProcess(settings, parse(RETRAIN), RETRAIN, backend, self.said.append)
        self._thread = threading.Thread(target=self._process.run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()
        self._thread.join(PATIENCE_S)


def test_a_version_that_finds_no_room_is_not_there(
    disk: Disk,
    settings: Settings,
    versions: dict[str, Path],
    parts: list[list[dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The job fails and the history tells why and what to do; nothing of the version is listed, and what is live scores on."""
    monkeypatch.setenv("EPOCHS", "1")
    log = ExampleLog(tmp_path / "log")
    log.append(pa.concat_tables([examples(), later(1000)]), "world")
    settings, registry = at(settings, disk.folder / "registry")
    settings = replace(
        settings,
        sink=replace(settings.sink, log=log.url),
        trainer=replace(settings.trainer, attempts=1),
    )
    promoted(registry, versions["good"])
    with Worker(settings, tmp_path, usecase=USECASE) as worker, Trainer(settings, tmp_path / "jobs"):
        worker.wait_for(lambda: registry.latest().change is Change.CLAIM, "the trainer decides")
        disk.fill(room=64 * 1024)  # less than a version takes
        history.send(settings, trainers.request())
        worker.wait_for(lambda: "hand-1" in newest(settings), "a job is started")
        send(settings, parts[0])
        worker.wait_for(lambda: newest(settings)["hand-1"].state.final, "it ends")
        worker.wait_for(lambda: lag(settings) == 0, "the first are scored")
        record = newest(settings)["hand-1"]
        assert record.state is State.FAILED
        assert "cannot be written: No space left on device" in record.reasons[0]
        assert record.reasons[0].endswith("needs a folder that takes files and hard links, with room left")
        assert [json.loads(line)["version"] for line in command(settings, "list", "--json").splitlines()] == [
            "good"
        ]
        assert not list(disk.folder.rglob("*.writing"))
        disk.mend()
        release = promoted(registry, versions["bad"])
        worker.wait_for(lambda: worker.metric("eddyline_release") == release.number, "there is room again")
        assert worker.stop() == 0
    assert by(settings, parts[0]) == {"good"}


# --- two trainers at once


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_the_trainer_that_stands_by_takes_over(
    end: signal.Signals, settings: Settings, versions: dict[str, Path], tmp_path: Path
) -> None:
    """As the next generation, once the first is silent; one that had only hung decides nothing more when it wakes up."""
    registry = Registry(settings.registry.url)
    promoted(registry, versions["good"])
    with (
        TrainerProcess(settings, tmp_path, usecase=RETRAIN) as one,
        TrainerProcess(settings, tmp_path, usecase=RETRAIN) as two,
    ):
        one.wait_for(lambda: active(one) or active(two), "one decides")
        first, second = (one, two) if active(one) else (two, one)
        history.send(settings, trainers.request(id="hand-1"))
        first.wait_for(lambda: "hand-1" in newest(settings), "it is answered")
        first.process.send_signal(end)
        history.send(settings, trainers.request(id="hand-2"))
        second.wait_for(lambda: "hand-2" in newest(settings), "the other answers")
        assert registry.latest().generation == 2
        if end is signal.SIGSTOP:
            first.process.send_signal(signal.SIGCONT)
            first.wait_for(lambda: not active(first) and "another trainer" in first.text(), "it gives up")
        history.send(settings, trainers.request(id="hand-3"))
        second.wait_for(lambda: "hand-3" in newest(settings), "the other answers still")
        assert active(second)
        assert second.stop() == 0
        if end is signal.SIGSTOP:  # and now it is its turn again
            history.send(settings, trainers.request(id="hand-4"))
            first.wait_for(lambda: "hand-4" in newest(settings), "it answers")
            assert first.stop() == 0
    claims = 3 if end is signal.SIGSTOP else 2
    assert [each.generation for each in registry.releases() if each.change is Change.CLAIM] == [
        *range(1, claims + 1)
    ]
    answers = [each.request.id for each in history.records_in(settings)]
    assert len(answers) == len(set(answers)) == claims + 1
