"""Facts about stream/fold.py, against a fold of one event at a time in plain Python."""

from __future__ import annotations

import math
import random
import zlib
from typing import Any

import numpy as np
import pytest

from model.features import Features
from model.usecase import Context, Item, LastValue, Ratio, Recency, Tenure, TimeOfDay, UseCase, Value, parse
from stream.events import Columns, Decoder
from stream.profiles import Profiles
from tests.events import DAY_MS, NOW_MS, START_MS, event, records, stream, usecase

USECASE = usecase()


def decode(events: list[dict[str, Any]], declared: UseCase = USECASE, first: int = 0) -> Columns:
    """Columns of good events, at offsets from ``first``."""
    columns, bad = Decoder(declared, 65_536, 0)(records(events, first), NOW_MS)
    assert bad == []
    return columns


def fold(events: list[dict[str, Any]], batch: int, declared: UseCase = USECASE) -> tuple[Profiles, Features]:
    """All ``events`` in batches of ``batch``; the profiles, and the features of all decisions in order."""
    profiles = Profiles(declared)
    found = [
        profiles.fold(decode(events[first : first + batch], declared, first)).features
        for first in range(0, len(events), batch)
    ]
    return profiles, Features(
        numeric=np.concatenate([each.numeric for each in found]),
        categorical=tuple(
            [value for each in found for value in each.categorical[column]]
            for column in range(len(found[0].categorical))
        ),
    )


def one_by_one(events: list[dict[str, Any]], declared: UseCase = USECASE) -> list[list[float | str | None]]:
    """Features of every decision by the definitions, from the user's whole history, in doubles."""
    histories: dict[str, list[dict[str, Any]]] = {}
    rows = []
    for each in events:
        history = histories.setdefault(each["user"], [])
        last = max((past["time"] for past in history), default=None)
        if last is not None and each["time"] - last > declared.profile.idle_after * 1000:
            history.clear()
        if each["type"] in declared.decisions:
            rows.append(
                [value for name in declared.features for value in define(name, each, history, declared)]
            )
        history.append(each)
    return rows


def define(
    name: str, now: dict[str, Any], history: list[dict[str, Any]], declared: UseCase
) -> list[float | str | None]:
    """What the feature ``name`` is at the decision ``now``, from the user's ``history``."""
    feature = declared.features[name]
    if isinstance(feature, Tenure):
        return [(now["time"] - min(past["time"] for past in history)) / 1000 if history else math.nan]
    if isinstance(feature, TimeOfDay):
        angle = 2 * math.pi * (now["time"] % DAY_MS) / DAY_MS
        return [math.sin(angle), math.cos(angle)]
    if isinstance(feature, Value):
        return [now.get("value", math.nan)]
    if isinstance(feature, Item):
        return [now.get("item")]
    if isinstance(feature, Context):
        return [now.get("context", {}).get(feature.field)]
    if isinstance(feature, Ratio):
        (above,) = define(feature.numerator, now, history, declared)
        (below,) = define(feature.denominator, now, history, declared)
        assert isinstance(above, float)
        assert isinstance(below, float)
        return [above / below if below else math.nan]
    mine = [past for past in history if past["type"] in feature.events]
    if isinstance(feature, Recency):
        return [(now["time"] - max(past["time"] for past in mine)) / 1000 if mine else math.nan]
    if isinstance(feature, LastValue):
        return [max(mine, key=lambda past: past["time"])["value"] if mine else math.nan]
    if hasattr(feature, "bits"):
        used = len({(zlib.crc32(past["item"].encode()) % feature.bits) for past in mine})
        return [-feature.bits * math.log((feature.bits - used) / feature.bits)]
    fades = [0.5 ** ((now["time"] - past["time"]) / 1000 / feature.half_life) for past in mine]
    weights = [past["value"] if type(feature).__name__ == "DecayedSum" else 1.0 for past in mine]
    return [math.fsum(fade * weight for fade, weight in zip(fades, weights, strict=True))]


def test_features_are_what_they_are_defined_as() -> None:
    """Every feature of every decision agrees with its definition over the user's history, to 1e-5."""
    events = stream(4000, users=40)
    _, features = fold(events, batch=700)
    expected = one_by_one(events)
    texts = [j for j, value in enumerate(expected[-1]) if isinstance(value, str)]
    numbers = [j for j in range(len(expected[0])) if j not in texts]
    np.testing.assert_allclose(
        features.numeric,
        np.array([[row[j] for j in numbers] for row in expected], float),
        rtol=1e-5,
        atol=1e-6,
    )
    assert [[row[j] for row in expected] for j in texts] == [list(column) for column in features.categorical]
    assert np.isnan(features.numeric).any()  # missing values occur


