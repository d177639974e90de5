"""Facts about stream/feedback.py: when a decision's label is known, what it is, and that a crash does not change it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from deploy.live import fixed
from deploy.settings import Events
from model.examples import Example
from model.usecase import UseCase, parse
from stream.engine import Engine, Processed
from stream.feedback import MARK, Joined, Outcomes, Untracked
from stream.pending import Open
from stream.state import State
from tests.events import DAY_MS, NOW_MS, START_MS, USECASE, event, records, stream

MINUTE = 60_000
SEVERAL = """
name = "shop"
[events.view]
[events.cart]
[events.buy]
[decisions.view]
outcome = { cart = 1.0, buy = 5.0 }
window = "1d"
lateness = "1h"
[features]
views = { kind = "decayed_count", events = ["view"], half_life = "1d" }
item = { kind = "item", buckets = 8 }
[quality]
slices = ["item"]
"""


def joined(
    events: list[dict[str, Any]], text: str = USECASE, size: int = 10_000, limit: int = 1_000_000
) -> tuple[list[Joined], State]:
    """What the join makes of ``events`` in runs of ``size``, and the state after them."""
    declared = parse(text)
    engine, state = Engine(declared, Events(), fixed(None)), State(declared, limit)
    all_records = records(events)
    runs = [
        engine.process(state, all_records[first : first + size], NOW_MS).joined
        for first in range(0, len(events), size)
    ]
    return runs, state


def examples(runs: Sequence[Joined]) -> list[Example]:
    """The examples of all ``runs``, as a reader of the topic decodes them."""
    return [msgspec.json.decode(value, type=Example) for run in runs for value in run.examples]


def counts(runs: Sequence[Joined]) -> Counter[Outcomes]:
    """What came of the outcome events."""
    return sum((run.outcomes for run in runs), Counter())


def offer(day: float, **changes: Any) -> dict[str, Any]:
    """A decision so many days after the start."""
    return event(id="d", type="offer", time=START_MS + int(day * DAY_MS)) | changes


def done(day: float, **changes: Any) -> dict[str, Any]:
    """Its outcome."""
    return event(id=f"o{day}", type="done", time=START_MS + int(day * DAY_MS)) | changes


def page(day: float) -> dict[str, Any]:
    """Somebody else's event, which only moves the clock on."""
    return event(id=f"p{day}", user="zoe", time=START_MS + int(day * DAY_MS))


def test_a_decision_is_positive_with_its_outcome_negative_after_its_window_and_nothing_before() -> None:
    """The example holds the score's record, the label and both times; an open window gives none."""
    runs, state = joined(
        [
            offer(0, id="yes"),
            offer(0, id="no", item="p2"),
            offer(1, id="open", item="p3"),
            done(2),
            page(14.5),
        ]
    )
    yes, no = examples(runs)
    assert ("yes", 1, START_MS + 2 * DAY_MS) == (yes.id, yes.label, yes.outcome_time)
    assert ("no", 0, None) == (no.id, no.label, no.outcome_time)
    assert no.closes == START_MS + 14 * DAY_MS
    assert yes.features["pages_1d"] == 0
    assert (yes.score, yes.model, yes.weight) == (0.3, "prior", 1.0)
    assert len(state.pending) == 1
    assert [b"ann", b"ann"] == runs[0].users
    assert runs[0].positives == 1


def test_the_window_includes_its_last_millisecond() -> None:
    """An outcome at the very end counts, one a millisecond later does not."""
    at_the_end, after = (
        joined([offer(0), done(14, time=START_MS + 14 * DAY_MS + late), page(15)])[0] for late in (0, 1)
    )
    assert [1] == [example.label for example in examples(at_the_end)]
    assert [0] == [example.label for example in examples(after)]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([offer(0), done(1), page(2)], {Outcomes.MATCHED: 1}),
        ([offer(0), done(1), done(2), page(3)], {Outcomes.MATCHED: 1, Outcomes.DUPLICATE: 1}),
        ([offer(0), done(1, item="p9"), page(2)], {Outcomes.UNMATCHED: 1}),
        ([offer(0), done(1, user="bob"), page(2)], {Outcomes.UNMATCHED: 1}),
        ([page(0), done(1), page(2)], {Outcomes.UNMATCHED: 1}),
        ([offer(1), done(1, time=START_MS), page(2)], {Outcomes.LATE: 1}),
        ([offer(0), page(15), done(13)], {Outcomes.LATE: 1}),
        ([done(0), offer(0), page(1)], {Outcomes.UNMATCHED: 1, Outcomes.ADOPTED: 1}),
    ],
    ids=[
        "matched",
        "duplicate",
        "other-item",
        "other-user",
        "no-decision",
        "behind",
        "closed",
        "same-moment",
    ],
)
def test_every_outcome_is_counted_for_what_came_of_it(
    events: list[dict[str, Any]], expected: dict[Outcomes, int]
) -> None:
    """Each outcome event is counted once by what it was; a held one once more when it is adopted."""
    assert Counter(expected) == counts(joined(events)[0])


