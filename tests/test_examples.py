"""Facts about model/examples.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from model.examples import ExamplesError, example_table, read_examples, split
from model.features import Category, CategoryHasher, Features, FeatureSpec, feature_spec
from stream.replay import History
from tests.builders import SPEC, START, STEP, examples, prepared, replaced
from tests.events import DAY_MS, NOW_MS, START_MS, event, usecase

IDS: dict[str, list[str | None]] = {
    "id": ["b", "a", "c"],
    "user": ["u", "v", "u"],
    "item": ["x", None, "y"],
    "type": ["offer", "offer", "offer"],
}


def test_the_layout_of_the_table() -> None:
    """Every example has its ids, time and label; features and weights follow, each under a name of its own."""
    features = Features(np.ones((3, 1), np.float32), (["gold", None, "gold"],))
    spec = FeatureSpec(("views",), (Category("plan", 8),))
    table = example_table(spec, IDS, [1, 2, 3], [1, 0, 1], features, np.ones(3, np.float32))
    assert {name: str(kind) for name, kind in zip(table.column_names, table.schema.types, strict=True)} == {
        "id": "string",
        "user": "string",
        "item": "string",
        "type": "string",
        "time": "int64",
        "label": "int8",
        "sample_weight": "float",
        "feature.views": "float",
        "feature.plan": "string",
    }


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Rows come back by time, then by id, with their values; a decision without a label yet does not."""
    spec = FeatureSpec(("views", "spend"), (Category("plan", 8),))
    numeric = np.array([[1, np.nan], [2, 20], [3, 30]], np.float32)
    table = example_table(
        spec, IDS, [7, 7, 5], [1, 0, None], Features(numeric, (["gold", None, "gold"],)),
        np.array([0.5, 2, 1], np.float32),
    )  # fmt: skip
    pq.write_table(table, tmp_path / "examples.parquet")
    read = read_examples(tmp_path / "examples.parquet", spec)
    np.testing.assert_array_equal(read.numeric, numeric[[1, 0]])
    np.testing.assert_array_equal(read.categorical, CategoryHasher(spec)([[None, "gold"]], 2))
    np.testing.assert_array_equal(read.label, [0, 1])
    np.testing.assert_array_equal(read.sample_weight, [2, 0.5])
    np.testing.assert_array_equal(read.time, [7, 7])
    assert read.base_rate == pytest.approx(0.2)


def test_a_feature_may_have_the_name_of_a_column(tmp_path: Path) -> None:
    """Features called weight, sample_weight, label, time, item, user or id are not taken for the columns."""
    spec = FeatureSpec(
        ("weight", "sample_weight", "label", "time"), tuple(Category(name, 99) for name in IDS)
    )
    numeric = np.arange(12, dtype=np.float32).reshape(3, 4) - 5
    strings = tuple([f"{name}-{row}" for row in range(3)] for name in IDS)
    table = example_table(spec, IDS, [1, 2, 3], [1, 0, 1], Features(numeric, strings))
    pq.write_table(table, tmp_path / "examples.parquet")
    read = read_examples(tmp_path / "examples.parquet", spec)
    np.testing.assert_array_equal(read.numeric, numeric)
    np.testing.assert_array_equal(read.categorical, CategoryHasher(spec)(strings, 3))
    np.testing.assert_array_equal(read.label, [1, 0, 1])
    np.testing.assert_array_equal(read.sample_weight, [1, 1, 1])
    np.testing.assert_array_equal(read.time, [1, 2, 3])


def test_replayed_decisions_are_read_back(tmp_path: Path) -> None:
    """The table of a replay reads as its decisions: when, on what, how it ended, and each feature's value."""
    context = {"plan": "gold", "price": 3}
    events = [
        event(id="p", type="page", user="ann", time=START_MS),
        event(id="d2", type="offer", user="ann", time=START_MS + DAY_MS, value=4.5, context=context),
        event(id="d1", type="offer", user="bob", time=START_MS + DAY_MS, item="p2"),
        event(id="o", type="done", user="ann", time=START_MS + 2 * DAY_MS),
        event(id="late", type="done", user="bob", time=START_MS + 16 * DAY_MS, item="p2"),
        event(id="open", type="offer", user="bob", time=START_MS + 16 * DAY_MS),
    ]
    history = History(usecase())
    history.replay(map(msgspec.json.encode, events), NOW_MS)
    table, spec = history.examples(), feature_spec(usecase())
    pq.write_table(table, tmp_path / "examples.parquet")
    read = read_examples(tmp_path / "examples.parquet", spec)
    assert history.bad == 0
    assert table.select(["id", "user", "item", "type", "label"]).to_pylist() == [
        {"id": "d2", "user": "ann", "item": "p1", "type": "offer", "label": 1},
        {"id": "d1", "user": "bob", "item": "p2", "type": "offer", "label": 0},
    ]
    np.testing.assert_array_equal(read.time, [START_MS + DAY_MS] * 2)
    np.testing.assert_array_equal(read.label, [0, 1])
    for j, name in enumerate(spec.numeric):
        written = table.column(f"feature.{name}").to_numpy()
        np.testing.assert_array_equal(read.numeric[:, j], written[::-1], name)
    known = [spec.numeric.index(name) for name in ("pages_1d", "since_page", "amount", "price")]
    expected = [[0, np.nan, np.nan, np.nan], [0.5, DAY_MS / 1000, 4.5, 3]]
    np.testing.assert_allclose(read.numeric[:, known], expected)
    np.testing.assert_array_equal(read.categorical, CategoryHasher(spec)([[None, "gold"], ["p2", "p1"]], 2))


