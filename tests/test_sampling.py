"""Facts about stream/sampling.py, and about what the join makes of it: which decisions the drift monitor is shown."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pytest

from deploy.live import Scorer, fixed
from deploy.settings import Events
from model.examples import Example
from model.usecase import Drift, Duration, parse
from stream.engine import Engine, Processed
from stream.feedback import Joined
from stream.sampling import SPACE, Sampling
from stream.state import State
from tests.events import DAY_MS, NOW_MS, START_MS, USECASE, event, records, stream
from tests.test_engine import Sum
from tests.test_feedback import Log, done, offer, page

BLOCK_MS = 1_000_000
DRIFT = Drift(samples=1000, block=Duration(BLOCK_MS / 1000))  # a quota of 250 in each of 4 partitions


def traffic(decisions: Iterable[int], users: int, seed: int = 0) -> list[tuple[str, int]]:
    """User and time of so many decisions in each block, in order of time."""
    chance = random.Random(seed)
    return [
        (f"u{chance.randrange(users)}", block * BLOCK_MS + time)
        for block, count in enumerate(decisions)
        for time in sorted(chance.randrange(BLOCK_MS) for _ in range(count))
    ]


def taken(sampling: Sampling, decisions: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """The decisions that are monitored."""
    return [(user, time) for user, time in decisions if sampling.take(user, time)]


def test_a_user_gives_one_decision_a_block_the_first() -> None:
    """With room for everybody each user's first decision of each block is monitored, and no other."""
    decisions = traffic([2000] * 5, users=100)
    first: dict[tuple[str, int], int] = {}
    for user, time in decisions:
        first.setdefault((user, time // BLOCK_MS), time)
    assert [(user, time) for (user, _), time in first.items()] == taken(Sampling(DRIFT, 4), decisions)


@pytest.mark.parametrize("decisions", [100, 1000, 10_000, 100_000])
def test_the_sample_is_bounded_whatever_the_traffic(decisions: int) -> None:
    """No block gives more than the quota, and one after another like it most of it; memory is bounded, too."""
    sampling = Sampling(DRIFT, 4)
    found = taken(sampling, traffic([decisions] * 4, users=50_000))
    by_block = Counter(time // BLOCK_MS for _, time in found)
    assert max(by_block.values()) <= 250
    assert all(by_block[block] > min(0.6 * 250, 0.9 * decisions) for block in range(4))
    assert sampling.nbytes <= 2 * 250 * 100


def test_the_sample_is_not_merely_the_earliest_of_a_block() -> None:
    """From the second block on, of traffic that is alike, every tenth of a block has about a tenth of its sample."""
    found = taken(Sampling(DRIFT, 4), traffic([20_000] * 21, users=1_000_000))
    tenths = Counter(time % BLOCK_MS * 10 // BLOCK_MS for _, time in found if time >= BLOCK_MS)
    # The largest of eight counts, each right to 7 %, is some 9 % too large.
    expected = 0.82 * 250 * 20 / 10
    assert all(0.85 * expected < tenths[tenth] < 1.15 * expected for tenth in range(10))


def test_the_share_follows_the_largest_of_the_last_eight_blocks() -> None:
    """Ten times the users are a tenth of the share one block later, though the quota was used up, for eight blocks."""
    sampling = Sampling(DRIFT, 4)
    shares = []
    for block, users in enumerate([2000, 2000, 20_000, 200_000, 20_000, *[100] * 9]):
        decisions = traffic([0] * block + [users], users=10**9, seed=block)
        taken(sampling, decisions)
        shares.append(sampling.share)
    largest = (2000, 2000, 20_000, *[200_000] * 8, 20_000)
    assert shares[:-1] == pytest.approx([1.0, *(0.9 * 250 / users for users in largest)], rel=0.3)
    assert shares[-1] > 0.2  # not all: of blocks seen through a share of 0.001 little is known


def test_a_monday_with_twice_the_users_of_its_sunday_is_sampled_to_its_end() -> None:
    """After a first week, whatever the day, every quarter of a block has about a quarter of its sample."""
    weeks = 9
    found = taken(Sampling(DRIFT, 4), traffic([10_000, *[9500] * 4, 5000, 5000] * weeks, users=10**9))
    for day, expected in ((0, 0.82 * 250), (4, 0.82 * 250 * 0.95), (6, 0.82 * 250 / 2)):
        quarters = Counter(
            time % BLOCK_MS * 4 // BLOCK_MS
            for _, time in found
            if time >= 7 * BLOCK_MS and time // BLOCK_MS % 7 == day
        )
        assert [quarters[quarter] for quarter in range(4)] == pytest.approx(
            [expected * (weeks - 1) / 4] * 4, rel=0.2
        )


def test_every_user_and_every_block_is_drawn_anew() -> None:
    """Over many blocks users are monitored equally often, and those of one block say nothing of the next."""
    users = [f"user-{number}" for number in range(500)]
    decisions = []
    for block in range(1001):
        random.Random(block).shuffle(users)
        decisions += [(user, block * BLOCK_MS) for user in users]
    found = [(user, time // BLOCK_MS) for user, time in taken(Sampling(DRIFT, 4), decisions) if time]
    each = np.array(list(Counter(user for user, _ in found).values()))
    share = each.mean() / 1000
    assert len(each) == 500
    assert 0.8 * 250 / 500 < share < 0.9 * 250 / 500
    assert each.std() == pytest.approx(
        np.sqrt(1000 * share * (1 - share)), rel=0.1
    )  # as of independent draws
    both = len(set(found) & {(user, block + 1) for user, block in found})
    assert both == pytest.approx(len(found) * share, rel=0.02)


def test_whom_a_block_monitors_is_the_same_everywhere() -> None:
    """Users, block and share decide, in every process, version and order: a change here changes every sample."""
    sampling = Sampling(msgspec.structs.replace(DRIFT, samples=100), 10)
    taken(sampling, [(f"u{number}", 0) for number in range(40)])
    found = taken(sampling, [(f"u{number}", BLOCK_MS) for number in range(40)])
    expected = ["u1", "u15", "u16", "u17", "u23", "u30", "u31", "u33", "u37", "u38"]
    assert expected == [user for user, _ in found]


def test_a_late_decision_counts_in_its_own_block_or_not_at_all() -> None:
    """One of the block before is monitored unless its user was, one of an older block never is."""
    sampling = Sampling(DRIFT, 4)
    assert [True, True] == [sampling.take("ann", 0), sampling.take("ann", 2 * BLOCK_MS)]
    assert [True, False] == [sampling.take("bob", BLOCK_MS), sampling.take("bob", BLOCK_MS + 1)]
    assert [False, True] == [sampling.take("bob", 1), sampling.take("bob", 2 * BLOCK_MS)]


@pytest.mark.parametrize("samples", [10**6, 1000])
def test_a_restored_sample_goes_on_as_if_nothing_had_happened(samples: int) -> None:
    """Whenever a run ends, its blocks and points make the same sample of what follows."""
    drift = msgspec.structs.replace(DRIFT, samples=samples)
    decisions = traffic([300, 300, 20_000, 3000, 3000], users=10_000)
    chance = random.Random(samples)
    expected = taken(Sampling(drift, 4), decisions)
    found: list[tuple[str, int]] = []
    names: dict[str, None] = {}
    sampling, at = Sampling(drift, 4), 0
    while at < len(decisions):
        size = chance.randrange(1, 3000)
        found += taken(sampling, decisions[at : at + size])
        at += size
        added, gone = sampling.changes()
        names |= dict.fromkeys(added)
        for name in gone:
            del names[name]
        blocks, counts = sampling.blocks, sampling.users
        sampling = Sampling(drift, 4)
        for name in names:
            sampling.restore(name, kept=True)
        sampling.resume(blocks, counts)
    assert expected == found
    assert len(names) <= 2 * samples / 4
    assert all(0 < block.counted <= block.share <= SPACE for block in sampling.blocks)


WATCHED = USECASE + '[drift]\nsamples = 100\nblock = "3h"\n'
CLOSING = WATCHED.replace('window = "14d"', 'window = "12h"')


def joined(
    events: list[dict[str, Any]],
    text: str = WATCHED,
    scorer: Scorer | None = None,
    size: int = 10_000,
    limit: int = 1_000_000,
    partitions: int = 1,
) -> list[Joined]:
    """What the join makes of ``events`` in runs of ``size``."""
    declared = parse(text)
    engine, state = Engine(declared, Events(), fixed(scorer)), State(declared, limit, partitions)
    all_records = records(events)
    return [
        engine.process(state, all_records[first : first + size], NOW_MS).joined
        for first in range(0, len(events), size)
    ]


def samples(runs: Iterable[Joined]) -> list[bytes]:
    """The samples of all ``runs``."""
    return [sample for run in runs for sample in run.samples]


def test_a_sample_is_the_score_and_then_the_example() -> None:
    """A monitored decision's samples are its records of the two topics, to the byte."""
    declared = parse(WATCHED)
    processed = Engine(declared, Events(), fixed(Sum())).process(
        State(declared, 10), records([offer(0), page(15)]), NOW_MS
    )
    assert [*processed.values, *processed.joined.examples] == processed.joined.samples
    assert 1 == processed.joined.matured


def test_a_scored_sample_says_when_its_event_was_sent() -> None:
    """Whenever the worker gets to it, and however late the decision itself was; one with its label does not."""
    declared = parse(WATCHED)
    events = [page(0), offer(0.1, id="a"), offer(0.2, id="b", user="bob"), page(15)]
    sent = [each._replace(timestamp=START_MS + 1000 * number) for number, each in enumerate(records(events))]
    found = Engine(declared, Events(), fixed(Sum())).process(State(declared, 10), sent, NOW_MS).joined
    assert 2 == found.matured
    assert [START_MS + 1000, START_MS + 2000, 0, 0] == found.sent


def test_a_positive_waits_in_the_sample_for_its_window() -> None:
    """Its example is there with its outcome; its matured sample comes with the negatives of its time, when all close."""
    events = [offer(0, id="yes"), offer(0.5, id="no", item="p2", user="bob"), done(1), page(14.2), page(14.6)]
    runs = joined(events, scorer=Sum(), size=1)
    assert [0, 0, 1, 0, 1] == [len(run.examples) for run in runs]
    assert [1, 1, 0, 1, 1] == [len(run.samples) for run in runs]
    assert [0, 0, 0, 1, 1] == [run.matured for run in runs]
    assert [runs[2].examples[0], runs[4].examples[0]] == [*runs[3].samples, *runs[4].samples]
    assert [("yes", 1), ("no", 0)] == [
        (example.id, example.label)
        for example in (msgspec.json.decode(sample, type=Example) for sample in samples(runs[3:]))
    ]


def test_what_no_model_scored_and_what_is_not_tracked_is_no_sample() -> None:
    """Priors are not the model's, and an untracked decision would never get its label."""
    events = stream(2000, users=30)
    assert [] == samples(joined(events))
    assert {"offer"} == {msgspec.json.decode(each)["type"] for each in samples(joined(events, scorer=Sum()))}
    few = [offer(number / 10, id=f"d{number}", user=f"u{number}") for number in range(9)]
    runs = joined([*few, offer(0.8, id="d0", user="x"), page(30)], scorer=Sum(), limit=4)
    scored = [msgspec.json.decode(each)["id"] for each in samples(runs)]
    assert ["d0", "d1", "d2", "d3"] * 2 == scored
    late = joined([page(20), offer(0), page(40)], scorer=Sum())
    assert [] == samples(late)


def test_samples_do_not_depend_on_how_events_were_cut() -> None:
    """Runs of any size give the same samples in the same order, also where the quota is used up."""
    events = stream(5000, users=40)
    for partitions in (1, 20):
        first, *others = (
            samples(joined(events, CLOSING, Sum(), size, partitions=partitions)) for size in (5000, 100, 7, 1)
        )
        assert [first] * 3 == others
        assert len(first) > 100


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("partitions", "window"), [(1, "12h"), (20, "12h"), (1, "20m"), (20, "20m")])
def test_a_crash_at_any_moment_loses_no_sample_and_adds_none(seed: int, partitions: int, window: str) -> None:
    """Killed at random while the changelog is written, then restored and replayed from any earlier commit.

    The same decisions are monitored, with the same records; some are only written again. That holds with windows much
    shorter than a block, whose decisions are forgotten when it ends, and where the quota is used up.
    """
    events = stream(4000, users=12, seed=seed)
    chance = random.Random(seed)
    for each in events:
        each["item"] = f"i{int(each['item'][1:]) % 3}"
        each["time"] += chance.randrange(2 * 3_600_000)
    text = CLOSING.replace('"12h"', f'"{window}"')
    declared = parse(text)
    expected = samples(joined(events, text, Sum(), partitions=partitions))
    all_records = records(events)
    log, committed, at = Log(), 0, 0
    published: list[bytes] = []
    engine, state = Engine(declared, Events(), fixed(Sum())), State(declared, 1_000_000, partitions)
    while at < len(all_records):
        run = all_records[at : at + chance.randrange(1, 200)]
        processed: Processed = engine.process(state, run, NOW_MS)
        published += processed.joined.samples
        at += len(run)
        if chance.random() < 0.25:
            log.append(processed, chance.randrange(len(processed.keys) + 1))
            state = State(declared, 1_000_000, partitions)
            state.restore(*log.compacted(chance))
            at = committed
        else:
            log.append(processed)
            if chance.random() < 0.5:
                committed = at
    assert len(set(expected)) == len(expected) <= len(published)
    assert set(expected) == set(published)
    last = dict(zip(log.keys, log.rows, strict=True))
    seen = [key for key, value in last.items() if key.startswith(b"\xffs") and value is not None]
    assert len(seen) <= 3 * 12  # of two blocks, and of one that ended with the last run


def test_the_record_of_a_monitored_decision_is_kept_and_counted() -> None:
    """An early positive's record stays in memory until its window closes, and its bytes are told."""
    declared = parse(WATCHED)
    sizes = []
    for scorer in (None, Sum()):
        engine, state = Engine(declared, Events(), fixed(scorer)), State(declared, 10)
        engine.process(state, records([offer(0), done(1)]), NOW_MS)
        sizes.append(state.pending.nbytes)
        engine.process(state, records([event(id="z", user="zoe", time=START_MS + 15 * DAY_MS)], 2), NOW_MS)
        sizes.append(state.pending.nbytes)
    assert sizes[0] < sizes[2] - 300
    assert (0, 100) == (sizes[1], sizes[3])  # one user of the sample is remembered
