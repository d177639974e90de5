"""Facts about stream/scoring.py: who is served which model's score, and what is noted beside it."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import numpy as np
import pytest

from deploy.live import Live, Model, Source, chosen
from deploy.release import NOTHING, Beside, Correction, Placed, Role
from deploy.settings import Events
from model.examples import decode, table_of
from model.features import Float32, Int32, feature_spec
from model.prior import corrected
from stream.engine import Engine, Processed
from stream.feedback import Joined
from stream.scoring import Other, Score
from tests.events import DAY_MS, NOW_MS, event, records, state, stream, usecase
from tests.variants import correction

SHARE = 0.3


class Constant:
    """A model that gives every row the same score, or fails with an error."""

    def __init__(self, version: str, score: float | Exception) -> None:
        self.version, self._score = version, score

    def score(self, numeric: Float32, categorical: Int32) -> Float32:  # noqa: ARG002 — a scorer's signature
        """That score [n]."""
        if isinstance(self._score, Exception):
            raise self._score
        return np.full(len(numeric), self._score, np.float32)


def live(
    model: Model | None, beside: Model | None = None, role: Role = Role.SHADOW, share: float = SHARE
) -> Live:
    """What a release with these models would bring to life."""
    placed = Placed("any", "0" * 64)
    release = msgspec.structs.replace(NOTHING, number=1, beside=beside and Beside(placed, role, share))
    return Live(release, model, beside)


def processed(what: Live, events: list[dict[str, Any]] | None = None) -> tuple[Processed, Engine]:
    """What comes of ``events``, or of the usual ones, while ``what`` is live."""
    engine = Engine(usecase(), Events(), Source(what))
    return engine.process(state(), records(events or stream(2000, users=300)), NOW_MS), engine


def of(score: float, fix: Correction | None = None) -> np.float32:
    """A score as it is served."""
    own = np.array([score], np.float32)
    return np.float32((own if fix is None else corrected(own, fix.before, fix.now))[0])


def fields(record: bytes) -> set[str]:
    """The names in a record."""
    return set(msgspec.json.decode(record))


def test_one_model_alone_leaves_nothing_out_of_the_ordinary() -> None:
    """With no correction and nothing beside, records have neither of the optional fields."""
    found, _ = processed(live(Model(Constant("a", 0.25))))
    assert {("a", 0.25)} == {(each.model, each.score) for each in found.scores}
    assert not {"uncorrected", "beside"} & set().union(*map(fields, found.values))


def test_corrected_scores_are_served_and_the_model_s_own_is_told() -> None:
    """While a correction holds, `score` is the corrected one and `uncorrected` the model's own."""
    fix = correction(0.5, 0.2)
    found, _ = processed(live(Model(Constant("a", 0.25), fix)))
    assert {(of(0.25, fix), 0.25, "a")} == {
        (np.float32(each.score), each.uncorrected, each.model) for each in found.scores
    }
    assert all("beside" not in fields(value) for value in found.values)


@pytest.mark.parametrize("role", [Role.SHADOW, Role.PREVIOUS])
@pytest.mark.parametrize("fix", [None, correction(0.5, 0.2)])
def test_a_model_beside_is_noted_for_its_share(role: Role, fix: Correction | None) -> None:
    """Everybody is served the live model; what the other would serve stands with the share's decisions, and only there."""
    found, engine = processed(live(Model(Constant("a", 0.25)), Model(Constant("b", 0.75), fix), role))
    assert {("a", 0.25)} == {(each.model, each.score) for each in found.scores}
    among = 0
    for score, value in zip(found.scores, found.values, strict=True):
        if chosen(score.user, SHARE):
            among += 1
            assert isinstance(score.beside, Other)
            assert (score.beside.model, np.float32(score.beside.score)) == ("b", of(0.75, fix))
            assert msgspec.json.decode(value)["beside"]["model"] == "b"
        else:
            assert "beside" not in fields(value)
        assert "uncorrected" not in fields(value)
    assert 0 < among < len(found.scores)
    assert engine.scoring.beside_scores == among


@pytest.mark.parametrize("fix", [None, correction(0.5, 0.2)])
@pytest.mark.parametrize("other_fix", [None, correction(0.5, 0.9)])
def test_a_canary_is_served_to_its_share(fix: Correction | None, other_fix: Correction | None) -> None:
    """The share gets the challenger's score, with what the live model would serve beside it; the others get the live one's."""
    found, _ = processed(
        live(Model(Constant("a", 0.25), fix), Model(Constant("b", 0.75), other_fix), Role.CANARY)
    )
    assert {"a", "b"} == {each.model for each in found.scores}
    for score, value in zip(found.scores, found.values, strict=True):
        version, own, mine = ("b", 0.75, other_fix) if chosen(score.user, SHARE) else ("a", 0.25, fix)
        assert (score.model, np.float32(score.score)) == (version, of(own, mine))
        assert (score.uncorrected == own) if mine else ("uncorrected" not in fields(value))
        if version == "b":
            assert isinstance(score.beside, Other)
            assert (score.beside.model, np.float32(score.beside.score)) == ("a", of(0.25, fix))
        else:
            assert "beside" not in fields(value)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("failure", [ValueError("no"), KeyError("no"), float("nan")])
