"""Facts about detectors/monitor.py: who sees what, what a repeat is, and that neither batches nor restarts matter."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from detectors.episode import Identity
from detectors.monitor import Monitor
from detectors.panels import budget
from detectors.samples import MEMORY, Repeats, SampleError, decode, models_of
from detectors.verdict import Action, Kind, Verdict
from tests.drifting import START_MS, STEP_MS, USECASE, matured, records, reference, sample, samples, usecase

CHANGE = 1200
DRIFTED = samples(2600, CHANGE)


def monitor(**models: Any) -> Monitor:
    """A monitor of v1, or of the references given."""
    return Monitor(usecase(), models or {"v1": reference()})


def watch(watching: Monitor, values: list[bytes], cuts: Sequence[int] = ()) -> list[Verdict]:
    """Verdicts on ``values``, given in pieces that end at ``cuts``; ordered by episode."""
    given = records(values)
    found = []
    for begin, end in zip((0, *cuts), (*cuts, len(given)), strict=True):
        found += watching.observe(given[begin:end]).verdicts
    return by_episode([*found, *watching.finish().verdicts])


def by_episode(verdicts: list[Verdict]) -> list[Verdict]:
    """Panels do not wait for one another: among their verdicts no order is promised."""
    return sorted(verdicts, key=lambda each: (each.id, each.revision))


def test_a_drift_is_found_by_the_panels_that_see_it() -> None:
    """All decisions and each frequent value of a slice have a panel; each sees its own decisions and no others."""
    found = watch(monitor(), DRIFTED)
    final = {(each.slice, each.value): each for each in found if each.final}
    assert {("", ""), ("plan", "basic"), ("plan", "plus")} == final.keys()
    assert {Kind.COVARIATE} == {each.kind for each in final.values()}
    assert all("views" in {effect.column for effect in each.effects} for each in final.values())
    change = 2 * CHANGE - 200  # the offset
    assert all(change < int(each.id.rpartition("/")[2]) < change + 300 for each in final.values())
    assert final["", ""].monitored > final["plan", "basic"].monitored > final["plan", "plus"].monitored


def test_without_a_drift_nothing_is_found() -> None:
    """The threshold is a promise."""
    assert watch(monitor(), samples(2600)) == []


def test_values_too_rare_are_told_and_counted() -> None:
    """A value with few rows in the reference has no panel, and its decisions are counted."""
    watching = monitor()
    assert watching.unwatched == {("v1", "plan"): ["rare"]}
    rare = [sample(n, features={"plan": plan}) for n, plan in enumerate(["rare", None, "new", "basic"])]
    watching.observe(records([msgspec.json.encode(each) for each in rare]))
    assert watching.finish().unwatched == {("v1", "plan"): 3}


@pytest.mark.parametrize("slices", [0, 1, 2, 5])
def test_the_panels_of_a_model_share_its_budget(slices: int) -> None:
    """With k values, each a k-th of the decisions, the false alarms of all panels add up to those promised."""
    overall, each = budget(50_000, slices)
    values = 4
    rate = 1 / overall + slices * values * (1 / values) / each
    assert rate == pytest.approx(1 / 50_000)


def test_a_model_sees_its_own_decisions_only() -> None:
    """Two versions are watched side by side, each by its reference."""
    both = [
        each
        for pair in zip(samples(1600, 800), samples(1600, model="v2", seed=5), strict=True)
        for each in pair
    ]
    both = [each.replace(b'"d', b'"e', 1) if b'"model":"v2"' in each else each for each in both]
    found = watch(monitor(v1=reference(), v2=reference(seed=3)), both)
    assert {"v1"} == {each.model for each in found}


def test_a_correction_that_comes_is_no_drift() -> None:
    """Panels see the model's own score, whatever is served: with `uncorrected` the verdicts are those without a correction."""
    corrected = []
    for each in map(msgspec.json.decode, DRIFTED):
        own = each["score"]
        corrected.append(msgspec.json.encode(each | {"score": own / 2, "uncorrected": own}))
    assert watch(monitor(), corrected) == watch(monitor(), DRIFTED)