def test_lateness_waits_for_what_comes_late() -> None:
    """Within the lateness an outcome behind the clock counts, before the decision or after its window's end."""
    text = USECASE.replace('window = "14d"', 'window = "14d"\nlateness = "2d"')
    runs, _ = joined([offer(0), page(15), done(13), page(17)], text)
    assert [1] == [example.label for example in examples(runs)]
    runs, _ = joined([page(0), done(1), page(2), offer(0.5), page(17)], text)
    assert [1] == [example.label for example in examples(runs)]
    assert counts(runs)[Outcomes.ADOPTED] == 1
    runs, _ = joined([offer(2), done(1), page(3)], text)
    assert Counter({Outcomes.BEFORE: 1}) == counts(runs)


def test_of_several_outcomes_the_weightiest_counts() -> None:
    """A lighter outcome waits for a heavier one until the window closes; the heaviest ends the wait."""
    hour = 60 * MINUTE

    def at(kind: str, hours: float, user: str = "ann") -> dict[str, Any]:
        return {
            "id": f"{kind}{hours}{user}",
            "type": kind,
            "user": user,
            "item": "x",
            "time": START_MS + int(hours * hour),
        }

    events = [at("view", 0), at("view", 0, "bob"), at("cart", 1), at("cart", 1, "bob"), at("buy", 2)]
    runs, state = joined(events, SEVERAL)
    assert [("ann", 1, 5.0, START_MS + 2 * hour)] == [
        (example.user, example.label, example.weight, example.outcome_time) for example in examples(runs)
    ]
    runs, state = joined([*events, at("cart", 3), at("view", 30, "zoe")], SEVERAL)
    assert [("ann", 5.0), ("bob", 1.0)] == [(example.user, example.weight) for example in examples(runs)]
    assert [("ann", ("x",)), ("bob", ("x",))] == [
        (entry.user, entry.slices) for run in runs for entry in run.closed
    ]
    assert len(state.pending) == 1


def test_no_outcome_after_the_window_changes_a_label() -> None:
    """Whatever happens after the windows, the examples are the same: there is no leak from the future."""
    events = stream(3000, users=40, seed=3)
    span = events[-1]["time"] - START_MS
    text = USECASE.replace('window = "14d"', f'window = "{span // 4000}s"')
    window = span // 4000 * 1000
    labels = {example.id: example for example in examples(joined(events, text)[0])}
    decisions = {each["id"]: each for each in events if each["type"] == "offer"}
    chance = random.Random(4)
    for name in chance.sample(sorted(labels), 5):
        decision = decisions[name]
        shuffled = [dict(each) for each in events]
        later = [
            each for each in shuffled if each["type"] == "done" and each["time"] > decision["time"] + window
        ]
        users = [each["user"] for each in later]
        chance.shuffle(users)
        for each, user in zip(later, users, strict=True):
            each["user"] = user
        again = {example.id: example for example in examples(joined(shuffled, text)[0])}
        assert labels[name] == again[name]


def true_labels(events: list[dict[str, Any]], declared: UseCase) -> dict[str, int]:
    """By definition: a decision is positive if any outcome of its user and item is within its window."""
    window = int(declared.decisions["offer"].window * 1000)
    done_at: dict[tuple[str, str], list[int]] = {}
    for each in events:
        if each["type"] == "done":
            done_at.setdefault((each["user"], each["item"]), []).append(each["time"])
    last = max(each["time"] for each in events)
    return {
        each["id"]: int(
            any(
                each["time"] <= t <= each["time"] + window
                for t in done_at.get((each["user"], each["item"]), ())
            )
        )
        for each in events
        if each["type"] == "offer" and each["time"] + window < last
    }