def test_a_failing_model_beside_does_no_harm(
    role: Role, failure: float | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it does, the live model's scores are served; it is counted each time and logged once."""
    engine = Engine(
        usecase(), Events(), Source(live(Model(Constant("a", 0.25)), Model(Constant("b", failure)), role))
    )
    held, events = state(), records(stream(2000, users=300))
    with caplog.at_level(logging.ERROR):
        for begin in (0, 1000):
            found = engine.process(held, events[begin : begin + 1000], NOW_MS)
            assert {("a", 0.25)} == {(each.model, each.score) for each in found.scores}
            assert all("beside" not in fields(value) for value in found.values)
    assert (engine.scoring.beside_failures, engine.scoring.failures, engine.scoring.beside_scores) == (
        2,
        0,
        0,
    )
    assert caplog.text.count("model b beside failed") == 1


@pytest.mark.parametrize("role", list(Role))
def test_a_failing_live_model_gives_priors(role: Role) -> None:
    """Then everyone is served the declared prior, and nothing is compared with it."""
    found, engine = processed(
        live(Model(Constant("a", float("inf")), correction(0.5, 0.2)), Model(Constant("b", 0.75)), role)
    )
    assert {("prior", 0.3)} == {(each.model, each.score) for each in found.scores}
    assert not {"uncorrected", "beside"} & set().union(*map(fields, found.values))
    assert engine.scoring.failures == 1


def test_a_first_challenger_scores_beside_priors() -> None:
    """While nothing is live a model can already score in the shadow."""
    found, _ = processed(live(None, Model(Constant("b", 0.75)), share=1.0))
    assert {("prior", 0.3, Other("b", 0.75))} == {
        (each.model, each.score, each.beside) for each in found.scores
    }


def test_a_batch_is_scored_by_one_release() -> None:
    """What goes live in the middle of a batch scores the next one."""
    source = Source(live(Model(Constant("a", 0.25))))

    class Swapping(Constant):
        def score(self, numeric: Float32, categorical: Int32) -> Float32:
            source.current = live(Model(Constant("c", 0.5)))
            return super().score(numeric, categorical)

    source.current = live(Model(Swapping("b", 0.75)), Model(Constant("d", 0.1)), share=1.0)
    engine, held = Engine(usecase(), Events(), source), state()
    events = records(stream(2000, users=300))
    first = engine.process(held, events[:1000], NOW_MS).scores
    assert {("b", 0.75, Other("d", np.float32(0.1).item()))} == {(s.model, s.score, s.beside) for s in first}
    assert {("c", 0.5)} == {(s.model, s.score) for s in engine.process(held, events[1000:], NOW_MS).scores}


@pytest.mark.parametrize("role", list(Role))
def test_scores_do_not_depend_on_how_events_were_cut(role: Role) -> None:
    """With a correction and a model beside, too, the same events in other runs give the same records, to the byte."""
    events = records(stream(2000, users=30))
    fix = correction(0.5, 0.2)
    cuts = []
    for size in (2000, 17):
        source = Source(live(Model(Constant("a", 0.25), fix), Model(Constant("b", 0.75)), role))
        engine, held = Engine(usecase(), Events(), source), state()
        cuts.append(
            [
                value
                for first in range(0, len(events), size)
                for value in engine.process(held, events[first : first + size], NOW_MS).values
            ]
        )
    assert cuts[0] == cuts[1]


def test_examples_and_samples_keep_what_was_noted() -> None:
    """`uncorrected` and `beside` stand in a decision's example and samples as in its score; example files leave them out."""
    fix = correction(0.5, 0.2)
    what = live(Model(Constant("a", 0.25), fix), Model(Constant("b", 0.75)), share=1.0)
    events = [event(id="d", type="offer", item="i7"), event(id="done", type="done", item="i7")]
    events.append(event(id="later", time=events[0]["time"] + 40 * DAY_MS))
    found, _ = processed(what, events)
    joined: Joined = found.joined
    (example,) = joined.examples
    scored, matured = joined.samples
    for record in (example, scored, matured):
        told = msgspec.json.decode(record)
        assert (told["uncorrected"], told["beside"]) == (0.25, {"model": "b", "score": 0.75})
    read = decode(example)
    assert (read.model, read.label) == ("a", 1)
    table = table_of([read], feature_spec(usecase()))
    assert not {"uncorrected", "beside"} & set(table.column_names)
    assert msgspec.json.decode(scored, type=Score).beside == found.scores[0].beside == Other("b", 0.75)