def test_what_scores_beside_is_not_looked_at() -> None:
    """The other model's score on the same decision is for those who compare them."""
    beside = [
        msgspec.json.encode(msgspec.json.decode(each) | {"beside": {"model": "v2", "score": 0.99}})
        for each in DRIFTED
    ]
    assert watch(monitor(), beside) == watch(monitor(), DRIFTED)


def test_the_models_that_samples_name_are_found_without_reading_them_whole() -> None:
    """What is no sample, or names no model, names none."""
    named = samples(3), samples(2, model="v2"), [None, b"", b"[]", b'{"model": 3}', b"{}", b'{"model":"v3"}']
    assert models_of(each for some in named for each in some) == {"v1", "v2", "v3"}


def test_samples_of_other_models_are_counted() -> None:
    """A model that is not watched, as after a swap, is no error."""
    observed = monitor().observe(records(samples(50, model="v9")))
    assert (observed.unknown, observed.scored, observed.bad) == ({"v9": 50}, 0, [])


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"", "not a record of the samples topic"),
        (None, "not a record"),
        (b"\xff", "not a record"),
        (b"[" * 100_000, "not a record"),
        (msgspec.json.encode(sample(99, score=1.5)), "`float` <= 1.0 - at `$.score`"),
        (msgspec.json.encode(sample(99) | {"uncorrected": -0.1}), "`float` >= 0.0 - at `$.uncorrected`"),
        (msgspec.json.encode(sample(99) | {"uncorrected": "high"}), "at `$.uncorrected`"),
        (msgspec.json.encode(sample(id="")), "at `$.id`"),
        (msgspec.json.encode(sample(99) | {"label": 2}), "at `$.label`"),
        (msgspec.json.encode(sample(99, time=-1)), "at `$.time`"),
        (
            msgspec.json.encode(sample(99, features={"views": "many"})),
            "`views` is a number in model v1, got 'many'",
        ),
        (msgspec.json.encode(sample(99, features={"plan": 3})), "`plan` is a string in model v1, got 3.0"),
        (msgspec.json.encode(sample(99, features={"views": 1e39})), "`views` is a float32, got 1e+39"),
        (b'{"id":"\\ud800","time":0,"score":0,"model":"v1","features":{}}', "not a record"),
    ],
)
def test_a_bad_sample_is_reported_and_holds_nothing_up(value: bytes | None, says: str) -> None:
    """Its offset and what is wrong with it are told; those around it are watched."""
    good = records(samples(10))
    observed = monitor().observe([*good[:5], good[5]._replace(value=value), *good[6:]])
    (bad,) = observed.bad
    assert (bad.offset, observed.scored) == (5, 9)
    assert says in bad.detail


def test_what_is_not_looked_at_may_be_anything() -> None:
    """The monitor reads what it needs: other fields and features may come and go."""
    value = sample(features={"novel": 1.0}) | {"weight": "heavy"}
    assert monitor().observe(records([msgspec.json.encode(value)])).scored == 1


def test_a_decision_that_comes_again_counts_once() -> None:
    """What a crash of the worker repeats is passed over: scored and matured apart."""
    once = msgspec.json.encode(sample(1))
    label = msgspec.json.encode(matured(sample(1), 1))
    observed = monitor().observe(records([once, once, label, once, label]))
    assert (observed.scored, observed.matured, observed.repeated) == (1, 1, 3)


def test_repeats_change_no_verdict() -> None:
    """Any run of the topic may stand in it twice: offsets differ, and so ids; the change and the kinds do not."""
    doubled = [*DRIFTED[:900], *DRIFTED[500:900], *DRIFTED[900:]]
    found = [
        (each.slice, each.value, each.revision, each.kind, each.changed, each.effects)
        for each in watch(monitor(), doubled)
    ]
    once = [
        (each.slice, each.value, each.revision, each.kind, each.changed, each.effects)
        for each in watch(monitor(), DRIFTED)
    ]
    assert found == once