WINDOW = USECASE.replace('window = "14d"', 'window = "12h"')


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
def test_labels_are_those_of_the_definition_however_events_are_batched(size: int) -> None:
    """Runs of any size give the labels that looking at the whole history gives, each decision one example."""
    events = stream(5000, users=15, seed=1)
    for each in events:
        each["item"] = f"i{hash_of(each['item']) % 3}"
    runs, _ = joined(events, WINDOW, size)
    found = {example.id: example.label for example in examples(runs)}
    expected = true_labels(events, parse(WINDOW))
    assert len(found) == len(examples(runs))
    assert expected == {name: label for name, label in found.items() if name in expected}
    assert 0.1 < sum(expected.values()) / len(expected) < 0.9
    assert all(label == 1 for name, label in found.items() if name not in expected)


def hash_of(item: str) -> int:
    """The number in an item's name."""
    return int(item[1:])


def test_disorder_within_the_lateness_changes_no_label() -> None:
    """Events that arrive up to an hour late give the labels that they give in order."""
    events = stream(4000, users=15, seed=2)
    for each in events:
        each["item"] = f"i{hash_of(each['item']) % 3}"
    chance = random.Random(0)
    arrival = [each["time"] + chance.randrange(60 * MINUTE) for each in events]
    late = [events[position] for position in sorted(range(len(events)), key=arrival.__getitem__)]
    text = WINDOW.replace('window = "12h"', 'window = "12h"\nlateness = "1h"')
    in_order, disordered = (
        {example.id: example.label for example in examples(joined(each, text)[0])} for each in (events, late)
    )
    both = in_order.keys() & disordered.keys()
    assert len(both) > 0.9 * len(in_order)
    assert {name: in_order[name] for name in both} == {name: disordered[name] for name in both}
    runs, _ = joined(late, text)
    assert counts(runs)[Outcomes.LATE] == 0


def test_what_cannot_be_tracked_is_counted() -> None:
    """A decision sent twice, one whose window is over, and one too many get no example, and say so."""
    runs, _ = joined([offer(0), offer(0), page(1)])
    assert Counter({Untracked.REPEATED: 1}) == runs[0].untracked
    runs, _ = joined([page(20), offer(0), page(40)])
    assert Counter({Untracked.LATE: 1}) == runs[0].untracked
    runs, state = joined([offer(n / 10, id=f"d{n}") for n in range(5)], limit=3)
    assert Counter({Untracked.FULL: 2}) == runs[0].untracked
    assert len(state.pending) == 3


class Log:
    """A changelog that a crash can cut off anywhere: what is written later comes after what was left."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.rows: list[bytes | None] = []

    def append(self, processed: Processed, cut: int | None = None) -> None:
        """Write a run's records, or the first ``cut`` of them."""
        self.keys += processed.keys[:cut]
        self.rows += processed.rows[:cut]

    def compacted(self, chance: random.Random) -> tuple[list[bytes], list[bytes | None]]:
        """What compaction may leave: of some keys the last record only."""
        last = {key: position for position, key in enumerate(self.keys)}
        clean = chance.randrange(len(self.keys) + 1)
        kept = [n for n, key in enumerate(self.keys) if n >= clean or last[key] == n]
        return [self.keys[n] for n in kept], [self.rows[n] for n in kept]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("lateness", ["1s", "3h"])
def test_a_crash_at_any_moment_changes_no_label(seed: int, lateness: str) -> None:
    """Killed at random while the changelog is written, then restored and replayed from any earlier commit.

    Every decision ends in one label, whatever was cut off, compacted, or batched anew; repeats are identical but for
    what a restart cannot know.
    """
    events = stream(3000, users=12, seed=seed)
    chance = random.Random(seed)
    for each in events:
        each["item"] = f"i{hash_of(each['item']) % 3}"
        each["time"] += chance.randrange(2 * 60 * MINUTE)
    text = WINDOW.replace('window = "12h"', f'window = "12h"\nlateness = "{lateness}"')
    declared = parse(text)
    expected = {example.id: example for example in examples(joined(events, text)[0])}
    all_records = records(events)
    log, published, committed = Log(), [], 0
    engine, state = Engine(declared, Events(), fixed(None)), State(declared, 1_000_000)
    at = 0
    while at < len(all_records):
        run = all_records[at : at + chance.randrange(1, 200)]
        processed = engine.process(state, run, NOW_MS)
        published += examples([processed.joined])
        at += len(run)
        if chance.random() < 0.25:
            log.append(processed, chance.randrange(len(processed.keys) + 1))
            state = State(declared, 1_000_000)
            state.restore(*log.compacted(chance))
            at = committed
        else:
            log.append(processed)
            if chance.random() < 0.5:
                committed = at
    assert expected.keys() == {example.id for example in published}
    assert len(published) > len(expected)
    for example in published:
        assert expected[example.id] == example


