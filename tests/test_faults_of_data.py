"""Facts about detectors/faults.py, units.py and pace.py: injected faults are called so by name, drifts never are."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.faults import Usual, arrival_faults, column_faults
from detectors.pace import LATE, Pace, following, pace_of
from detectors.rows import Float64, Rows, Schema, rows_of
from detectors.verdict import Fault
from tests.bench.injection import BURST, DRIFTS, FAULTS, HOUR, Injection, inject_drift, inject_fault

# Columns that repeat (a time of day, a tie of .38), lie in [0, 1], have heavy tails, zeros, gaps, or one value.
NUMERIC = ("period", "price", "demand", "transfer", "income", "clicks", "age", "member", "version")
CHANGING = range(5)  # of which no value is the rule
SCHEMA = Schema(NUMERIC, ("plan", "city"))
BEFORE = 2000  # rows before the alarm
WINDOW = 400


def features(n: int, rng: np.random.Generator) -> tuple[Float64, Float64]:
    """Features [n, F] and labels [n], which depend on them."""
    demand = rng.beta(3, 4, n).round(3)
    transfer = np.where(rng.random(n) < 0.38, 0.415, rng.beta(2, 2, n).round(4))
    numeric = np.column_stack(
        [
            rng.integers(48, size=n) / 47,
            (0.1 * demand + np.exp(rng.normal(-3.5, 0.6, n))).round(6),
            demand,
            transfer,
            np.exp(rng.normal(7, 0.8, n)),
            np.where(rng.random(n) < 0.7, 0, 1 + rng.poisson(6, n)),
            np.where(rng.random(n) < 0.3, np.nan, rng.normal(40, 12, n)),
            rng.random(n) < 0.1,
            np.full(n, 3),
        ]
    )
    return numeric, (rng.random(n) < 0.2 + 0.6 * demand).astype(np.float64)


def categories(n: int, rng: np.random.Generator) -> NDArray[np.object_]:
    """A plan of three and a city of sixty, [n, 2]."""
    plan = rng.choice(np.array(["free", "plus", None], np.object_), n, p=(0.6, 0.3, 0.1))
    cities = np.array([f"city {k}" for k in range(60)], np.object_)
    share = 1 / np.arange(1, 61)
    return np.column_stack([plan, rng.choice(cities, n, p=share / share.sum())])


def arriving(numeric: Float64, rng: np.random.Generator) -> Rows:
    """Rows with ``numeric``, one a second, received some 2 s later and, one in fifty, up to ten minutes."""
    n = len(numeric)
    time = 1_700_000_000_000 + np.cumsum(rng.exponential(1000, n)).astype(np.int64)
    lag = np.where(rng.random(n) < 0.02, rng.uniform(0, 600_000, n), np.exp(rng.normal(7.6, 0.5, n)))
    rows = rows_of(numeric, np.full(n, 0.5), categorical=categories(n, rng), time=time)
    return msgspec.structs.replace(rows, received=time + lag.astype(np.int64))


def reference(rng: np.random.Generator, n: int = 2000) -> Rows:
    """Rows of the reference."""
    return arriving(features(n, rng)[0], rng)


def faults(
    known: Rows, window: Rows, schema: Schema, before: Pace | None = None, now: Pace | None = None
) -> list[Fault]:
    """All checks."""
    return [*column_faults(known, window, schema), *arrival_faults(known, window, before, now)]


def paces(rows: Rows) -> tuple[Pace | None, Pace | None]:
    """How ``rows`` arrived before ``BEFORE``, and from then on."""
    return pace_of(rows[:BEFORE]), pace_of(rows[BEFORE:], int(rows.time[:BEFORE].max()))


def verdict(known: Rows, rows: Rows) -> set[str]:
    """The checks that fail of ``rows`` from ``BEFORE`` on."""
    return {each.check for each in faults(known, rows[BEFORE:], SCHEMA, *paces(rows))}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", FAULTS)
def test_an_injected_fault_is_named(kind: str, seed: int) -> None:
    """Whatever its column and size, if up to 50 rows of the window were before it, and if not all rows have it."""
    rng = np.random.default_rng([seed, 1])
    rows = arriving(features(BEFORE + WINDOW, rng)[0], rng)
    how = Injection(column=seed % (2 if kind == "unknown-values" else len(CHANGING)))
    broken = inject_fault(rows, BEFORE + int(rng.integers(51)), kind, rng, how)
    assert kind in verdict(reference(rng), broken)


@pytest.mark.parametrize("width", [0, 1000])
@pytest.mark.parametrize("kind", DRIFTS)
def test_a_drift_is_no_fault(kind: str, width: int) -> None:
    """Abrupt, or at four stages of its width, of columns between 0 and 1, as the protocol's are."""
    proportions = Schema(NUMERIC[:4], SCHEMA.categorical)
    for seed in range(4):
        rng = np.random.default_rng([seed, 2])
        x, y = features(10_000, rng)
        x, _, index, location = inject_drift(x[:, :4], y, kind, rng, width)
        begin = int(np.searchsorted(index, location + width * seed // 4))
        rows = arriving(x[begin - BEFORE : begin + WINDOW], rng)
        known = arriving(x[1000:3000], rng)
        assert not faults(known, rows[BEFORE:], proportions, *paces(rows))


def strong(kind: str, rng: np.random.Generator) -> Rows:
    """Rows of which those from ``BEFORE`` on have drifted far, all numeric columns that vary or the categories."""
    rows = arriving(features(BEFORE + WINDOW, rng)[0], rng)
    numeric, categorical = rows.numeric.copy(), rows.categorical.copy()
    now, usual = numeric[BEFORE:], numeric[:BEFORE]
    varied = [*CHANGING, 6]
    if kind == "mean of 3 sd":
        now[:, varied] += 3 * np.nanstd(usual, axis=0)[varied]
    elif kind == "logarithm by 3 sd":
        now[:, 4] *= np.exp(3 * 0.8)
    elif kind == "scale of 2":
        middle = np.nanmedian(usual, axis=0)[varied]
        now[:, varied] = middle + 2 * (now[:, varied] - middle)
    elif kind == "doubled":
        now[:, 4] *= 2
    elif kind == "newcomers":
        now[:, 5] = np.where(rng.random(WINDOW) < 0.95, 0, 1)
        now[:, 4] = np.exp(rng.normal(6, 1.2, WINDOW))
        now[:, 7] = 0
    elif kind == "new value":
        categorical[BEFORE:][rng.random(WINDOW) < 0.3] = "new"
    return msgspec.structs.replace(rows, numeric=numeric, categorical=categorical)


@pytest.mark.parametrize(
    "kind",
    ["none", "mean of 3 sd", "logarithm by 3 sd", "scale of 2", "doubled", "newcomers", "new value"],
)
def test_the_world_may_change_far(kind: str) -> None:
    """Not in one of four streams a strong drift, or none, looks like a fault."""
    for seed in range(4):
        rng = np.random.default_rng([seed, 3])
        assert not verdict(reference(rng), strong(kind, rng))


def test_the_unit_is_told() -> None:
    """From °C to °F in seven rows in ten: the column, how many and how."""
    rng = np.random.default_rng(4)
    celsius = rng.normal(12, 8, 3000)[:, None]
    rows = rows_of(celsius, np.full(3000, 0.5))
    hot = inject_fault(rows, 2500, "unit-change", rng, Injection(share=0.7, unit=(1.8, 32.0)))
    (found,) = faults(rows[:2000], hot[2500:], Schema(("celsius",)))
    assert ("unit-change", "celsius") == (found.check, found.column)
    assert found.detail.endswith("of the values are as if multiplied by 1.8 and moved by 32")
    assert abs(float(found.detail.split("%")[0]) - 70) < 6


def test_counts_in_another_unit_are_known_by_their_multiples() -> None:
    """Where old and new overlap, as with hours from 0 to 500, whole multiples tell; the same growth without them is a drift."""
    rng = np.random.default_rng(5)
    hours = np.floor(np.exp(rng.normal(2.5, 1.3, 3000)))[:, None]
    minutes = hours[2500:] * 60
    grown = np.floor((hours[2500:] + rng.random((500, 1))) * 60)
    known, schema = rows_of(hours[:2000], np.full(2000, 0.5)), Schema(("used",))
    for now, expected in ((minutes, ["unit-change"]), (grown, [])):
        found = faults(known, rows_of(now, np.full(500, 0.5)), schema)
        assert expected == [each.check for each in found]


def test_fast_rows_are_no_bots_and_alike_rows_are_none_at_the_usual_pace() -> None:
    """It takes both: a sale brings many, a new habit makes them alike."""
    rng = np.random.default_rng(6)
    known, rows = reference(rng), arriving(features(BEFORE + WINDOW, rng)[0], rng)
    fast = inject_fault(rows, BEFORE, "bot-burst", rng, Injection(share=0))
    alike = msgspec.structs.replace(
        inject_fault(rows, BEFORE, "bot-burst", rng), time=rows.time, received=rows.received
    )
    assert not verdict(known, fast)
    assert "bot-burst" not in verdict(known, alike)


def test_nothing_is_said_of_time_where_none_is_known() -> None:
    """Without a pace, or with rows of no time, as files have them."""
    rng = np.random.default_rng(7)
    rows = arriving(features(BEFORE + WINDOW, rng)[0], rng)
    skewed = inject_fault(rows, BEFORE, "clock-skew", rng, Injection(hours=5, share=1))
    timeless = msgspec.structs.replace(rows, time=rows.time * 0, received=rows.received * 0)
    assert not faults(reference(rng), skewed[BEFORE:], SCHEMA)
    assert not verdict(reference(rng), timeless)


def test_late_rows_tell_of_clocks_where_no_receipt_is_known() -> None:
    """In a replay: five hours behind the newest."""
    rng = np.random.default_rng(8)
    rows = arriving(features(BEFORE + WINDOW, rng)[0], rng)
    replayed = msgspec.structs.replace(rows, received=rows.received * 0)
    assert {"clock-skew"} == verdict(
        reference(rng), inject_fault(replayed, BEFORE, "clock-skew", rng, Injection(hours=-5))
    )


def test_history_that_is_sent_again_has_no_clocks_to_judge() -> None:
    """A year of events sent within a minute comes ever less late; the same lags at the pace of clocks are a fault."""
    rng = np.random.default_rng(9)
    rows = arriving(features(BEFORE + WINDOW, rng)[0], rng)
    received = rows.time + 10**9 - np.where(np.arange(len(rows)) < BEFORE, 0, round(5 * HOUR))
    assert {"clock-skew"} == verdict(reference(rng), msgspec.structs.replace(rows, received=received))
    received = (
        rows.time[-1]
        + 10**9
        + np.arange(len(rows)) // 100
        - np.where(np.arange(len(rows)) < BEFORE, 0, round(5 * HOUR))
    )
    assert set() == verdict(reference(rng), msgspec.structs.replace(rows, received=received))
    slow = pace_of(msgspec.structs.replace(rows[:BEFORE], time=np.full(BEFORE, rows.time[0])))
    later = pace_of(msgspec.structs.replace(rows[:BEFORE], time=np.full(BEFORE, rows.time[0] + 10**12)))
    assert slow is not None
    assert later is not None
    assert (following(slow, later).speed or 0) > 1000
    assert following(None, slow).speed == 0


def test_what_training_had_in_a_block_is_no_fault() -> None:
    """A cohort of newcomers has no history: missing, frozen and new values are faults only where training never had such a block."""
    rng = np.random.default_rng(10)
    known, window = reference(rng), reference(rng, WINDOW)
    numeric, categorical = window.numeric.copy(), window.categorical.copy()
    numeric[:, NUMERIC.index("age")], numeric[:, NUMERIC.index("demand")] = np.nan, 0.0
    categorical[:, 0] = "team"
    window = msgspec.structs.replace(window, numeric=numeric, categorical=categorical)
    named = {(fault.check, fault.column) for fault in column_faults(known, window, SCHEMA)}
    assert {("null-field", "age"), ("frozen-field", "demand"), ("unknown-values", "plan")} <= named
    usual = Usual(missing={"age": 1.0}, alike={"demand": 1.0, "plan": 1.0}, strange={"plan": 1.0})
    assert [] == column_faults(known, window, SCHEMA, usual)


def test_a_pace_is_told_in_hours_and_milliseconds() -> None:
    """A row a minute, received 3 s later; then one that is eleven minutes late."""
    time = np.append(np.arange(1, 100) * 60_000, 99 * 60_000 - LATE - 1)
    rows = rows_of(np.empty((100, 0)), np.full(100, 0.5), time=time)
    pace = pace_of(msgspec.structs.replace(rows, received=time + 3000))
    assert pace is not None
    assert pytest.approx(60, rel=0.05) == pace.rate
    assert Pace(pace.rate, 3000, 0, 0.01, pace.middle, pace.speed) == pace


def test_a_burst_is_as_fast_as_injected() -> None:
    """Five times; lags stay as they were."""
    rng = np.random.default_rng(10)
    rows = arriving(features(3000, rng)[0], rng)
    burst = inject_fault(rows, 1500, "bot-burst", rng)
    before, during = pace_of(rows[1500:]), pace_of(burst[1500:])
    assert before is not None
    assert during is not None
    assert before.rate is not None
    assert pytest.approx(BURST * before.rate, rel=0.05) == during.rate
    assert (rows.received - rows.time).tolist() == (burst.received - burst.time).tolist()


def test_drifts_are_injected_where_they_are_said_to_be() -> None:
    """Between .5 and .8; rows before it are as they were, after it the protocol's."""
    rng = np.random.default_rng(11)
    x, y = features(5000, rng)
    for kind in DRIFTS:
        plain = np.random.default_rng(12).permutation(5000)
        a, b, index, location = inject_drift(x, y, kind, np.random.default_rng(12), 0)
        begin = int(np.searchsorted(index, location))
        assert 2500 <= location < 4000
        np.testing.assert_array_equal(x[plain[:location]], a[:begin])
        np.testing.assert_array_equal(y[plain[:location]], b[:begin])
        kept = x[plain[index[begin:]]], y[plain[index[begin:]]]
        changed = {"y_swaps": (False, True), "x_permutations": (True, False)}.get(kind, (False, False))
        assert changed == (
            not np.array_equal(kept[0], a[begin:], equal_nan=True),
            not np.array_equal(kept[1], b[begin:]),
        )
    with pytest.raises(ValueError, match="unknown drift 'none'"):
        inject_drift(x, y, "none", rng, 0)


def test_skew_is_of_hours() -> None:
    """Of those that it concerns, and of none before its begin."""
    rng = np.random.default_rng(13)
    rows = arriving(features(200, rng)[0], rng)
    skewed = inject_fault(rows, 100, "clock-skew", rng, Injection(hours=2, share=1))
    assert [0] * 100 + [2 * HOUR] * 100 == (skewed.time - rows.time).tolist()
