"""Facts about retrain/policy.py: what is asked for, and what becomes of it, always with reasons in words and numbers."""

from __future__ import annotations

import doctest
from typing import Any

import msgspec
import pytest

from deploy import transitions
from deploy.release import NOTHING
from retrain import policy
from retrain.policy import (
    TIMES,
    Growth,
    Situation,
    again,
    called,
    decide,
    first_id,
    grown,
    last_end,
    lasting,
    scheduled,
    spent,
    tells_more,
)
from retrain.request import Record, State, Trigger, Weighting
from retrain.verdicts import Action, Kind
from tests.trainers import CHANGED, DAY, HOUR, NOW, SINGLE, V2, case, first, record, request, verdict, why

CASE = case('labels = 1000\ncooldown = "1d"\nbudget = "2h"\nevery = "30d"')


def asked(**changed: Any) -> Any:
    """The request of a verdict to retrain."""
    return msgspec.structs.replace(called(verdict(Action.RETRAIN), CASE).request, **changed)


# --- what is asked for


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((Kind.CONCEPT,), Weighting.SINCE),
        ((), Weighting.SINCE),
        ((Kind.LABEL, Kind.CONCEPT), Weighting.SINCE),
        ((Kind.COVARIATE,), Weighting.IMPORTANCE),
        ((Kind.COVARIATE, Kind.CONCEPT), Weighting.IMPORTANCE),
    ],
)
def test_old_examples_are_left_out_where_they_mislead(kinds: tuple[Kind, ...], expected: Weighting) -> None:
    """Only a possible covariate drift leaves them true: then they are weighted."""
    found = called(verdict(Action.RETRAIN, kinds=kinds), CASE)
    assert found.standing is None
    assert found.request.weighting is expected
    assert (found.request.since, found.request.model, found.request.labels) == (CHANGED, "v1", 0)


def test_a_kept_model_is_fitted_again_when_there_is_much_new_data() -> None:
    """After ten times the labels of the drift policy, over the usual window: the backtest's policy `refit`."""
    found = called(verdict(Action.KEEP, kind=Kind.COVARIATE, kinds=(Kind.COVARIATE,)), CASE)
    assert found.standing is None
    assert (found.request.labels, found.request.weighting) == (4000, Weighting.ROLLING)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"response": Action.KEEP, "kinds": SINGLE, "kind": Kind.UNDETERMINED},
            State.REFUSED,
        ),  # a false alarm
        ({"response": Action.KEEP, "kind": Kind.FAULT, "kinds": ()}, State.REFUSED),  # a fault that has ended
        ({"response": Action.CORRECT_PRIOR}, State.REFUSED),
        ({"response": Action.BLOCK, "final": False}, State.BLOCKED),
        ({"response": Action.WAIT, "final": False}, State.WAITING),
    ],
)
def test_what_calls_for_no_training_is_recorded_all_the_same(
    changed: dict[str, Any], expected: State
) -> None:
    """With the verdict's own reason."""
    found = called(verdict(changed.pop("response"), **changed), CASE)
    assert found.standing is expected
    assert "so it is" in found.reason


def test_a_verdict_is_one_request_whatever_its_id_holds() -> None:
    """Ids are made of what may stand in one, short enough, and different for different episodes."""
    names = ["v1/7", "v1-7", "v1/region=Île de France/7", "x" * 300 + "1", "x" * 300 + "2"]
    found = [called(verdict(Action.RETRAIN, id=name), CASE).request for name in names]
    assert len({each.id for each in found}) == len(names)
    for each in found:  # the pattern of the field holds
        assert msgspec.json.decode(msgspec.json.encode(each), type=type(each)) == each
    assert found[0] == called(verdict(Action.RETRAIN, id="v1/7"), CASE).request


def test_the_calendar_asks_once_a_period_and_not_for_a_young_model() -> None:
    """`every = "30d"`: a model that is 29 days old is left alone."""
    old, young = NOW - 31 * DAY, NOW - 29 * DAY
    due = scheduled(NOW, "v1", old, [], CASE.retrain)
    assert due is not None
    assert (due.trigger, due.model) == (Trigger.SCHEDULE, "v1")
    assert scheduled(NOW, "v1", young, [], CASE.retrain) is None
    assert scheduled(NOW, "v1", old, [record(State.KEPT, due)], CASE.retrain) is None
    assert scheduled(NOW + 30 * DAY, "v1", old, [record(State.KEPT, due)], CASE.retrain) is not None
    assert scheduled(NOW, "", 0, [], CASE.retrain) is not None
    assert scheduled(NOW, "v1", old, [], case().retrain) is None


