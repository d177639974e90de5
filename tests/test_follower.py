"""Facts about deploy/follower.py: what is told of looks at the registry, and what may be away meanwhile."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest
from prometheus_client import REGISTRY

from deploy import transitions
from deploy.follower import Follower, follow
from deploy.hotswap import Swapper
from deploy.registry import Registry
from deploy.settings import Kafka, Settings
from deploy.settings import Registry as RegistrySettings
from tests.builders import CASE
from tests.variants import correction, promoted, publish, variant

NOWHERE = Settings(
    kafka=Kafka(bootstrap_servers="127.0.0.1:1"), registry=RegistrySettings(url="unused", poll_s=0.01)
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty registry in a folder."""
    return Registry(str(tmp_path / "registry"))


@pytest.fixture
def versions(trained: Path, tmp_path: Path) -> list[Path]:
    """Three good bundles."""
    return [variant(trained, tmp_path, name, shift) for name, shift in (("a", 0), ("b", 1), ("c", 2))]


def shown(name: str, **labels: str) -> float | None:
    """A metric of this process; None where there is none with these labels."""
    return REGISTRY.get_sample_value(name, labels)


def test_metrics_have_what_scores_now_and_nothing_else(registry: Registry, versions: list[Path]) -> None:
    """Series of versions that are gone, and of corrections that ended, are removed."""
    follower = Follower(Swapper(registry, CASE), NOWHERE)
    promoted(registry, versions[0])
    publish(registry, transitions.correct, correction(0.5, 0.2), model="a")
    follower.look()
    assert (shown("eddyline_release"), shown("eddyline_correction", model="a")) == (2, 0.2)
    assert shown("eddyline_model_live", model="a", role="live") == 1
    promoted(registry, versions[1])
    follower.look()
    assert shown("eddyline_model_live", model="a", role="live") is None
    assert shown("eddyline_model_live", model="a", role="previous") == 1
    assert shown("eddyline_model_live", model="b", role="live") == 1
    promoted(registry, versions[2])
    follower.look()
    assert shown("eddyline_model_live", model="a", role="previous") is None
    assert shown("eddyline_correction", model="a") is None


def test_a_release_that_changes_no_score_counts_as_no_swap(registry: Registry, versions: list[Path]) -> None:
    """Its number is shown all the same: what is below the registry's is behind."""
    follower = Follower(Swapper(registry, CASE), NOWHERE)
    promoted(registry, versions[0])
    follower.look()
    before = [shown(name) for name in ("eddyline_swaps_total", "eddyline_swap_lag_seconds_count")]
    publish(registry, transitions.pin)
    follower.look()
    assert shown("eddyline_release") == shown("eddyline_registry_release") == 2
    assert before == [shown(name) for name in ("eddyline_swaps_total", "eddyline_swap_lag_seconds_count")]


@pytest.mark.parametrize("there", [False, True])
def test_a_start_without_a_model_is_told_once(
    versions: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, *, there: bool
) -> None:
    """A registry that is empty, or not there at all, may be a wrong URL; with a model there is nothing to tell."""
    url = tmp_path / "registry"
    if there:
        url.mkdir()
    settings = msgspec.structs.replace(NOWHERE, registry=RegistrySettings(url=str(url), poll_s=3600.0))
    with caplog.at_level(logging.WARNING, "deploy.follower"):
        follow(settings, CASE).stop()
    assert [each.split(":")[0] for each in caplog.messages] == [str(url)]
    assert "correct registry.url" in caplog.messages[0]
    assert shown("eddyline_release") == 0
    promoted(Registry(str(url)), versions[0])
    caplog.clear()
    with caplog.at_level(logging.WARNING, "deploy.follower"):
        follow(settings, CASE).stop()
    assert caplog.messages == []


def test_the_same_failure_is_logged_once(
    registry: Registry, versions: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Every look that fails is counted; the log has each distinct error once, until a look is good again."""
    follower = Follower(Swapper(registry, CASE), NOWHERE)
    promoted(registry, versions[0])
    follower.look()
    torn = Path(registry.url, "releases", f"{2:012d}.json")
    before = shown("eddyline_registry_failures_total") or 0
    with caplog.at_level(logging.ERROR):
        for text, times in ((b"{", 3), (b"[]", 2)):
            torn.write_bytes(text)
            for _ in range(times):
                follower.look()
    assert (shown("eddyline_registry_failures_total") or 0) - before == 5
    assert len(caplog.messages) == 2
    torn.unlink()
    follower.look()
    torn.write_bytes(b"[]")
    with caplog.at_level(logging.ERROR):
        follower.look()
    assert len(caplog.messages) == 3
    assert follower.source.current.release.number == 1


def test_it_follows_without_kafka_and_stops(registry: Registry, versions: list[Path]) -> None:
    """With no broker that answers it looks by the clock; stopping ends its thread."""
    swapped = []

    class Noted(Swapper):
        def look(self) -> object:  # type: ignore[override]
            found = super().look()
            if found.swapped:
                swapped.append(found.newest)
                follower._stop.set()
            return found

    follower = Follower(Noted(registry, CASE), NOWHERE)
    follower.start()
    promoted(registry, versions[0])
    follower._thread.join(30)
    assert swapped == [1]
    follower.stop()
    assert not follower._thread.is_alive()


def test_it_follows_without_its_topic(settings: Settings, registry: Registry, versions: list[Path]) -> None:
    """A topic that is not there is no error, and is not made."""
    topics = msgspec.structs.replace(settings.topics, models="no-models")
    follower = Follower(Swapper(registry, CASE), msgspec.structs.replace(settings, topics=topics))
    follower.start()
    promoted(registry, versions[0])
    while shown("eddyline_release") != 1 or follower.source.current.release.number != 1:
        assert follower._thread.is_alive()
    follower.stop()


def test_a_follower_that_was_not_started_stops() -> None:
    """Stopping is allowed at any time."""
    Follower(Swapper(Registry("unused"), CASE), NOWHERE).stop()
