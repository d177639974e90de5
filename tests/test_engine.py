"""Facts about stream/engine.py and stream/scoring.py: scores with or without a model, and when to stop."""

from __future__ import annotations

import logging

import msgspec
import numpy as np
import pytest

from deploy.live import fixed
from deploy.settings import Events
from model.features import Float32, Int32
from stream.engine import Engine, TooManyBadRecords
from stream.scoring import Score
from tests.events import NOW_MS, event, record, records, state, stream, usecase


class Sum:
    """A model whose score is a fixed function of the row's numbers."""

    version = "sum-1"

    def score(self, numeric: Float32, categorical: Int32) -> Float32:
        """A score [n] in (0, 1)."""
        total = np.nan_to_num(numeric).sum(axis=1) + categorical.sum(axis=1)
        return np.asarray(1 / (1 + np.exp(-total / 1e6)), np.float32)


class Broken:
    """A model that fails."""

    version = "broken"

    def __init__(self, scores: list[float] | None) -> None:
        self._scores = scores

    def score(self, numeric: Float32, categorical: Int32) -> Float32:  # noqa: ARG002 — a scorer's signature
        """Not a number, or an error."""
        if self._scores is None:
            raise ValueError("no")
        return np.full(len(numeric), self._scores[0], np.float32)


def test_every_decision_is_scored_with_what_it_was_scored_on() -> None:
    """A decision's record names model, item, profile offset and every feature, missing ones as null."""
    events = [
        event(id="a"),
        event(id="d", type="offer", item="i7", context={"plan": "b"}),
        event(id="x", user="bob", type="offer"),
    ]
    processed = Engine(usecase(), Events(), fixed(Sum())).process(state(), records(events, 40), NOW_MS)
    first, second = processed.scores
    assert ("d", "offer", "ann", "i7", "sum-1", 40) == (
        first.id, first.type, first.user, first.item, first.model, first.profile_offset,
    )  # fmt: skip
    assert ("x", "bob", -1) == (second.id, second.user, second.profile_offset)
    features = msgspec.json.decode(msgspec.json.encode(first), type=Score).features
    assert (features["plan"], features["item"], features["last_quiz"]) == ("b", "i7", None)
    assert b'"last_quiz":null' in msgspec.json.encode(first)
    assert features["pages_1d"] == 1.0
    assert set(usecase().features) - {"clock"} < set(features)


def test_without_a_model_the_score_is_the_declared_prior() -> None:
    """With no model yet, decisions get the prior, and say so."""
    processed = Engine(usecase(), Events(), fixed(None)).process(
        state(), records(stream(100, users=5)), NOW_MS
    )
    assert {("prior", 0.3)} == {(score.model, score.score) for score in processed.scores}


@pytest.mark.parametrize("scores", [None, [float("nan")]])
def test_a_failing_model_does_not_stop_scoring(
    scores: list[float] | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A model that raises, or answers NaN, costs its batch the model's scores, not the scores."""
    engine = Engine(usecase(), Events(), fixed(Broken(scores)))
    with caplog.at_level(logging.ERROR):
        processed = engine.process(state(), records(stream(100, users=5)), NOW_MS)
    assert {"prior"} == {score.model for score in processed.scores}
    assert engine.scoring.failures == 1
    assert "model broken failed" in caplog.text


def test_scores_do_not_depend_on_how_events_were_cut() -> None:
    """The same events in other runs give the same records, to the byte."""
    events = records(stream(2000, users=30))
    cuts = []
    for size in (2000, 17):
        engine, held = Engine(usecase(), Events(), fixed(Sum())), state()
        cuts.append(
            [
                msgspec.json.encode(score)
                for first in range(0, len(events), size)
                for score in engine.process(held, events[first : first + size], NOW_MS).scores
            ]
        )
    assert cuts[0] == cuts[1]


def test_too_large_a_share_of_bad_records_stops_before_anything_is_folded() -> None:
    """Beyond the ratio the run is refused with its reasons and the last offset, and profiles are untouched."""
    engine = Engine(usecase(), Events(max_bad_ratio=0.2, bad_window=100), fixed(None))
    held = state()
    good = records(stream(80, users=5))
    engine.process(held, [*good[:79], record(b"?", offset=79)], NOW_MS)
    before = len(held.profiles)
    bad = [record(b"?", offset=n) for n in range(80, 120)]
    with pytest.raises(
        TooManyBadRecords, match=r"41 of the last 120 records are bad \(41 not-json\).*offset 119"
    ):
        engine.process(held, bad, NOW_MS)
    assert len(held.profiles) == before


def test_a_tolerable_share_of_bad_records_goes_on() -> None:
    """Below the ratio every bad record is returned for the dead letters, window after window."""
    engine = Engine(usecase(), Events(max_bad_ratio=0.2, bad_window=100), fixed(None))
    held = state()
    for first in range(0, 1000, 50):
        batch = records(stream(50, users=5), first)
        batch[10:15] = [record(b"?", offset=first + 10 + n) for n in range(5)]
        assert len(engine.process(held, batch, NOW_MS).bad) == 5