def test_growth_asks_once_a_third_as_much_is_known_as_was_trained_on() -> None:
    """And again at twice as much where the gate kept the model, four times in all; not while it is asked for, nor at growth 0."""
    assert grown(NOW, "v1", Growth(3333, 10_000), [], CASE.retrain) is None
    records: list[Record] = []
    needed = []
    for labels in range(3000, 50_000, 1000):
        due = grown(NOW, "v1", Growth(labels, 10_000), records, CASE.retrain)
        if due is not None:
            assert (due.trigger, due.weighting, due.model) == (Trigger.GROWTH, Weighting.ROLLING, "v1")
            waiting = [*records, record(State.WAITING, due)]
            assert grown(NOW, "v1", Growth(10**9, 10_000), waiting, CASE.retrain) is None
            records.append(record(State.KEPT, due))
            needed.append(labels)
    assert needed == [4000, 7000, 14_000, 27_000]
    assert grown(NOW, "v1", Growth(10**9, 10_000), records, CASE.retrain) is None
    assert grown(NOW, "v2", Growth(4000, 10_000), records, CASE.retrain) is not None
    assert grown(NOW, "v1", Growth(9999, 10_000), [], case("growth = 0").retrain) is None
    assert grown(NOW, "v1", None, [], CASE.retrain) is None


def test_growth_that_was_refused_counts_for_nothing() -> None:
    """Neither of its four times nor of its labels; its id is another's, and it leaves what the calendar asks for alone."""
    due = grown(NOW, "v1", Growth(4000, 10_000), [], CASE.retrain)
    assert due is not None
    refused = [record(State.REFUSED, msgspec.structs.replace(due, id=f"growth-v1-{n}")) for n in range(1, 6)]
    following = grown(NOW, "v1", Growth(4000, 10_000), refused, CASE.retrain)
    assert following is not None
    assert following.id == "growth-v1-6"
    waiting = record(State.WAITING, request(trigger=Trigger.SCHEDULE))
    assert grown(NOW, "v1", Growth(4000, 10_000), [waiting], CASE.retrain) is None


def test_a_verdict_that_led_to_nothing_asks_again_with_twice_the_labels() -> None:
    """Four times in all; people and the calendar ask by themselves."""
    last, labels = record(State.KEPT, asked(), labels=1200), []
    while (following := again(last)) is not None:
        assert first_id(following) == asked().id
        labels.append(following.labels)
        last = record(State.FAILED, following, labels=following.labels)
    assert labels == [2400, 4800, 9600]
    assert len(labels) == TIMES - 1
    assert again(record(State.KEPT)) is None
    assert again(record(State.RELEASED, asked())) is None
    assert again(record(State.ROLLED_BACK, asked(), labels=9)) is not None


# --- whether to

LIVE = first()
PINNED = transitions.pin(LIVE, **why(reason="an audit"))
TRIED = transitions.canary(LIVE, V2, share=0.2, **why())
OTHER = transitions.promote(LIVE, V2, share=0.2, **why())
TRAINED = record(State.KEPT, request(id="hand-0"), ended=NOW - HOUR, seconds=600.0)


@pytest.mark.parametrize(
    ("of", "changed", "state", "words"),
    [
        (asked(), {}, State.RUNNING, ["5,000 labels", "2023-11-12"]),
        (request(), {}, State.RUNNING, ["5,000 labels"]),
        (asked(), {"labels": 312}, State.WAITING, ["312 of the 1,000 needed"]),
        (asked(labels=9000), {}, State.WAITING, ["5,000 of the 9,000"]),
        (asked(), {"labels": None}, State.WAITING, ["could not be counted"]),
        (asked(), {"records": [TRAINED]}, State.WAITING, ["cooling down until 2023-11-15 21:13:20", "1 d"]),
        (request(urgent=True), {"records": [TRAINED]}, State.RUNNING, []),
        (asked(), {"records": [TRAINED], "now": NOW + DAY}, State.RUNNING, []),
        (
            asked(),
            {"records": [record(State.KEPT, request(id="hand-0"), ended=NOW - 23 * HOUR, seconds=7300.0)]},
            State.WAITING,
            ["2.03 h of training in the last 24 h", "budget is 2 h"],
        ),
        (
            asked(),
            {"records": [record(State.KEPT, request(id="hand-0"), ended=NOW - 25 * HOUR, seconds=7300.0)]},
            State.RUNNING,
            [],
        ),
        (
            asked(),
            {
                "records": [record(State.FAILED, request(id="h"), ended=NOW - 24 * HOUR + 1, seconds=1900.0)],
                "scale": 4.0,
            },
            State.WAITING,
            ["2.11 h of training"],
        ),
        (asked(), {"faults": ("missing of price",)}, State.BLOCKED, ["missing of price"]),
        (request(urgent=True), {"faults": ("missing of price",)}, State.BLOCKED, []),
        (asked(), {"release": PINNED}, State.WAITING, ["pinned (an audit)", "waits until that is unpinned"]),
        (request(trigger=Trigger.GROWTH), {"release": PINNED}, State.WAITING, ["pinned"]),
        (request(urgent=True), {"release": PINNED}, State.REFUSED, ["pinned"]),
        (asked(), {"release": OTHER}, State.REFUSED, ["about v1, and v2 is live"]),
        (asked(), {"release": NOTHING}, State.REFUSED, ["no model is live"]),
        (request(), {"release": NOTHING}, State.RUNNING, []),
        (asked(), {"release": TRIED}, State.WAITING, ["v2 is being tried as canary"]),
        (
            asked(),
            {"records": [record(State.RUNNING, request(id="hand-0"), started=NOW - HOUR)]},
            State.WAITING,
            ["hand-0 is being trained for"],
        ),
    ],
)
def test_what_becomes_of_a_request(of: Any, changed: dict[str, Any], state: State, words: list[str]) -> None:
    """Every rule, with its numbers in the reason."""
    usual: dict[str, Any] = {"now": NOW, "release": LIVE, "labels": 5000}
    found = decide(of, Situation(**(usual | changed)), CASE)
    assert found.state is state
    assert found.reasons
    for word in words:
        assert word in "; ".join(found.reasons)


