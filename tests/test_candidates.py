"""Facts about which types are proposed as a decision and its outcome."""

from __future__ import annotations

import random

import pytest

from stream.candidates import Candidate, candidates
from tests import shop
from tests.shop import DAY_MS, START_MS, Json, explored


def test_the_planted_outcome_comes_first() -> None:
    """Offers bring purchases of the same item within 5 days, three times in ten."""
    best = shop.shop()[1][0]
    assert ("offer", "buy", "item", "7d", "") == (
        best.decision,
        best.outcome,
        best.match,
        best.window,
        best.against,
    )
    assert abs(best.rate - shop.TAKEN) < 0.03
    assert best.before < 0.02
    assert best.agreement > 0.7 > best.chance
    assert best.eventually > 0.9


def pairs(law: str, seed: int = 0, users: int = 300) -> dict[tuple[str, str], Candidate]:
    """Candidates among `ask` and `answer` of users whose answers follow the ``law``, by the pair of types."""
    draw = random.Random(seed)
    events: list[Json] = []
    for n in range(users):
        for _ in range(6):
            at = draw.uniform(0, 100)
            after = {
                "always": at + 0.1,
                "at once": at,
                "anyhow": draw.uniform(0, 100),
                "rarely": at + 0.1 if draw.random() < 0.004 else None,
                "half within a day": at + draw.uniform(0, 1) if draw.random() < 0.5 else None,
            }[law]
            events += [{"type": "ask", "user": f"u{n}", "time": at}]
            events += [{"type": "answer", "user": f"u{n}", "time": after}] if after is not None else []
            events += [{"type": "noise", "user": f"u{n}", "time": draw.uniform(0, 100)}]
    events.sort(key=lambda each: each["time"])
    told = [
        each | {"id": str(n), "time": START_MS + round(each["time"] * DAY_MS)}
        for n, each in enumerate(events)
    ]
    return {(each.decision, each.outcome): each for each in candidates(explored(told).histories)}


@pytest.mark.parametrize(
    ("law", "against"),
    [
        ("always", "almost always followed by it"),
        ("at once", "almost always followed by it"),
        ("anyhow", "no likelier after the decision than before it"),
        ("half within a day", ""),
    ],
)
def test_what_speaks_against_a_pair_is_said(law: str, against: str) -> None:
    """A pair that teaches nothing is not proposed."""
    assert against == pairs(law)["ask", "answer"].against


def test_outcomes_that_come_anyhow_do_not_widen_the_window() -> None:
    """Half of the asks are answered within a day; later answers are those to other asks."""
    found = pairs("half within a day")["ask", "answer"]
    assert found.window == "1d"
    assert abs(found.rate - 0.5) < 0.05
    assert found.curve[-1] > found.rate + 0.1


def test_an_outcome_whose_window_is_still_open_is_no_negative() -> None:
    """Asks of the last days are left out, so that the rate is not too low."""
    found = pairs("half within a day")["ask", "answer"]
    assert found.decisions < 0.8 * 300 * 6


def test_too_few_events_say_nothing() -> None:
    """Ten users do not make a rate."""
    assert pairs("half within a day", users=3) == {}


def test_a_sample_of_users_finds_the_same() -> None:
    """A quarter of the users gives the same decision, window and about the same rate."""
    whole = shop.shop()[1][0]
    part = candidates(explored(shop.stream(), history_events=5000).histories)[0]
    assert (whole.decision, whole.outcome, whole.match, whole.window) == (
        part.decision,
        part.outcome,
        part.match,
        part.window,
    )
    assert abs(whole.rate - part.rate) < 0.06