@pytest.mark.parametrize("batch", [1, 2, 7, 100, 3000])
def test_batching_changes_no_bit(batch: int) -> None:
    """Rows and features are the same bits however the events are cut into batches."""
    events = stream(3000, users=25, seed=1)
    whole, features = fold(events, batch=1234)
    cut, again = fold(events, batch=batch)
    assert features.numeric.tobytes() == again.numeric.tobytes()
    for key in whole:
        one, other = whole.row(key), cut.row(key)
        assert one is not None
        assert other is not None
        assert one.tobytes() == other.tobytes()


def test_out_of_order_events_give_the_profile_in_order() -> None:
    """A user's events in any order of arrival give the same profile, decayed values to 1e-5 relative."""
    events = stream(600, users=3, seed=2, step_ms=600_000)
    shuffled = random.Random(3).sample(events, len(events))
    ordered, _ = fold(events, batch=100)
    late, _ = fold(shuffled, batch=100)
    for key in ordered:
        one, other = ordered.row(key), late.row(key)
        assert one is not None
        assert other is not None
        np.testing.assert_allclose(one["decayed"], other["decayed"], rtol=1e-5)
        for field in ("first", "latest", "seen", "at", "last", "bits"):
            np.testing.assert_array_equal(one[field], other[field])


def test_a_tie_in_time_does_not_depend_on_arrival() -> None:
    """Of two last values at one instant the larger stays, whichever came first."""
    pair = [event(id="a", type="quiz", value=3.0), event(id="b", type="quiz", value=5.0)]
    for events in (pair, pair[::-1]):
        profiles, _ = fold([*events, event(id="d", type="offer", time=START_MS + 1)], batch=3)
        row = profiles.row(b"ann")
        assert row is not None
        assert row["last"].tolist() == [[5.0]]


def test_a_decision_sees_earlier_events_only() -> None:
    """A decision's features hold what came before it in its partition, and neither itself nor what follows."""
    events = [
        event(id="a"),
        event(id="b", type="offer", time=START_MS + 1000),
        event(id="c", time=START_MS + 2000),
        event(id="d", type="offer", time=START_MS + 3000),
    ]
    _, features = fold(events, batch=4)
    names = [name for name in USECASE.features if name.startswith("pages_1d")]
    assert names == ["pages_1d"]
    np.testing.assert_allclose(features.numeric[:, 0], [1, 2], rtol=1e-4)  # pages
    np.testing.assert_allclose(
        features.numeric[:, 2], [1, 3], rtol=1e-4
    )  # all: the first decision counts later


def test_a_user_idle_for_too_long_starts_anew() -> None:
    """After longer than idle_after without an event, a decision sees a new user."""
    events = [event(id="a"), event(id="b", type="offer", time=START_MS + 31 * DAY_MS)]
    _, features = fold(events, batch=2)
    _, alone = fold(events[1:], batch=1)
    np.testing.assert_array_equal(features.numeric, alone.numeric)


def test_a_late_decision_reads_the_profile_as_it_stands() -> None:
    """A decision older than its user's latest event never sees decay run backwards."""
    events = [event(id=str(n), time=START_MS + DAY_MS) for n in range(3)]
    late = event(id="d", type="offer", time=START_MS)
    _, features = fold([*events, late], batch=4)
    assert features.numeric[0, 0] == 3.0


def test_features_that_count_alike_share_a_slot() -> None:
    """A profile row does not grow with a feature that an earlier one already holds."""
    text = """
name = "x"
[events.a]
[events.b]
[decisions.a]
outcome = "b"
window = "1d"
[features]
one = { kind = "decayed_count", events = ["b", "a"], half_life = "24h" }
"""
    more = text + 'two = { kind = "decayed_count", events = ["a", "b"], half_life = "1d" }\n'
    sizes = []
    for each in (text, more):
        row = fold([event(type="a", item=...)], 1, parse(each))[0].row(b"ann")
        assert row is not None
        sizes.append(row.dtype.itemsize)
    assert sizes[0] == sizes[1]