def test_all_that_speaks_against_training_now_is_told() -> None:
    """Not the first reason only."""
    situation = Situation(now=NOW, release=TRIED, records=[TRAINED], labels=3)
    assert len(decide(asked(), situation, CASE).reasons) == 3


@pytest.mark.parametrize(
    ("mine", "its", "expected"),
    [
        (request(id="hand-2"), request(), "asked already: hand-1 is waiting"),
        (request(id="program-1", trigger=Trigger.PROGRAM), request(), "asked already"),
        (request(id="hand-2", urgent=True), request(), ""),
        (request(id="hand-2", weighting=Weighting.SINCE, since=CHANGED), request(), ""),
        (asked(), request(), ""),
        # A later change in the same decisions takes the place of an earlier one; elsewhere, both stand.
        (asked(), asked(id="verdict-2", since=CHANGED + HOUR), "overtaken by verdict-2"),
        (asked(id="verdict-2", since=CHANGED + HOUR), asked(), ""),
        (asked(), asked(id="verdict-2", since=CHANGED + HOUR, slice="plan", value="plus"), ""),
        # Who waits for very many labels would never get there if every new alarm put it back.
        (asked(weighting=Weighting.ROLLING), asked(id="verdict-2", since=CHANGED + HOUR), ""),
    ],
)
def test_of_two_requests_for_the_same_one_is_enough(mine: Any, its: Any, expected: str) -> None:
    """The one that came first stays, unless the later one knows of a later change."""
    situation = Situation(now=NOW, release=LIVE, records=[record(State.WAITING, its)], labels=5000)
    found = decide(mine, situation, CASE)
    assert (found.state is State.REFUSED) == bool(expected)
    assert expected in "; ".join(found.reasons)


def test_what_training_cost_is_counted_over_a_day() -> None:
    """What ended, and what runs, of all attempts, times the devices at work."""
    records = [
        record(State.KEPT, request(id="a"), ended=NOW - 25 * HOUR, seconds=1000.0),
        record(State.FAILED, request(id="b"), ended=NOW - HOUR, seconds=100.0),
        record(State.RUNNING, request(id="c"), started=NOW - 10_000, seconds=20.0),
        record(State.WAITING, request(id="d")),
    ]
    assert spent(records, NOW, 2.0) == 260.0
    assert last_end(records) == NOW - HOUR
    assert last_end([]) == 0


# --- what is written


def test_numbers_alone_are_no_news() -> None:
    """Another state, other words or twice as many labels are; who waits is decided on every second."""
    last = record(reasons=("312 of the 1,000 labels needed are known",), labels=312)

    def tells(**changed: Any) -> bool:
        return tells_more(msgspec.structs.replace(last, **changed), last)

    assert tells_more(last, None)
    assert not tells()
    assert not tells(reasons=("313 of the 1,000 labels needed are known",), labels=313, at=NOW)
    assert tells(reasons=("624 of the 1,000 labels needed are known",), labels=624)
    assert tells(reasons=(*last.reasons, "cooling down"))
    assert tells(state=State.BLOCKED)
    assert tells(request=request(revision=1))


@pytest.mark.parametrize(("seconds", "expected"), [(0.25, "0.25 s"), (90, "1.5 min"), (172_800, "2 d")])
def test_lengths_of_time_are_readable(seconds: float, expected: str) -> None:
    """In the largest unit that fits."""
    assert lasting(seconds) == expected


def test_the_examples_in_the_docstrings_are_true() -> None:
    """They are run as they stand."""
    failed, tried = doctest.testmod(policy)
    assert (failed, tried > 0) == (0, True)
