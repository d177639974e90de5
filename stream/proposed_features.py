"""Which features to propose for a decision: from how often its users come back, and what their events carry.

Called by :mod:`stream.proposal`; every feature is one that ``model/usecase.py`` knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from model.usecase import Duration
from stream.candidates import Candidate
from stream.explore import Findings
from stream.tallies import EventKind, Field

COUNTED = 6  # most frequent types that become features
SESSION_MS = 1_800_000  # a shorter gap is within one visit
HALF_LIVES = ("1h", "3h", "6h", "12h", "1d", "3d", "7d", "14d", "30d", "60d", "120d")
BUCKETS_MOST = 65_536


class Feature(NamedTuple):
    """A line of [features]."""

    name: str
    setting: str  # the inline table, without braces


def duration(seconds: float, choices: Sequence[str]) -> str:
    """The shortest of ``choices`` that is no shorter than ``seconds``, or the longest."""
    return next((each for each in choices if Duration.parse(each) >= seconds), choices[-1])


def features(
    findings: Findings, kinds: Mapping[str, EventKind], best: Candidate, fields: Mapping[str, Field]
) -> Iterator[Feature]:
    """The features in order of importance; a ratio comes after both its sides."""
    unique = _Names(fields)
    counted = list(kinds)[:COUNTED]
    counted += [kind for kind in (best.decision, best.outcome) if kind not in counted]
    counts = {kind: list(_decayed(findings, unique, kind, "decayed_count", kind)) for kind in counted}
    for kind in counted:
        yield from counts[kind]
        yield Feature(unique(f"since_{kind}"), f'kind = "recency", events = ["{kind}"]')
    yield Feature(unique("tenure"), 'kind = "tenure"')
    yield from _of_decision(kinds[best.decision], fields, unique)
    shown, happened = counts[best.decision][-1].name, counts[best.outcome][-1].name
    yield _ratio(unique(f"{best.outcome}_of_{best.decision}"), happened, shown)
    pace = counts[counted[0]]
    if len(pace) > 1:
        yield _ratio(unique(f"{counted[0]}_pace"), pace[0].name, pace[-1].name)
    for kind in counted:
        yield from _of_values(findings, unique, kind, counts[kind][-1])
    for kind in counted[:3]:
        items = kinds[kind].fields.get("item")
        if items and items.distinct >= 10:
            bits = 256 if items.distinct <= 1000 else 1024
            yield Feature(
                unique(f"{kind}_items"), f'kind = "distinct_items", events = ["{kind}"], bits = {bits}'
            )


def _of_decision(decision: EventKind, fields: Mapping[str, Field], unique: _Names) -> Iterator[Feature]:
    """What the decision itself carries."""
    for name, field in fields.items():
        buckets = "" if field.kind == "number" else f", buckets = {_buckets(field.distinct)}"
        yield Feature(name, f'kind = "context", field = "{name}"{buckets}')
    item = decision.fields.get("item")
    if item and item.distinct > 1 and item.present >= 20 * item.distinct:
        yield Feature(unique("item"), f'kind = "item", buckets = {_buckets(item.distinct)}')
    value = decision.fields.get("value")
    if value and value.distinct > 1:
        yield Feature(unique("value"), 'kind = "value"')
    hours = decision.week.sum(0)
    if (hours > 0.01 * hours.sum()).sum() >= 3:  # otherwise the times are dates, or those of a daily job
        yield Feature(unique("clock"), 'kind = "time_of_day"')


def _of_values(findings: Findings, unique: _Names, kind: str, count: Feature) -> Iterator[Feature]:
    """Sum, mean and last of the values of a type that mostly has one."""
    values = findings.kinds[kind].fields.get("value")
    if values is None or values.missing > 0.5 or values.distinct < 2:
        return
    sums = list(_decayed(findings, unique, kind, "decayed_sum", f"{kind}_value"))
    yield sums[-1]
    yield _ratio(unique(f"{kind}_mean_value"), sums[-1].name, count.name)
    yield Feature(unique(f"{kind}_last_value"), f'kind = "last_value", events = ["{kind}"]')


def _decayed(findings: Findings, unique: _Names, kind: str, how: str, prefix: str) -> Iterator[Feature]:
    for half_life in half_lives(findings, kind):
        yield Feature(
            unique(f"{prefix}_{half_life}"),
            f'kind = "{how}", events = ["{kind}"], half_life = "{half_life}"',
        )


def half_lives(findings: Findings, kind: str) -> list[str]:
    """Two or three half-lives, short to long: 2, 8 and 32 of a user's usual gaps between visits with this event.

    A type that users do not come back to has the longest one that fits the span alone.
    """
    code = findings.histories.names.index(kind)
    gaps = findings.histories.gaps(code)[0]
    visits = gaps[gaps > SESSION_MS] if (gaps > SESSION_MS).any() else gaps
    fitting = [each for each in HALF_LIVES if Duration.parse(each) * 4000 <= findings.last - findings.first]
    fitting = fitting or [HALF_LIVES[0]]
    if len(visits) < 20:
        return [fitting[-1]]
    usual = float(np.median(visits)) / 1000
    three = [duration(usual * times, fitting) for times in (2, 8, 32)]
    chosen = list(dict.fromkeys(three))
    most = next(iter(findings.kinds)) == kind
    return chosen if most else list(dict.fromkeys([chosen[0], chosen[-1]]))


def _ratio(name: str, numerator: str, denominator: str) -> Feature:
    return Feature(name, f'kind = "ratio", numerator = "{numerator}", denominator = "{denominator}"')


def _buckets(distinct: int) -> int:
    """A power of two, twice the values and more, so that few share a row."""
    return int(min(max(8, 2 ** math.ceil(math.log2(2 * distinct))), BUCKETS_MOST))


class _Names:
    """Hands out feature names: valid, and each once."""

    def __init__(self, taken: Mapping[str, Field]) -> None:
        self._taken = set(taken)

    def __call__(self, wanted: str) -> str:
        """``wanted``, shortened and numbered as need be."""
        name, number = wanted[:60], 2
        while name in self._taken:
            name, number = f"{wanted[:57]}_{number}", number + 1
        self._taken |= {name, f"{name}_sin", f"{name}_cos"}
        return name