def test_a_replay_without_decisions_is_a_table_without_rows(tmp_path: Path) -> None:
    """Nothing replayed gives the columns all the same, and reading them says what to wait for."""
    pq.write_table(History(usecase()).examples(), tmp_path / "examples.parquet")
    with pytest.raises(ExamplesError, match="no rows; wait until labels have matured"):
        read_examples(tmp_path / "examples.parquet", feature_spec(usecase()))


def test_missing_values_come_as_null_or_nan(tmp_path: Path) -> None:
    """Null and NaN numbers read as NaN, null strings as id 0, and a column of nothing but nulls as missing."""
    table = replaced(examples(50), "feature.views", pa.nulls(50, pa.null()))
    table = replaced(table, "feature.price", [None, np.nan, *range(48)])
    data = prepared(tmp_path, table)
    assert np.isnan(data.numeric[:, 0]).all()
    assert np.isnan(data.numeric[:3, SPEC.numeric.index("price")]).tolist() == [True, True, False]
    np.testing.assert_array_equal(
        data.categorical[:, 1] == 0, pc.is_null(table.column("feature.plan")).to_numpy()
    )


def test_strings_may_be_a_dictionary(tmp_path: Path) -> None:
    """A category column of another writer's encoding reads the same."""
    plain = examples(50)
    encoded = replaced(
        plain, "feature.plan", plain.column("feature.plan").combine_chunks().dictionary_encode()
    )
    one, other = prepared(tmp_path / "plain", plain), prepared(tmp_path / "encoded", encoded)
    np.testing.assert_array_equal(one.categorical, other.categorical)


def change(column: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    """Give a table other values in one column."""
    return lambda table: replaced(table, column, values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.drop_columns(["feature.price", "feature.plan"]),
            r"missing: feature\.price, feature\.plan; rebuild the dataset with this use case",
        ),
        (lambda t: t.slice(0, 0), "no rows; wait until labels have matured"),
        (change("label", [1] * 50), r"both labels are needed in the earliest 80 %, which are fitted, got labels \[1\]"),
        (change("label", [0, 1] * 20 + [0] * 10), r"in the latest 20 %, which judge, got labels \[0\] in 10 of 50"),
        (change("label", [0, 1] * 24 + [0, 2]), r"`label` is 0 or 1, got 2\.0 for id d49"),
        (change("label", [0, 1] * 24 + [0, None]), "`label` is 0 or 1, got nan for id d49"),
        (change("time", [7] * 50), r"got labels \[\] in 0 of 50 rows"),
        (change("time", [*range(49), None]), "every example has a time, got 1 rows without"),
        (
            change("time", pa.array(range(50), pa.timestamp("us"))),
            r"`time` is a column of integers, milliseconds, got timestamp",
        ),
        (change("feature.price", ["dear"] * 50), r"`feature\.price` is a column of numbers, got string"),
        (change("feature.plan", [3] * 50), r"`feature\.plan` is a column of strings, got int64"),
        (change("sample_weight", [-1.0] * 50), r"`sample_weight` is a finite number from 0, got -1\.0 for id d0"),
    ],
)  # fmt: skip
def test_unusable_examples_are_refused(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    """Examples that cannot teach, or that would teach something else, are refused with what to do."""
    with pytest.raises(ExamplesError, match=message):
        split(prepared(tmp_path, change(examples(50))))


def test_the_split_is_by_time_alone(tmp_path: Path) -> None:
    """Whatever the order of the rows in the file, validation is later than all that is fitted."""
    table = examples(1000)
    shuffled = table.take(np.random.default_rng(0).permutation(1000))
    fitting, validation = split(prepared(tmp_path, shuffled))
    assert (len(fitting), len(validation)) == (800, 200)
    assert fitting.time.max() == START + STEP * 799
    assert validation.time.min() == START + STEP * 800
    np.testing.assert_array_equal(
        np.concatenate([fitting.label, validation.label]), table.column("label").to_numpy()
    )


def test_rows_of_one_time_stay_on_one_side(tmp_path: Path) -> None:
    """A time at the split goes to one side whole, so that nothing that is judged by was fitted."""
    table = examples(1000)
    by_hour = table.column("time").to_numpy() // (300 * STEP) * (300 * STEP)
    fitting, validation = split(prepared(tmp_path, replaced(table, "time", by_hour)))
    assert fitting.time.max() < validation.time.min()
    assert len(fitting) + len(validation) == 1000
