"""Facts about stream/events.py: what is accepted, and why the rest is not."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest

from stream.events import Decoder, Reason
from stream.producer import NewEvent
from tests.events import NOW_MS, START_MS, event, record, records, stream, usecase

DECODE = Decoder(usecase(), max_bytes=2000, max_skew_ms=300_000)

BAD: list[tuple[str, bytes | None, Reason]] = [
    ("tombstone", None, Reason.EMPTY),
    ("no bytes", b"", Reason.EMPTY),
    ("not JSON", b"hello", Reason.NOT_JSON),
    ("cut short", b'{"id":"e1"', Reason.NOT_JSON),
    ("byte order mark", b"\xef\xbb\xbf" + json.dumps(event()).encode(), Reason.NOT_JSON),
    ("half a surrogate", b'{"id":"\\ud800","type":"page","user":"ann","time":1}', Reason.NOT_JSON),
    ("two events", (json.dumps(event()) + json.dumps(event())).encode(), Reason.NOT_JSON),
    ("nested too deep", b'{"x":' + b"[" * 1900, Reason.NOT_JSON),
    ("a list", b"[]", Reason.WRONG_TYPE),
    ("user a number", json.dumps(event(user=7)).encode(), Reason.WRONG_TYPE),
    ("value a text", json.dumps(event(value="3")).encode(), Reason.WRONG_TYPE),
    ("context a list", json.dumps(event(context=[1])).encode(), Reason.WRONG_TYPE),
    ("context field of another kind", json.dumps(event(context={"price": "x"})).encode(), Reason.WRONG_TYPE),
    ("time a fraction", json.dumps(event(time=START_MS + 0.5)).encode(), Reason.WRONG_TYPE),
    ("id empty", json.dumps(event(id="")).encode(), Reason.WRONG_TYPE),
    ("no id", json.dumps(event(id=...)).encode(), Reason.MISSING_FIELD),
    ("no time", json.dumps(event(time=...)).encode(), Reason.MISSING_FIELD),
    ("no item where the type requires it", json.dumps(event(item=...)).encode(), Reason.MISSING_FIELD),
    ("no value where the type requires it", json.dumps(event(type="quiz")).encode(), Reason.MISSING_FIELD),
    ("no user", json.dumps(event(user=...)).encode(), Reason.NO_USER),
    ("user empty", json.dumps(event(user="")).encode(), Reason.NO_USER),
    ("unknown event", json.dumps(event(type="pgae")).encode(), Reason.UNKNOWN_EVENT),
    ("time no date", json.dumps(event(time="yesterday")).encode(), Reason.IMPOSSIBLE_TIME),
    ("time without zone", json.dumps(event(time="2024-05-05T00:00:00")).encode(), Reason.IMPOSSIBLE_TIME),
    ("time in seconds", json.dumps(event(time=START_MS // 1000)).encode(), Reason.IMPOSSIBLE_TIME),
    ("time ahead", json.dumps(event(time=NOW_MS + 300_001)).encode(), Reason.IMPOSSIBLE_TIME),
    ("time beyond 64 bits", json.dumps(event(time=10**30)).encode(), Reason.IMPOSSIBLE_TIME),
    ("too large", json.dumps(event(item="x" * 3000)).encode(), Reason.TOO_LARGE),
    ("bad UTF-8 in the user", b'{"id":"e1","type":"page","user":"\xff","time":1}', Reason.BAD_UTF8),
    ("bad UTF-8 in a field not read", json.dumps(event(x="?")).encode().replace(b"?", b"\xff"), Reason.BAD_UTF8),
    ("NaN", json.dumps(event(value=float("nan"))).encode(), Reason.NOT_FINITE),
    ("infinity", json.dumps(event(value=float("-inf"))).encode(), Reason.NOT_FINITE),
    ("number out of range", json.dumps(event(value=0)).replace('"value": 0', '"value": 1e999').encode(), Reason.NOT_FINITE),
    ("value beyond single precision", json.dumps(event(value=1e16)).encode(), Reason.NOT_FINITE),
    ("context beyond single precision", json.dumps(event(context={"price": 1e300})).encode(), Reason.NOT_FINITE),
    ("another user's key", json.dumps(event(user="bob")).encode(), Reason.WRONG_KEY),
    ("user of two lines", json.dumps(event(user="a\nb")).encode(), Reason.WRONG_KEY),
]  # fmt: skip


@pytest.mark.parametrize(("value", "reason"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_record_is_told_with_its_reason(value: bytes | None, reason: Reason) -> None:
    """Each kind of bad record, alone, comes back with its reason and a detail, and no event."""
    columns, bad = DECODE([record(value)], NOW_MS)
    assert (0, [(0, reason)]) == (len(columns), [(each.position, each.reason) for each in bad])
    assert bad[0].detail


def test_bad_records_leave_the_good_ones_around_them() -> None:
    """In a batch of all kinds of bad records between good ones, exactly the good ones remain, in order."""
    good = records(stream(len(BAD) + 1, users=5))
    mixed = []
    for position, (_, value, _) in enumerate(BAD):
        mixed += [good[position], record(value, offset=-1)]
    mixed.append(good[-1])
    columns, bad = DECODE(mixed, NOW_MS)
    assert [each.offset for each in good] == columns.offsets.tolist()
    assert [reason for _, _, reason in BAD] == [each.reason for each in bad]
    assert [2 * position + 1 for position in range(len(BAD))] == [each.position for each in bad]


def test_a_record_without_its_key_is_refused() -> None:
    """An event sent without its user as key may stand in any partition, so it is not folded."""
    columns, bad = DECODE([record(msgspec.json.encode(event()), key=None)], NOW_MS)
    assert (0, Reason.WRONG_KEY) == (len(columns), bad[0].reason)


def test_columns_hold_what_was_sent() -> None:
    """Times, values, types and keys come through, a missing value as NaN, RFC 3339 like milliseconds."""
    sent = [
        event(),
        event(type="quiz", value=2.5, user="böb", time="2023-11-14T22:13:20Z"),
        event(time="2023-11-15T00:13:20.250+02:00"),
    ]
    columns, bad = DECODE(records(sent), NOW_MS)
    assert bad == []
    assert columns.times.tolist() == [START_MS, START_MS, START_MS + 250]
    assert columns.keys == [b"ann", "böb".encode(), b"ann"]
    assert columns.codes.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(columns.values, [np.nan, 2.5, np.nan])


def _schema() -> Any:
    schema = json.loads((Path(__file__).parent.parent / "stream" / "events.schema.json").read_text())
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


def test_the_schema_accepts_what_the_decoder_accepts() -> None:
    """Every good event of a stream, and one by the typed client, is valid under the shipped JSON Schema."""
    made = NewEvent(id="n", type="page", user="ann", time=dt.datetime(2024, 1, 1, tzinfo=dt.UTC), item="p")
    good = [json.loads(each.value or b"") for each in records(stream(200, users=5))]
    for each in [*good, json.loads(msgspec.json.encode(made))]:
        _schema().validate(each)
    assert DECODE([record(msgspec.json.encode(made))], NOW_MS)[1] == []


IN_SCHEMA = {Reason.WRONG_TYPE, Reason.MISSING_FIELD, Reason.NO_USER}


@pytest.mark.parametrize(
    "value", [case[1] for case in BAD if case[2] in IN_SCHEMA and b"context" not in (case[1] or b"")]
)
def test_the_schema_refuses_what_no_use_case_could_accept(value: bytes) -> None:
    """A bad shape is invalid under the schema too, unless only the use case's declarations refuse it."""
    declared = {"no item where the type requires it", "no value where the type requires it"}
    if next(name for name, each, _ in BAD if each == value) in declared:
        _schema().validate(json.loads(value))
    else:
        assert not _schema().is_valid(json.loads(value))
