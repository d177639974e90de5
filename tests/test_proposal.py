"""Facts about the proposed use case: valid, fit for the events it came from, with its evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.settings import Events
from examples.oulad import convert
from model.usecase import Duration, UseCase, parse
from stream.candidates import candidates
from stream.explore import Explorer
from stream.files import decoded
from stream.proposal import propose, use_case_name
from tests import shop
from tests.shop import DAY_MS, START_MS, Json, event, explored


def proposed(events: list[Any], **options: Any) -> tuple[str, UseCase]:
    """Return the proposal for events, as text and parsed."""
    findings = explored(events, **options)
    text = propose(findings, candidates(findings.histories), "test")
    return text, parse(text)


def refused(usecase: UseCase, events: list[Json]) -> list[str]:
    """Return why a worker with the use case would refuse events."""
    return [
        bad.detail
        for _, _, each in decoded(usecase, Events(), shop.lines(events), shop.NOW_MS)
        for bad in each
    ]


def test_the_shop_gets_a_use_case_that_accepts_its_events() -> None:
    """The planted decision, its fields by kind, and features of what happens."""
    text, usecase = proposed(shop.stream())
    assert refused(usecase, shop.stream()) == []
    assert ["offer"] == list(usecase.decisions)
    decision = usecase.decisions["offer"]
    assert decision.outcome == "buy"
    assert (Duration(7 * 86_400), "item") == (decision.window, decision.match)
    assert abs(decision.prior - shop.TAKEN) < 0.03
    assert {"plan": "category", "discount": "number", "rush": "category"} == usecase.context
    assert ("item", "value") == usecase.events["buy"].requires
    assert ("plan", "rush") == tuple(sorted(usecase.quality.slices))
    kinds = {type(feature).__name__ for feature in usecase.features.values()}
    assert kinds >= {"DecayedCount", "DecayedSum", "Ratio", "Recency", "LastValue", "DistinctItems", "Tenure"}
    assert kinds >= {"TimeOfDay", "Context", "Item"}
    assert len(usecase.features) <= 40
    assert '# left out: "price": not on the decision' in text
    assert usecase.profile.idle_after >= decision.window
    assert usecase.training.train + usecase.training.validate <= shop.DAYS * 86_400


def test_oulad_gets_its_decision_without_being_told() -> None:
    """One presentation of the sample: due is followed by submitted, the same item, within 14 days."""
    data = Path(convert.__file__).parent / "data"
    values = [line for lines in convert.events(data, None, ["2013B"]) for line in lines]
    explorer = Explorer(Events(), shop.NOW_MS)
    explorer.read("oulad.jsonl", enumerate(values, 1))
    findings = explorer.findings()
    usecase = parse(propose(findings, candidates(findings.histories), "oulad"))
    decision = usecase.decisions["due"]
    assert decision.outcome == "submitted"
    assert (Duration(14 * 86_400), "item") == (decision.window, decision.match)
    assert abs(decision.prior - 0.686) < 0.02  # examples/oulad/README.md
    assert {"kind": "category", "weight": "number", "day": "number"} == usecase.context
    assert refused(usecase, [msgspec.json.decode(value) for value in values[::50]]) == []


def test_names_that_a_use_case_cannot_hold_are_left_out_and_said() -> None:
    """Types and fields with capitals, signs or line breaks do not break the file."""
    nasty = 'Page "View"\n[events]\x7f'
    events = shop.stream() + [event(n, type=nasty, context={"a b": n}) for n in range(5)]
    text, usecase = proposed(events)
    assert ["view", "offer", "buy"] == list(usecase.events)
    assert r'# "Page \"View\"\n[events]\u007f": 5 events; a use case cannot name them' in text


def test_late_events_propose_a_lateness() -> None:
    """It covers 99 % of them, in a usual length."""
    events = shop.stream()
    assert proposed(events)[1].decisions["offer"].lateness == Duration(0)
    text, usecase = proposed([*events[:500], *events[600:620], *events[500:600], *events[620:]])
    late_s = (events[619]["time"] - events[500]["time"]) / 1000
    assert usecase.decisions["offer"].lateness > 0.9 * late_s
    assert "of the events come late" in text


def test_without_evidence_the_guess_is_marked() -> None:
    """Two types, three events: a valid use case, called doubtful."""
    text, usecase = proposed([event(0), event(1), event(2, type="buy")])
    assert ["view"] == list(usecase.decisions)
    assert "# DOUBTFUL: too few events to tell; a guess." in text


def test_one_type_alone_has_no_decision() -> None:
    """The text says what is missing."""
    findings = explored([event(0), event(1)])
    assert "# No decision: it takes a second event type" in propose(findings, (), "test")


def test_features_stay_few_and_valid_with_many_types() -> None:
    """Sixty types with long names that begin alike, and forty fields."""
    names = [f"{'long' * 14}_{n}" for n in range(60)]
    events = [
        event(
            n,
            type=names[n % 60],
            user=f"u{n % 50}",
            time=START_MS + n * DAY_MS // 100,
            item=f"i{n % 30}",
            value=n % 9,
            context={f"field_{k}": (n * k) % 7 for k in range(40)},
        )
        for n in range(9000)
    ]
    _, usecase = proposed(events)
    assert len(usecase.features) <= 40
    assert refused(usecase, events) == []


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("events.jsonl", "events"),
        ("My Clicks (2024).jsonl.gz", "my-clicks-2024"),
        ("2024.jsonl", "events-2024"),
        (f"{'7' * 80}.jsonl", f"events-{'7' * 56}"),
    ],
)
def test_a_use_case_is_named_after_its_file(file: str, name: str) -> None:
    """In letters that a use case may have."""
    assert name == use_case_name(file)
