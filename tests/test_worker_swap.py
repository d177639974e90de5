"""Facts about a worker that follows the registry, as a user of its topics sees it, on a real Kafka."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy import transitions
from deploy.announce import announce
from deploy.live import chosen
from deploy.registry import Registry
from deploy.settings import Settings
from model.bundle import MODEL
from model.scorer import LiteRTScorer
from stream.scoring import Other, Score
from tests.builders import USECASE
from tests.test_replay import customers, replayed
from tests.variants import promoted, publish, variant
from tests.workers import Worker, lag, read, send

PARTS, PART = 4, 3000  # events


@pytest.fixture
def versions(trained: Path, tmp_path: Path) -> dict[str, Path]:
    """Three good bundles, each with scores of its own."""
    return {
        name: variant(trained, tmp_path / "made", name, shift)
        for name, shift in (("a", 0), ("b", 1), ("c", -1))
    }


@pytest.fixture
def registry(settings: Settings) -> Registry:
    """The worker's registry, empty."""
    return Registry(settings.registry.url)


def parts() -> list[list[dict[str, Any]]]:
    """Events in :data:`PARTS` parts."""
    events = customers(PARTS * PART, users=200, seed=5)
    return [events[begin : begin + PART] for begin in range(0, len(events), PART)]


def scores(settings: Settings) -> dict[str, list[Score]]:
    """Every record of the scores topic by the decision's id, in the order in which they were written."""
    found: defaultdict[str, list[Score]] = defaultdict(list)
    for message in read(settings, settings.topics.scores):
        score = msgspec.json.decode(message.value() or b"", type=Score)
        found[score.id].append(score)
    return found


def expected(events: Sequence[dict[str, Any]], versions: dict[str, Path]) -> dict[str, dict[str, float]]:
    """By version and decision, the score that it gives: a replay's, which is the worker's to the bit."""
    given = {}
    for version, bundle in versions.items():
        results, _ = replayed(list(events), LiteRTScorer.load(bundle))
        given[version] = {score.id: score.score for each in results for score in each.scores}
    return given


def models(found: dict[str, list[Score]], events: Sequence[dict[str, Any]]) -> set[str]:
    """The versions that scored the decisions among ``events``."""
    return {score.model for each in events if each["type"] == "offer" for score in found[each["id"]]}


def test_a_running_worker_goes_over_to_what_is_released(
    settings: Settings, registry: Registry, versions: dict[str, Path], tmp_path: Path
) -> None:
    """Priors, then one version, then the next while events flow: each score is the named version's, none is missing."""
    chunks = parts()
    with Worker(settings, tmp_path, usecase=USECASE) as worker:
        send(settings, chunks[0])
        worker.wait_for(lambda: lag(settings) == 0, "the first are scored with priors")
        promoted(registry, versions["a"])
        worker.wait_for(lambda: worker.metric("eddyline_release") == 1, "the first version is live")
        send(settings, chunks[1])
        sending = threading.Thread(target=send, args=(settings, chunks[2]))
        sending.start()
        release = promoted(registry, versions["b"])
        sending.join()
        worker.wait_for(
            lambda: worker.metric("eddyline_release") == release.number, "the second version is live"
        )
        send(settings, chunks[3])
        worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
        live = {
            (version, role): worker.metric("eddyline_model_live", model=version, role=role)
            for version, role in (("a", "live"), ("a", "previous"), ("b", "live"))
        }
        assert {("a", "live"): 0.0, ("a", "previous"): 1.0, ("b", "live"): 1.0} == live
        assert worker.metric("eddyline_swaps_total") == 2
        assert worker.metric("eddyline_swap_lag_seconds_count") == 2
        assert worker.metric("eddyline_decisions_total", model="b") > 0
        assert worker.stop() == 0
    events, found = [each for chunk in chunks for each in chunk], scores(settings)
    decisions = {each["id"] for each in events if each["type"] == "offer"}
    assert decisions == set(found)
    assert all(len(each) == 1 for each in found.values())
    assert [{"prior"}, {"b"}] == [models(found, chunks[0]), models(found, chunks[3])]
    assert models(found, chunks[1]) | models(found, chunks[2]) <= {"a", "b"}
    given = expected(events, versions)
    for (score,) in found.values():
        if score.model == "prior":
            continue
        assert given[score.model][score.id] == score.score
        if isinstance(score.beside, Other):
            assert given[score.beside.model][score.id] == score.beside.score
        assert isinstance(score.beside, Other) == (score.model == "b" and chosen(score.user, 0.25))


