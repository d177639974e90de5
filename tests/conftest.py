"""Fixtures shared by the tests: one real Kafka a session with settings that point at it, and one trained bundle."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import topics
from deploy.settings import Engine, Kafka, Registry, Settings, Sink, Topics
from tests.broker import Broker
from tests.builders import training_process

_numbers = itertools.count(1)


# Files whose tests take minutes, the longest first: begun last, one of them would keep a single process busy at the end.
LONG = (
    "test_faults",
    "test_monitor_process",
    "test_pipeline",
    "test_cli",
    "test_job",
    "test_loop_faults",
    "test_trainer_process",
    "test_feedback_faults",
    "test_sink",
    "test_worker",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A one-node Kafka that lives as long as the session."""
    with Broker.start(tmp_path_factory.mktemp("kafka")) as started:
        yield started


@pytest.fixture
def settings(broker: Broker) -> Settings:
    """Settings of a fresh engine: an id and topics of its own, four partitions each, created."""
    return fresh_settings(broker)


def fresh_settings(broker: Broker, replication: int = 1, partitions: int = 4) -> Settings:
    """Settings of an engine that no test has used yet, with its topics created; its log and registry are empty."""
    number = next(_numbers)
    made = Settings(
        kafka=Kafka(bootstrap_servers=broker.bootstrap, session_timeout_s=3.0),
        topics=Topics(
            events=f"events-{number}",
            scores=f"scores-{number}",
            examples=f"examples-{number}",
            dead_letters=f"dead-{number}",
            samples=f"samples-{number}",
            drift=f"drift-{number}",
            models=f"models-{number}",
            requests=f"requests-{number}",
            retrains=f"retrains-{number}",
            partitions=partitions,
            replication=replication,
        ),
        engine=Engine(id=f"engine-{number}", commit_interval_s=0.2),
        sink=Sink(log=str(broker.directory / f"log-{number}")),
        registry=Registry(url=str(broker.directory / f"registry-{number}"), poll_s=0.2),
    )
    topics.create(made)
    return made


@pytest.fixture
def here(request: pytest.FixtureRequest) -> Path:
    """The repository's root."""
    return request.config.rootpath


@pytest.fixture(scope="session")
def process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Bundle and output of the session's one training process; the bundle is not to be changed."""
    return training_process(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="session")
def trained(process: tuple[Path, str]) -> Path:
    """Bundle of the session's one training process; not to be changed."""
    return process[0]


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """Copy of that bundle, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))
