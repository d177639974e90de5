"""Facts about model/split.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from model.examples import Examples, ExamplesError
from model.split import Parts, window
from model.usecase import Duration, Training
from tests.builders import START, STEP, WINDOW, examples, prepared, replaced

HOURS = Training(train=Duration(6 * 3600), validate=Duration(2 * 3600))


def data(folder: Path, n: int = 1000, **columns: object) -> Examples:
    """Examples a minute apart, the last negative, each with a window of ten minutes, with other ``columns``."""
    table = examples(n)
    label = table.column("label").to_numpy().copy()
    label[-1] = 0
    columns = {"label": label} | columns
    for name, values in columns.items():
        table = replaced(table, name, values)
    return prepared(folder, table)


def minutes(rows: Examples) -> tuple[int, int]:
    """The minutes of the first and last row, counted from the first example."""
    return int(rows.time[0] - START) // STEP, int(rows.time[-1] - START) // STEP


def test_the_window_is_the_latest_of_the_history(tmp_path: Path) -> None:
    """The last two hours validate, the six before are fitted, and what is older takes no part."""
    parts = window(data(tmp_path), HOURS)
    assert minutes(parts.validation) == (880, 999)
    assert minutes(parts.fitting) == (520, 870)
    assert minutes(parts.whole) == (520, 999)
    assert parts.purged == 9


def test_a_short_history_is_divided_in_proportion(tmp_path: Path) -> None:
    """A history shorter than the window is all used, a quarter of its time to validate."""
    parts = window(data(tmp_path, 100), HOURS)
    assert minutes(parts.whole) == (0, 99)
    assert minutes(parts.validation) == (75, 99)


def test_nothing_is_fitted_whose_label_was_unknown_when_validation_began(tmp_path: Path) -> None:
    """Whatever the windows are, each fitted label was known at the first validated decision."""
    closes = START + STEP * np.arange(1000) + np.random.default_rng(0).integers(1, 100, 1000) * STEP
    parts = window(data(tmp_path, closes=closes), HOURS)
    assert parts.fitting.closes.max() <= parts.validation.time[0]
    assert parts.purged > 50


@pytest.mark.parametrize("seed", range(5))
def test_as_of_a_moment_nothing_is_known_that_came_later(tmp_path: Path, seed: int) -> None:
    """Examples whose windows closed after the moment change nothing at all, however their labels are."""
    random = np.random.default_rng(seed)
    moment = START + int(random.integers(300, 900)) * STEP
    table = examples(1000, seed)
    open_then = table.column("closes").to_numpy() > moment
    label = np.where(open_then, 1, table.column("label").to_numpy()).astype(np.int8)
    views = np.where(open_then, 1e6, table.column("feature.views").to_numpy()).astype(np.float32)
    other = replaced(replaced(table, "label", label), "feature.views", views)
    one, two = (
        window(prepared(tmp_path / name, each), HOURS, moment)
        for name, each in (("one", table), ("two", other))
    )
    assert one.whole.closes.max() <= moment
    for part in ("fitting", "validation", "whole"):
        for field in one.whole.__struct_fields__:
            np.testing.assert_array_equal(
                getattr(getattr(one, part), field), getattr(getattr(two, part), field)
            )


def test_a_positive_example_waits_for_its_cohort(tmp_path: Path) -> None:
    """A label that is known before its window closes takes no part either: the negatives beside it are unknown."""
    moment = START + 500 * STEP
    parts = window(data(tmp_path), HOURS, moment)
    assert minutes(parts.validation)[1] == 500 - WINDOW // STEP


def test_positives_that_came_before_their_cohort_are_left_out(tmp_path: Path) -> None:
    """Positives are known at once, negatives when their windows close: the last window of a log holds positives only."""
    label = examples(710).column("label").to_numpy().copy()
    label[700] = 0  # closes at minute 710, as the log ends
    label[701:] = 1
    for as_of in (None, START + 2000 * STEP):
        parts = window(data(tmp_path, 710, label=label), HOURS, as_of)
        assert minutes(parts.whole)[1] == 700
        assert parts.as_of == START + 710 * STEP


def test_the_order_of_the_file_does_not_matter(tmp_path: Path) -> None:
    """The split is by time alone."""
    table = examples(1000)
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(1000)))
    one, two = (window(prepared(tmp_path / str(i), each), HOURS) for i, each in enumerate((table, shuffled)))
    np.testing.assert_array_equal(one.fitting.numeric, two.fitting.numeric)
    np.testing.assert_array_equal(one.validation.label, two.validation.label)


def test_decisions_of_one_time_stay_together(tmp_path: Path) -> None:
    """A time at the border goes to one side whole."""
    by_hour = START + np.arange(1000) // 60 * 60 * STEP
    parts = window(data(tmp_path, time=by_hour, closes=by_hour + WINDOW), HOURS)
    assert parts.fitting.time.max() < parts.validation.time.min()
    assert {60} == set(np.unique(parts.fitting.time, return_counts=True)[1])


def test_the_parts_say_when_they_are(tmp_path: Path) -> None:
    """Times are ISO 8601, to the second, in UTC."""
    parts: Parts = window(data(tmp_path), HOURS)
    assert parts.times == {
        "fitting_first": "2023-11-15T06:53:20+00:00",
        "fitting_last": "2023-11-15T12:43:20+00:00",
        "validation_first": "2023-11-15T12:53:20+00:00",
        "validation_last": "2023-11-15T14:52:20+00:00",
        "as_of": "2023-11-15T15:02:20+00:00",
    }


@pytest.mark.parametrize(
    ("columns", "as_of", "message"),
    [
        ({"label": [1] * 75 + [0] * 25}, None, r"the fitting part needs examples of both labels, got labels \[1\] in 66"),
        ({"label": [0, 1] * 30 + [0] * 40}, None, r"the validation part needs .* got labels \[0\] in 25 of the 100"),
        ({"sample_weight": [1.0] * 75 + [0.0] * 25}, None, r"the validation part needs .* got labels \[\] in 25"),
        ({"time": [START] * 100}, None, r"the fitting part needs .* got labels \[\] in 0 of the 100 rows"),
        ({"closes": [START + 10**9] * 100}, None, "of which 75 had no label yet when the validation part begins"),
        ({}, START, r"the first at 2023-11-14T22:23:20\+00:00, got 2023-11-14T22:13:20\+00:00 as the moment"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_refused(
    tmp_path: Path, columns: dict[str, list[float]], as_of: int | None, message: str
) -> None:
    """Without both labels in both parts there is nothing to fit or nothing to judge by; the error says what to do."""
    with pytest.raises(ExamplesError, match=message):
        window(data(tmp_path, 100, **columns), HOURS, as_of)
