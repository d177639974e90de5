"""Facts about model/usecase.py: a broken file is refused with its line and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.features import feature_spec
from model.usecase import Duration, UseCaseError, load, parse

GOOD = """\
name = "course"
[events.page]
[events.due]
requires = ["item"]
[events.submitted]
[decisions.due]
outcome = "submitted"
window = "14d"
[context]
kind = "category"
[features.pages_7d]
kind = "decayed_count"
events = ["page"]
half_life = "7d"
[features]
kind = { kind = "context", field = "kind" }
pace = { kind = "ratio", numerator = "pages_7d", denominator = "pages_7d" }
"""

BROKEN = [
    ("name = \"course\"", "", 1, "name: missing required field `name`; add it"),
    ("name = \"course\"", "name = \"My Course\"", 1, "name: a name is"),
    ("[events.page]", "[events.page", 2, "not valid TOML"),
    ("pace =", 'day = { kind = "time_of_day" }\nday_sin =', 18, "`day` has a column of that name already"),
    ("[events.page]", "[events.Page]", 2, "events.Page: a name is lower case"),
    ('requires = ["item"]', 'requires = ["itm"]', 4, "events.due.requires: invalid enum value 'itm'"),
    ("[decisions.due]", "[decisions.deu]", 6, "decisions.deu: `deu` is not an event type; declare [events.deu]"),
    ('outcome = "submitted"', 'outcome = "sent"', 7, "`sent` is not an event type"),
    ('outcome = "submitted"', 'outcome = "due"', 7, "cannot be its own outcome"),
    ('window = "14d"', "", 6, "missing required field `window`; add it"),
    ('window = "14d"', 'window = "a week"', 8, 'expected a duration such as "90s"'),
    ('window = "14d"', 'window = "0d"', 8, "expected a duration"),
    ('window = "14d"', 'windw = "14d"', 8, "decisions.due.windw: `windw` is not a setting here"),
    ('kind = "category"', 'kind = "text"', 10, "context.kind: invalid enum value 'text'"),
    ('"decayed_count"', '"decayd_count"', 12, "`kind` is one of context, decayed_count"),
    ('events = ["page"]', 'events = ["pgae"]', 13, "`pgae` is not an event type"),
    ('events = ["page"]', "events = []", 13, "length >= 1"),
    ('half_life = "7d"', "half_life = 7", 14, 'expected a duration such as "90s", "15m", "12h", "7d" or "2w", got 7'),
    ('field = "kind"', 'field = "sort"', 16, "`sort` is not a context field; declare it in [context]"),
    ('field = "kind"', 'field = "kind", buckets = 1', 16, "features.kind.buckets: expected `int` >= 2"),
    ('numerator = "pages_7d"', 'numerator = "kind"', 17, "is not a decayed_count or decayed_sum feature"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("good", "bad", "line", "says"), BROKEN, ids=[case[1] or "no " + case[0] for case in BROKEN]
)
def test_a_broken_use_case_names_file_line_and_fix(good: str, bad: str, line: int, says: str) -> None:
    """Each mistake is refused with the file, the line it stands on and what to do."""
    assert good in GOOD
    with pytest.raises(UseCaseError) as caught:
        parse(GOOD.replace(good, bad, 1), "course.toml")
    assert str(caught.value).startswith(f"course.toml:{line}: ")
    assert says in str(caught.value)


def test_the_spec_keeps_the_order_of_the_file() -> None:
    """Numbers and categories become columns in the order of the features' declaration."""
    spec = feature_spec(parse(GOOD))
    assert spec.numeric == ("pages_7d", "pace")
    assert [column.name for column in spec.categorical] == ["kind"]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5h", 5400), ("2w", 1_209_600)])
def test_durations_are_seconds(text: str, seconds: float) -> None:
    """A duration is a number with a unit."""
    assert Duration.parse(text) == seconds


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    """A use case that cannot be read is an error of the same kind."""
    with pytest.raises(UseCaseError, match="cannot be read"):
        load(tmp_path / "none.toml")


def test_the_examples_are_valid(here: Path) -> None:
    """Every use case that the repository ships can be used."""
    found = sorted(here.glob("examples/*/usecase.toml"))
    assert found
    for path in found:
        load(path)