def test_an_outcome_let_go_is_still_there_for_what_a_crash_cuts_off() -> None:
    """Wherever the changelog ends, a decision that adopts a held outcome adopts it again."""
    text = USECASE.replace('window = "14d"', 'window = "10s"\nlateness = "5s"').replace('match = "item"', "")
    declared = parse(text)
    first = records([event(id="o", type="done", time=START_MS + 5000)])
    rest = records(
        [offer(0, time=START_MS + 3000), event(id="p", user="zoe", time=START_MS + 100_000)], first=1
    )
    engine, state = Engine(declared, Events(), fixed(None)), State(declared, 10)
    before, after = engine.process(state, first, NOW_MS), engine.process(state, rest, NOW_MS)
    assert [1] == [example.label for example in examples([after.joined])]
    for cut in range(len(after.keys) + 1):
        restored = State(declared, 10)
        restored.restore([*before.keys, *after.keys[:cut]], [*before.rows, *after.rows[:cut]])
        again = engine.process(restored, rest, NOW_MS).joined
        assert {1} >= {example.label for example in examples([again])}
        assert restored.pending.held == 0


def test_held_outcomes_are_bounded_and_counted() -> None:
    """Beyond the limit an outcome is judged but not held, and both the held and the forgotten are told."""
    text = USECASE.replace('window = "14d"', 'window = "14d"\nlateness = "7d"')
    runs, state = joined([done(n / 100, user=f"u{n}") for n in range(20)], text, limit=5)
    assert (5, 15) == (state.pending.held, counts(runs)[Outcomes.FORGOTTEN])
    assert state.pending.nbytes > 0
    runs, state = joined([done(n / 100, user=f"u{n}") for n in range(20)] + [page(8)], text)
    assert (0, 0) == (state.pending.held, state.pending.nbytes)


def test_an_example_says_when_its_label_was_final() -> None:
    """With a lateness, `closes` is the window's end and the lateness: until then a late outcome may turn it."""
    text = USECASE.replace('window = "14d"', 'window = "1d"\nlateness = "7d"')
    runs, _ = joined([offer(0), page(8.5)], text)
    assert [START_MS + 8 * DAY_MS] == [example.closes for example in examples(runs)]


def test_the_mark_follows_the_changes_and_precedes_the_rows() -> None:
    """The changelog of a run is what the join changed, the mark, then the rows: the order that restoring rests on."""
    declared = parse(USECASE)
    processed = Engine(declared, Events(), fixed(None)).process(
        State(declared, 10), records([offer(0), page(1)]), NOW_MS
    )
    assert [b"\xffdd", MARK, b"ann", b"zoe"] == processed.keys


def test_a_decision_that_opens_and_closes_in_one_run_leaves_no_trace_in_the_changelog() -> None:
    """What was never kept needs no tombstone."""
    runs, _ = joined([offer(0), page(20)])
    assert [MARK] == runs[0].keys
    assert ["d"] == [entry.id for entry in runs[0].closed]


def test_memory_is_reported_about_right() -> None:
    """The bytes of open decisions grow with their records and return to 0."""
    runs, state = joined([offer(n / 1000, id=f"d{n}", item=f"i{n}") for n in range(1000)])
    full = state.pending.nbytes
    assert 1000 * 700 < full < 1000 * 3000
    declared = parse(USECASE)
    Engine(declared, Events(), fixed(None)).process(state, records([page(30)], 5000), NOW_MS)
    assert (len(state.pending), state.pending.nbytes) == (0, 0)
    assert isinstance(runs[0].closed, list)
    assert all(isinstance(entry, Open) for entry in runs[0].closed)
