"""Facts about stream/profiles.py: once by offset, restored as written, forgotten when idle."""

from __future__ import annotations

import pytest

from model.usecase import parse
from stream.events import Columns, Decoder
from stream.profiles import ChangelogError, Profiles
from tests.events import DAY_MS, NOW_MS, START_MS, USECASE, event, records, stream, usecase

DECODE = Decoder(usecase(), 65_536, 0)


def columns(events: list[dict[str, object]], first: int = 0) -> Columns:
    """Columns of good events, at offsets from ``first``."""
    return DECODE(records(events, first), NOW_MS)[0]


def rows(profiles: Profiles) -> dict[bytes, bytes]:
    """Every user's row, as bytes."""
    found = {key: profiles.row(key) for key in profiles}
    return {key: row.tobytes() for key, row in found.items() if row is not None}


def test_an_event_read_twice_is_folded_once() -> None:
    """A batch that overlaps what was folded changes only what is new, and scores only new decisions."""
    events = stream(500, users=20)
    once, twice = Profiles(usecase()), Profiles(usecase())
    whole = once.fold(columns(events))
    first = twice.fold(columns(events[:300]))
    again = twice.fold(columns(events[100:], first=100))
    assert rows(once) == rows(twice)
    assert again.skipped == 200
    assert len(first.decisions) + len(again.decisions) == len(whole.decisions)
    assert [events[100 + position]["type"] for position in again.decisions] == ["offer"] * len(
        again.decisions
    )


def test_a_batch_says_which_users_changed_each_once() -> None:
    """The changelog rows of a batch are its users' rows after it, one a user."""
    profiles = Profiles(usecase())
    folded = profiles.fold(columns(stream(500, users=20)))
    assert len(folded.keys) == len(set(folded.keys)) == 20
    assert rows(profiles) == dict(zip(folded.keys, folded.rows, strict=True))


def test_a_row_restored_from_the_middle_of_a_batch_is_written_again() -> None:
    """After a crash that wrote some rows of a batch, reading it again writes exactly the rows that change."""
    whole, restored = Profiles(usecase()), Profiles(usecase())
    events = [
        event(id=f"e{n}", user=user) for n, user in enumerate(["ann", "bob", "ann", "bob", "cid", "ann"])
    ]
    half = whole.fold(columns(events[:4]))
    restored.restore(half.keys, half.rows)
    whole.fold(columns(events[4:], first=4))
    folded = restored.fold(columns(events))
    assert sorted(folded.keys) == [b"ann", b"cid"]
    assert rows(restored) == rows(whole)
    assert dict(zip(folded.keys, folded.rows, strict=True)) == {
        key: rows(whole)[key] for key in (b"ann", b"cid")
    }


def test_profiles_come_back_from_their_changelog() -> None:
    """Restoring every row that was ever written, in order and in any cut, gives the same profiles."""
    events = stream(2000, users=50)
    profiles, restored = Profiles(usecase()), Profiles(usecase())
    for first in range(0, 2000, 250):
        folded = profiles.fold(columns(events[first : first + 250], first))
        restored.restore(folded.keys[:10], folded.rows[:10])
        restored.restore(folded.keys[10:], folded.rows[10:])
    assert rows(profiles) == rows(restored)
    assert profiles.watermark == restored.watermark
    assert profiles.last_offset == restored.last_offset == 1999


def test_an_older_row_never_replaces_a_newer_one() -> None:
    """Of rows of one user the highest offset stays, whether they come in one run or in two."""
    profiles = Profiles(usecase())
    old = profiles.fold(columns([event()]))
    new = profiles.fold(columns([event(id="e2")], first=1))
    for runs in ([new, old], [old, new]):
        apart, together = Profiles(usecase()), Profiles(usecase())
        for run in runs:
            apart.restore(run.keys, run.rows)
        together.restore([b"ann", b"ann"], [run.rows[0] for run in runs])
        assert rows(apart) == rows(together) == rows(profiles)


def test_a_tombstone_deletes_and_a_later_row_starts_anew() -> None:
    """Within one run a user can be deleted and come back."""
    profiles = Profiles(usecase())
    folded = profiles.fold(columns([event()]))
    restored = Profiles(usecase())
    restored.restore([b"ann", b"ann", b"bob"], [folded.rows[0], None, None])
    assert len(restored) == 0
    restored.restore([b"ann", b"ann"], [None, folded.rows[0]])
    assert rows(restored) == rows(profiles)


def test_rows_of_other_features_are_refused() -> None:
    """A changelog of another feature layout is an error that says what to do, not a garbled profile."""
    other = Profiles(parse(USECASE.replace('half_life = "1d"', 'half_life = "2d"')))
    folded = other.fold(columns([event()]))
    with pytest.raises(ChangelogError, match=r"set another engine\.id"):
        Profiles(usecase()).restore(folded.keys, folded.rows)
    with pytest.raises(ChangelogError, match=r"engine\.id"):
        Profiles(usecase()).restore([b"ann"], [b"short"])


def test_the_idle_are_forgotten_and_their_rows_reused() -> None:
    """Users idle for longer than idle_after go once their last event is committed; the room is used again."""
    profiles = Profiles(usecase())
    profiles.fold(columns([event(), event(user="bob", time=START_MS + 31 * DAY_MS)]))
    size = profiles.nbytes
    assert profiles.evict(committed=0) == []  # ann's event may be read again
    assert profiles.evict(committed=1) == [b"ann"]
    assert list(profiles) == [b"bob"]
    profiles.fold(columns([event(user="cid", time=START_MS + 31 * DAY_MS)], first=2))
    assert set(profiles) == {b"bob", b"cid"}
    assert profiles.nbytes == size
    fresh = Profiles(usecase())
    fresh.fold(columns([event(user="cid", time=START_MS + 31 * DAY_MS)], first=2))
    assert rows(profiles)[b"cid"] == rows(fresh)[b"cid"]


def test_profiles_grow_without_changing() -> None:
    """A hundred thousand users keep their rows while room is made for them."""
    profiles = Profiles(usecase())
    events = [event(id=f"e{n}", user=f"u{n}", value=float(n)) for n in range(100_000)]
    for first in range(0, len(events), 10_000):
        profiles.fold(columns(events[first : first + 10_000], first))
    assert len(profiles) == 100_000
    for n in (0, 1, 50_000, 99_999):
        row = profiles.row(b"u%d" % n)
        assert row is not None
        assert row["offset"][0] == n
