"""The chronicle: what the page of a system's life tells, against a real trained bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from deploy.release import Beside, Change, Placed, Release, Role
from deploy.settings import Registry, Settings, Sink
from model.bundle import read
from model.example_log import ExampleLog
from model.examples import Examples
from model.features import FeatureSpec
from model.usecase import parse
from stream import chronicle
from stream.chronicle import Chronicle, ChronicleError, Decisions, gather, html, quality, read_decisions
from tests.builders import examples, replaced
from tests.events import USECASE
from tests.shop import START_MS

DAY = 86_400_000


def release(number: int, change: Change, version: str, **more: object) -> Release:
    """A release with what a test does not care about."""
    fields = {
        "generation": 0,
        "reason": f"because {number}",
        "by": "trainer",
        "created": "2026-01-01T00:00:00Z",
    }
    return Release(number=number, change=change, live=Placed(version, "0" * 64), **(fields | more))  # type: ignore[arg-type]


def decisions(n: int = 2000) -> Decisions:
    """Decisions a minute apart, of which the second half was served by a better model."""
    random = np.random.default_rng(0)
    label = (random.random(n) < 0.5).astype(np.float32)
    frozen = np.full(n, 0.5, np.float32)
    late = np.arange(n) >= n // 2
    served = np.where(late, 0.1 + 0.8 * label, frozen).astype(np.float32)
    model = np.where(late, "2", "1").astype(np.object_)
    return Decisions(START_MS + 60_000 * np.arange(n, dtype=np.int64), label, served, model, frozen)


def scored(n: int) -> pa.Table:
    """Examples as the sink writes them, as far as the chronicle reads them."""
    return replaced(examples(n), "score", pa.array(np.linspace(0.1, 0.9, n)))


VERDICT = {
    "id": "v1",
    "alarmed": START_MS + 500 * 60_000,
    "model": "1",
    "slice": "plan",
    "value": "<b>gold</b>",
    "kind": "concept",
    "window": {"labels": 1234},
    "response": {"action": "retrain", "reason": "what was learned no longer holds"},
}
RETRAIN = {
    "request": {"id": "r1", "trigger": "verdict", "reason": "concept drift"},
    "state": "released",
    "reasons": ["the challenger is better"],
    "seconds": 31.0,
    "gate": {"compared": [{"challenger_log_loss": 0.3, "champion_log_loss": 0.4}]},
}


def told() -> Chronicle:
    """One drift, answered."""
    beside = Beside(Placed("1", "0" * 64), Role.PREVIOUS, 0.5)
    return Chronicle(
        usecase="shop",
        first="1",
        decisions=decisions(),
        verdicts=[VERDICT],
        retrains=[RETRAIN],
        releases=[
            release(1, Change.PROMOTE, "1"),
            release(2, Change.CLAIM, "1"),
            release(3, Change.PROMOTE, "2", beside=beside),
        ],
    )


def test_a_release_counts_from_the_first_decision_that_it_served() -> None:
    """The log of decisions says in event time when a version was live; a claim brings none to life."""
    assert {1: START_MS, 3: START_MS + 1000 * 60_000} == told().since


def test_quality_is_of_the_served_scores_and_of_the_first_model() -> None:
    """Both are judged on the same decisions."""
    found = quality(decisions(), slice(1000, None))
    assert 1000 == found.decisions
    assert found.served == pytest.approx(-np.log(0.9), abs=1e-4)
    assert found.frozen == pytest.approx(np.log(2), abs=1e-4)
    assert (1.0, 0.5) == (found.served_auc, found.frozen_auc)


def test_the_page_tells_verdicts_retrains_and_releases() -> None:
    """Everything that happened stands on it, escaped; it needs no other file, and claims are left out."""
    page = html(told(), "2026-01-02T00:00:00+00:00")
    for text in (
        "concept",
        "1,234",
        "what was learned no longer holds",
        "the challenger is better",
        "0.3000",
        "because 3",
    ):
        assert text in page
    assert "<svg" in page
    assert "&lt;b&gt;gold" in page
    assert "because 2" not in page
    assert [] == [each for each in ('src="', "<link", "<script") if each in page]


def test_a_log_that_grows_meanwhile_is_read_once(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores and features are of the same decisions, though a sink writes to the log while it is read."""
    log = ExampleLog(tmp_path / "log")
    spec = read(trained).spec
    first = scored(300)
    log.append(first, "a")
    again = chronicle.read_examples  # type: ignore[attr-defined]

    def slowly(where: Path, spec: FeatureSpec) -> Examples:
        log.append(replaced(scored(100), "id", [f"new{n}" for n in range(100)]), "b")
        return again(where, spec)

    monkeypatch.setattr(chronicle, "read_examples", slowly)
    found = read_decisions(str(tmp_path / "log"), spec, trained)
    assert 300 == len(found.time) == len(found.served) == len(found.frozen)
    first = first.sort_by([("time", "ascending"), ("id", "ascending")])
    assert first.column("score").to_numpy().astype(np.float32).tolist() == found.served.tolist()


def test_nothing_released_is_said(tmp_path: Path) -> None:
    """Without a release there is nothing to tell of."""
    settings = Settings(
        registry=Registry(url=str(tmp_path / "registry")), sink=Sink(log=str(tmp_path / "log"))
    )
    with pytest.raises(ChronicleError, match="nothing was released"):
        gather(parse(USECASE), settings)