def test_labels_of_all_types_are_watched_together() -> None:
    """Decisions of one type are known first; until those of the other are, they would look like a drift."""
    text = USECASE.replace('window = "3h"', 'window = "30h"')
    declared = usecase(
        text.replace(
            "[context]", '[events.mail]\n[decisions.mail]\noutcome = "buy"\nwindow = "40m"\n[context]', 1
        )
    )
    turns = []
    for value in samples(8000):
        each = msgspec.json.decode(value)
        kind, minutes = ("mail", 40) if (each["features"]["views"] or 0) > 0 else ("offer", 1800)
        at = (each["time"] - START_MS) / STEP_MS + (minutes if "label" in each else 0)
        turns.append((at, "label" in each, msgspec.json.encode(each | {"type": kind})))
    turns.sort(key=lambda turn: turn[:2])
    watching = Monitor(declared, {"v1": reference()})
    assert watch(watching, [value for _, _, value in turns]) == []


def test_the_last_block_of_a_model_ends_with_the_next_models() -> None:
    """After a swap no more samples of the old version come; those of the new one move its clock, too."""
    watching = monitor(v1=reference(), v2=reference(seed=3))
    old = watching.observe(records(samples(130)[:130])).scored
    assert watching.status()[Identity("shop", "v1", "", "")].scored < old
    watching.observe(records([msgspec.json.encode(sample(400, model="v2"))], 130))
    assert watching.status()[Identity("shop", "v1", "", "")].scored == old


def test_the_memory_of_repeats_is_bounded() -> None:
    """It holds the last offsets, whatever comes."""
    repeats = Repeats(memory=100)
    given = [decode(msgspec.json.encode(sample(n))) for n in range(150)]
    assert not any(repeats.add(offset, each) for offset, each in enumerate(given * 4))
    assert len(repeats) == 101
    assert all(repeats.add(600 + n, given[-1]) for n in range(150))
    assert len(repeats) <= 101


def test_batches_do_not_matter() -> None:
    """However the topic is cut, the verdicts are the same."""
    whole = watch(monitor(), DRIFTED)
    assert len(whole) >= 6
    for seed in range(3):
        cuts = sorted(random.Random(seed).sample(range(1, len(DRIFTED)), 200))
        assert watch(monitor(), DRIFTED, cuts) == whole


@pytest.mark.parametrize("seed", range(4))
def test_a_monitor_that_is_restored_goes_on_as_if_nothing_had_been(seed: int) -> None:
    """Killed at any record of any checkpoint, with repeats on both sides: no verdict is missing and none differs."""
    draw = random.Random(seed)
    topic = list(DRIFTED)
    for _ in range(20):  # what crashes of workers repeat
        at = draw.randrange(len(topic) - 60)
        topic[at + 50 : at + 50] = topic[at : at + 50]
    whole = watch(monitor(), topic)
    given = records(topic)
    log: dict[bytes, bytes] = {}
    found: dict[tuple[str, int], Verdict] = {}
    for _ in range(12):
        watching = monitor()
        watching.restore(log)
        at = watching.resume
        for _ in range(draw.randrange(1, 6)):
            taken = given[at : at + draw.randrange(1, 500)]
            at += len(taken)
            for each in watching.observe(taken).verdicts:
                assert found.setdefault((each.id, each.revision), each) == each
            written = list(watching.changes().items())
            for key, value in written[: draw.randrange(len(written) + 1)] if draw.random() < 0.3 else written:
                log.pop(key, None)
                if value is not None:
                    log[key] = value
    watching = monitor()
    watching.restore(log)
    for each in (*watching.observe(given[watching.resume :]).verdicts, *watching.finish().verdicts):
        assert found.setdefault((each.id, each.revision), each) == each
    assert by_episode(list(found.values())) == whole


def test_nothing_is_written_when_nothing_came() -> None:
    """Records are those of panels that have seen something; the offset comes last."""
    watching = monitor()
    assert watching.changes() == {}
    watching.observe(records([msgspec.json.encode(sample(features={"plan": "plus"}))]))
    watching.observe(
        records([msgspec.json.encode(sample(100))], 1)
    )  # two hours later: the first one's block is over
    keys = [msgspec.json.decode(key) for key in watching.changes()]
    assert [["v1", "", ""], ["v1", "plan", "plus"], ["blocks", "v1"], ["next"]] == [key[:3] for key in keys]
    assert watching.changes() == {}


