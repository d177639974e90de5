"""Facts about what is found in an event file."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.events import Reason
from stream.explore import MAX_TYPES
from stream.files import numbered_lines
from stream.mapping import FormatError
from tests import shop
from tests.shop import DAY_MS, START_MS, event, explored, stream


def test_planted_counts_and_fields_are_found() -> None:
    """Types, users, cardinalities and the share of missing prices are those of the shop."""
    findings, _ = shop.shop()
    events = stream()
    assert len(events) == findings.lines == findings.events
    assert (shop.USERS, {}) == (findings.users, findings.refused)
    assert ["view", "offer", "buy"] == list(findings.kinds)
    view, offer, buy = findings.kinds.values()
    assert (3 * shop.OFFERS * shop.USERS, shop.OFFERS * shop.USERS) == (view.count, offer.count)
    assert ["item", "context.plan", "context.price"] == list(view.fields)
    assert (60, True, "category") == (view.fields["item"].distinct, True, view.fields["item"].kind)
    assert abs(view.fields["context.price"].missing - shop.NO_PRICE) < 0.02
    assert (shop.PLANS, "category") == (
        view.fields["context.plan"].distinct,
        view.fields["context.plan"].kind,
    )
    assert (3, "number") == (offer.fields["context.discount"].distinct, offer.fields["context.discount"].kind)
    assert ("bool", {"true", "false"}) == (
        offer.fields["context.rush"].kind,
        {value for value, _ in offer.fields["context.rush"].top},
    )
    assert abs(buy.fields["value"].quantiles[2] / np.exp(3) - 1) < 0.15
    assert buy.fields["value"].least == min(each["value"] for each in events if "value" in each)


def test_days_without_events_are_counted() -> None:
    """Events on days 0, 1, 5 and 6 leave three days empty, in a row."""
    findings = explored([event(n, time=START_MS + day * DAY_MS) for n, day in enumerate((0, 1, 5, 6))])
    view = findings.kinds["view"]
    assert (3, 3, 4 / 7) == (view.empty_days, view.silence, view.a_day)


def test_weekday_and_hour_are_utc() -> None:
    """2023-11-15 was a Wednesday."""
    week = explored([event(0, time=START_MS + 13 * 3_600_000)]).kinds["view"].week
    assert [(2, 13)] == [tuple(at) for at in np.argwhere(week).tolist()]


def test_lateness_is_measured_behind_the_latest_event_of_the_file() -> None:
    """One event half an hour late; a second file starts anew."""
    first = [event(n, time=START_MS + minutes * 60_000) for n, minutes in enumerate((0, 60, 30, 90))]
    order = explored(first, [event(9)]).order
    assert (1, 1800, 1800) == (order.late, order.most_s, order.p99_s)


def test_ids_that_came_before_are_counted() -> None:
    """One of four events repeats an id."""
    assert explored([event(n) for n in (0, 1, 2, 1)]).duplicates == 0.25


BAD: list[tuple[Any, Reason]] = [
    (b"oops", Reason.NOT_JSON),
    (b'{"id": "e", "type": "view", "user": "u", "time": NaN}', Reason.NOT_FINITE),
    (b'{"id": "\xff"}', Reason.BAD_UTF8),
    (b"x" * 70_000, Reason.TOO_LARGE),
    ({"id": "e", "type": "view", "time": START_MS}, Reason.NO_USER),
    ({"id": "e", "user": "u", "time": START_MS}, Reason.MISSING_FIELD),
    (event(1, user=7), Reason.WRONG_TYPE),
    (event(1, context=[1]), Reason.WRONG_TYPE),
    (event(1, time=1_700_000_000), Reason.IMPOSSIBLE_TIME),
    (event(1, time=shop.NOW_MS + DAY_MS), Reason.IMPOSSIBLE_TIME),
    (event(1, value=1e16), Reason.NOT_FINITE),
    (event(1, user="a\nb"), Reason.WRONG_KEY),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_line_is_counted_by_the_workers_reason(line: Any, reason: Reason) -> None:
    """It stands with its first place, and the events around it are not lost."""
    findings = explored([event(0), line, event(2), line])
    assert {reason: (2, "0.jsonl:2")} == {
        why: (each.count, each.where) for why, each in findings.refused.items()
    }
    assert (4, 2) == (findings.lines, findings.events)


def test_a_time_beyond_64_bits_is_impossible() -> None:
    """And so is one with no offset; RFC 3339 with an offset is a time."""
    line = b'{"id": "e", "type": "view", "user": "u", "time": ' + b"9" * 30 + b"}"
    findings = explored(
        [line, event(0, time="2023-11-15T01:00:00+01:00"), event(1, time="2023-11-15T01:00:00")]
    )
    assert {Reason.IMPOSSIBLE_TIME: 2} == {why: each.count for why, each in findings.refused.items()}
    assert findings.first == START_MS


def test_a_field_of_several_kinds_is_mixed() -> None:
    """Numbers keep their range beside the texts; huge integers do no harm; lists and null are told apart."""
    contexts = [{"x": 1, "l": [1]}, {"x": "a", "n": None}, {"x": 10**400}]
    fields = explored([event(n, context=each) for n, each in enumerate(contexts)]).kinds["view"].fields
    assert ("mixed", 3, 1.0, 1e300) == (
        fields["context.x"].kind,
        fields["context.x"].distinct,
        fields["context.x"].least,
        fields["context.x"].most,
    )
    assert fields["context.l"].kind == "other"
    assert "context.n" not in fields


def test_memory_is_bounded_by_a_sample_of_whole_users() -> None:
    """Of a shop of 20,000 events at most 5,000 are held, with every event of each user that is kept."""
    events = stream()
    whole, part = explored(events).histories, explored(events, history_events=5000).histories
    assert (1.0, 0.25) == (whole.share, part.share)
    assert 2000 < len(part.users) <= 5000
    assert set(part.per_user().tolist()) <= set(whole.per_user().tolist())
    assert abs(part.per_user().mean() / whole.per_user().mean() - 1) < 0.05


def test_types_beyond_the_bound_are_only_counted() -> None:
    """A file whose types are identifiers does not fill the memory."""
    findings = explored([event(n, type=f"t{n}") for n in range(MAX_TYPES + 5)])
    assert (MAX_TYPES, 5) == (len(findings.kinds), findings.undescribed)


def test_a_gzipped_file_is_read(tmp_path: Path) -> None:
    """As the worker's files are."""
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(line for _, line in shop.lines([event(0), event(1)]))))
    assert explored([line for _, line in numbered_lines(path)]).events == 2


def test_a_file_of_other_fields_is_told_with_its_mapping() -> None:
    """The error names fields, a likely mapping and a command."""
    line = {"user_id": 7, "event": "click", "timestamp": 1_700_000_000, "page": "home"}
    with pytest.raises(FormatError) as raised:
        explored([line, line])
    text = str(raised.value)
    assert text.startswith("0.jsonl: no line is an event: `id`, `type`, `user` and `time` are required.")
    assert "event -> type, user_id -> user, timestamp -> time, page -> item" in text
    assert '{type: ."event", user: (."user_id" | tostring), time: (."timestamp" * 1000 | floor)' in text


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([b"a,b,c", b"1,2,3"], "no line is a JSON object, the first begins 'a,b,c'"),
        ([{"colour": "red"}], "Nothing looks like type, user, time"),
        ([event(0, time=5)], "no line is an event although id, type, user and time are there"),
        ([], "there are no events"),
    ],
)
def test_a_file_without_events_is_told_what_it_holds(lines: list[Any], said: str) -> None:
    """Instead of a use case for nothing."""
    with pytest.raises(FormatError, match=said):
        explored(lines)