def test_an_announcement_is_enough(
    settings: Settings, registry: Registry, versions: dict[str, Path], tmp_path: Path
) -> None:
    """A worker that looks by itself once an hour goes over as soon as a release is announced."""
    settings = msgspec.structs.replace(
        settings, registry=msgspec.structs.replace(settings.registry, poll_s=3600.0)
    )
    promoted(registry, versions["a"])
    with Worker(settings, tmp_path, usecase=USECASE) as worker:
        worker.wait_for(
            lambda: worker.metric("eddyline_release") == 1, "its first look found the first release"
        )
        release = promoted(registry, versions["b"])

        def followed() -> bool:
            # Again and again: what is announced before it listens is not heard.
            announce(settings.kafka, settings.topics.models, "synthetic", release)
            return worker.metric("eddyline_release") == 2

        worker.wait_for(followed, "the second release is live")
        assert worker.stop() == 0


def test_a_worker_killed_in_a_swap_comes_back_with_the_newest(
    settings: Settings, registry: Registry, versions: dict[str, Path], tmp_path: Path
) -> None:
    """Its first new score is the newest version's, and no decision is without one."""
    chunks = parts()
    promoted(registry, versions["a"])
    with Worker(settings, tmp_path, usecase=USECASE) as worker:
        send(settings, [*chunks[0], *chunks[1]])
        worker.wait_for(
            lambda: worker.metric("eddyline_decisions_total", model="a") > 0, "events are flowing"
        )
        promoted(registry, versions["b"])
        worker.kill()
    send(settings, [*chunks[2], *chunks[3]])
    with Worker(settings, tmp_path, usecase=USECASE) as worker:
        worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
        assert worker.metric("eddyline_release") == 2
        assert worker.metric("eddyline_decisions_total") == worker.metric(
            "eddyline_decisions_total", model="b"
        )
        assert worker.stop() == 0
    events, found = [each for chunk in chunks for each in chunk], scores(settings)
    assert {each["id"] for each in events if each["type"] == "offer"} == set(found)
    assert models(found, [*chunks[2], *chunks[3]]) == {"b"}
    given = expected(events, versions)
    for repeats in found.values():
        assert all(given[score.model][score.id] == score.score for score in repeats)


def test_a_corrupt_version_promoted_past_all_checks_never_scores(
    settings: Settings, registry: Registry, versions: dict[str, Path], tmp_path: Path
) -> None:
    """The old one scores on and the metrics say so, after a restart, too; a release that cannot be read changes nothing."""
    chunks = parts()
    promoted(registry, versions["a"])
    placed = registry.add(versions["b"])
    path = Path(settings.registry.url, "versions", "b", "bundle", MODEL)
    path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    with Worker(settings, tmp_path, usecase=USECASE) as worker:
        worker.wait_for(lambda: worker.metric("eddyline_release") == 1, "the first version is live")
        publish(registry, transitions.promote, placed, share=0.1)
        worker.wait_for(
            lambda: worker.metric("eddyline_swaps_refused_total", reason="digest") == 1, "it is refused"
        )
        send(settings, chunks[0])
        worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
        assert (worker.metric("eddyline_release"), worker.metric("eddyline_registry_release")) == (1, 2)
        assert worker.stop() == 0
    assert "version b, which it wants live, does not score here (digest)" in worker.text()
    assert "the manifest says" in worker.text()
    with Worker(settings, tmp_path, usecase=USECASE) as worker:
        worker.wait_for(lambda: worker.metric("eddyline_release") == 1, "the newest good release is live")
        torn = Path(settings.registry.url, "releases", f"{3:012d}.json")
        torn.write_bytes(b'{"format": 1, "num')
        worker.wait_for(
            lambda: worker.metric("eddyline_registry_failures_total") > 1, "the registry cannot be read"
        )
        send(settings, chunks[1])
        worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
        torn.unlink()
        promoted(registry, versions["c"])
        worker.wait_for(lambda: worker.metric("eddyline_release") == 3, "a good release is live")
        send(settings, chunks[2])
        worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
        assert worker.stop() == 0
    assert worker.text().count("not a release") == 1
    found = scores(settings)
    assert [{"a"}, {"a"}, {"c"}] == [models(found, chunk) for chunk in chunks[:3]]


def test_a_worker_with_a_model_of_its_own_follows_nobody(
    settings: Settings, registry: Registry, versions: dict[str, Path], tmp_path: Path
) -> None:
    """With `--model` it scores with that bundle, whatever the registry says."""
    promoted(registry, versions["b"])
    events = parts()[0]
    send(settings, events)
    with Worker(settings, tmp_path, "--model", str(versions["a"]), usecase=USECASE) as worker:
        worker.wait_for(lambda: lag(settings) == 0, "all events are committed")
        assert worker.stop() == 0
    assert models(scores(settings), events) == {"a"}