def test_the_state_of_a_model_that_is_not_watched_any_more_is_passed_over() -> None:
    """So a version can be retired, and one be added, without losing the others' state."""
    old = monitor(v1=reference(), v2=reference(seed=3))
    old.observe(records(DRIFTED[:1000]))
    state = {key: value for key, value in old.changes().items() if value is not None}
    new = monitor(v1=reference(), v3=reference(seed=4))
    new.restore(state)
    assert (new.next, new.resume) == (1000, 0)
    went_on = new.observe(records(DRIFTED[new.resume :], new.resume)).verdicts
    assert by_episode([*went_on, *new.finish().verdicts]) == watch(monitor(), DRIFTED)


def test_the_open_episodes_of_a_model_that_is_retired_end() -> None:
    """Whoever waits for their last word, as after a block, gets one, the same each time until it is written."""
    old = monitor(v1=reference(), v2=reference(seed=3))
    told = old.observe(records(DRIFTED[: 2 * CHANGE + 300])).verdicts
    left_open = {each.id: each for each in told}
    assert not any(each.final for each in left_open.values())
    state = {key: value for key, value in old.changes().items() if value is not None}
    new = monitor(v2=reference(seed=3))
    ended = new.restore(state)
    assert ended == monitor(v2=reference(seed=3)).restore(state)
    assert {each.id: each.revision for each in ended} == {
        each.id: each.revision + 1 for each in left_open.values()
    }
    assert {(True, Action.KEEP)} == {(each.final, each.response.action) for each in ended}
    gone = [key for key, value in new.changes().items() if value is None]
    assert gone
    assert monitor(v2=reference(seed=3)).restore({k: v for k, v in state.items() if k not in gone}) == []


def test_the_state_of_a_model_that_is_spared_stays() -> None:
    """One that cannot be watched for now, since its bundle is not to be had, goes on where it was once it can."""
    old = monitor()
    old.observe(records(DRIFTED[:1000]))
    state = {key: value for key, value in old.changes().items() if value is not None}
    without = monitor(v2=reference(seed=3))
    assert without.restore(state, {"v1"}) == []
    assert without.changes() == {}
    again = monitor()
    again.restore(state)
    went_on = again.observe(records(DRIFTED[again.resume :], again.resume)).verdicts
    assert by_episode([*went_on, *again.finish().verdicts]) == watch(monitor(), DRIFTED)


def test_where_to_read_on() -> None:
    """As many records are read again as repeats are known by, and watched no second time."""
    watching = monitor()
    watching.observe(records(DRIFTED[:10], 2 * MEMORY))
    assert (watching.next, watching.resume) == (2 * MEMORY + 10, MEMORY + 10)
    again = watching.observe(records([*DRIFTED[:10], b"bad"], 2 * MEMORY - 1))
    assert (again.scored, again.matured, again.repeated, again.bad) == (0, 0, 0, [])


def test_values_with_any_text_keep_their_state_apart() -> None:
    """Keys cannot be mixed up by a model or value that has quotes, separators or line breaks in it."""
    known = reference()
    names = ['a"', 'a","', "a|b\n\x00", "größer"]
    known.categorical[:, 0] = [names[n % 4] for n in range(len(known))]
    values = []
    for n, each in enumerate(map(msgspec.json.decode, samples(40))):
        features = each["features"] | {"plan": names[n % 4]}
        values.append(msgspec.json.encode(each | {"features": features, "model": 'v"1'}))
    watching = Monitor(usecase(), {'v"1': known})
    assert watching.observe(records(values)).scored == 40
    watching.finish()
    state = {key: value for key, value in watching.changes().items() if value is not None}
    again = Monitor(usecase(), {'v"1': known})
    again.restore(state)
    assert {each.slice + each.value: status.scored for each, status in again.status().items()} == {"": 40} | {
        f"plan{name}": 10 for name in names
    }


def test_a_use_case_without_slices_has_one_panel_with_the_whole_budget() -> None:
    """And the share of the slices is not lost."""
    declared = usecase(USECASE.replace('slices = ["plan"]', ""))
    (status,) = Monitor(declared, {"v1": reference()}).status().values()
    assert 10**status.log10_threshold == pytest.approx(5000)


def test_a_decoding_error_is_the_monitors_own() -> None:
    """So that its callers can tell it from a mistake in the program."""
    with pytest.raises(SampleError):
        decode(b"{}")
