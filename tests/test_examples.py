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

from model.example_log import ExampleLog
from model.examples import Example, ExamplesError, decode, read_examples, table_of
from model.features import Category, CategoryHasher, FeatureSpec
from tests.builders import SPEC, START, STEP, WINDOW, examples, prepared, replaced

FEW = FeatureSpec(("views", "spend"), (Category("plan", 8),))


def example(name: str = "d", **changes: Any) -> Example:
    """Make a positive example called ``name`` of the features of ``FEW``, with ``changes``."""
    fields: dict[str, Any] = {
        "id": name,
        "type": "offer",
        "user": "ann",
        "item": "x",
        "time": START,
        "score": 0.25,
        "model": "v1",
        "profile_offset": 7,
        "features": {"views": 3.0, "spend": None, "plan": "gold"},
        "label": 1,
        "weight": 2.0,
        "outcome_time": START + 5,
        "closes": START + WINDOW,
    }
    return Example(**(fields | changes))


def test_the_layout_of_the_table() -> None:
    """A row holds a record's values, each under the name that readers know; absent features are null."""
    table = table_of([example(), example("e", features={"plan": 3.0, "views": "?", "other": 1.0})], FEW)
    assert {name: str(kind) for name, kind in zip(table.column_names, table.schema.types, strict=True)} == {
        "id": "string",
        "user": "string",
        "item": "string",
        "type": "string",
        "time": "int64",
        "score": "float",
        "model": "string",
        "label": "int8",
        "sample_weight": "float",
        "outcome_time": "int64",
        "closes": "int64",
        "feature.views": "float",
        "feature.spend": "float",
        "feature.plan": "string",
    }
    row, strange = table.to_pylist()
    assert row == {
        "id": "d",
        "user": "ann",
        "item": "x",
        "type": "offer",
        "time": START,
        "score": 0.25,
        "model": "v1",
        "label": 1,
        "sample_weight": 2.0,
        "outcome_time": START + 5,
        "closes": START + WINDOW,
        "feature.views": 3.0,
        "feature.spend": None,
        "feature.plan": "gold",
    }
    assert [strange[f"feature.{name}"] for name in ("views", "spend", "plan")] == [None, None, None]


def test_a_record_is_read_as_it_was_written() -> None:
    """What the worker encodes is what the sink decodes, and fields that a later version adds are ignored."""
    one = example(outcome_time=None, label=0, item=None)
    assert decode(msgspec.json.encode(one)) == one
    assert decode(msgspec.json.encode(msgspec.structs.asdict(one) | {"added": [1]})) == one


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "truncated"),
        (b"", "truncated"),
        (b"nothing", "malformed"),
        (b"[" * 100_000, "Expected `object`"),
        (b'{"added": ' + b"[" * 100_000, "recursion"),
        (b'{"id": "\xff"}', "invalid start byte"),
        (msgspec.json.encode({"id": "d"}), "missing required field `type`"),
        (msgspec.json.encode(example(label=2)), r"2 - at `\$\.label`"),
        (msgspec.json.encode(example(label=None)), r"at `\$\.label`"),
        (msgspec.json.encode(example(id="")), r"at `\$\.id`"),
        (msgspec.json.encode(example(time=START // 1000)), r">= 946684800000 - at `\$\.time`"),
        (msgspec.json.encode(example(closes=10**15)), r"at `\$\.closes`"),
        (msgspec.json.encode(example(outcome_time=10**30)), r"at `\$\.outcome_time`"),
        (msgspec.json.encode(example(weight=-1.0)), r"at `\$\.weight`"),
        (msgspec.json.encode(example(features={"views": [1]})), r"at `\$\.features\[...\]`"),
    ],
)
def test_a_record_that_is_not_an_example_says_why(value: bytes | None, message: str) -> None:
    """Whatever stands in the topic, decoding it gives an example or the one error that the sink expects."""
    with pytest.raises(ExamplesError, match=f"not a record of the examples topic: .*{message}"):
        decode(value)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Rows come back by time, then by id, one an id, with their values."""
    made = [
        example("b", time=START + 7, weight=0.5, label=0, user="bob"),
        example("a", time=START + 7, features={"views": 2.0, "spend": 20.0}),
        example("c", time=START + 5, user="bob"),
        example("a", time=START + 7, features={"views": 2.0, "spend": 20.0}),
    ]
    pq.write_table(table_of(made, FEW), tmp_path / "examples.parquet")
    read = read_examples(tmp_path / "examples.parquet", FEW)
    np.testing.assert_array_equal(read.numeric, np.array([[3, np.nan], [2, 20], [3, np.nan]], np.float32))
    np.testing.assert_array_equal(read.categorical, CategoryHasher(FEW)([["gold", None, "gold"]], 3))
    assert read.categories.tolist() == [["gold"], [None], ["gold"]]
    np.testing.assert_array_equal(read.label, [1, 1, 0])
    np.testing.assert_array_equal(read.sample_weight, np.array([2, 2, 0.5], np.float32))
    np.testing.assert_array_equal(read.time, [START + 5, START + 7, START + 7])
    np.testing.assert_array_equal(read.closes, [START + WINDOW] * 3)
    np.testing.assert_array_equal(read.user, [0, 1, 0])
    assert read.base_rate == pytest.approx(4 / 4.5)


def test_a_log_is_read_like_a_file(tmp_path: Path) -> None:
    """A log's folder gives the same examples as one file of all of them, or those of a stretch of time."""
    table = examples(5000)  # three and a half days
    log = ExampleLog(tmp_path / "log")
    for first in range(0, 5000, 1000):
        log.append(table.slice(first, 1100), f"part-{first}")
    one, other = prepared(tmp_path, table), read_examples(str(tmp_path / "log"), SPEC)
    for name in one.__struct_fields__:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    begin, end = START + 1000 * STEP, START + 3000 * STEP
    np.testing.assert_array_equal(read_examples(tmp_path / "log", SPEC, begin, end).time, one.time[1000:3000])
    with pytest.raises(ExamplesError, match="no rows; wait until labels have matured, or widen"):
        read_examples(tmp_path / "log", SPEC, begin, begin)


def test_a_weight_that_a_file_has_not_is_1(tmp_path: Path) -> None:
    """In a log, or a file, without weights every row counts as one."""
    plain = examples(50).drop_columns(["sample_weight"])
    log = ExampleLog(tmp_path / "log")
    log.append(plain, "plain")
    log.append(table_of([example("w", time=START - 1, features={})], SPEC), "weighted")
    np.testing.assert_array_equal(prepared(tmp_path, plain).sample_weight, np.ones(50))
    np.testing.assert_array_equal(read_examples(tmp_path / "log", SPEC).sample_weight, [2, *np.ones(50)])


def test_a_feature_may_have_the_name_of_a_column(tmp_path: Path) -> None:
    """Features called weight, sample_weight, label, time, item, user or id are not taken for the columns."""
    numbers, names = ("weight", "sample_weight", "label", "time"), ("id", "user", "item", "type")
    spec = FeatureSpec(numbers, tuple(Category(name, 99) for name in names))
    features = {name: float(at) for at, name in enumerate(numbers)} | {name: f"{name}-s" for name in names}
    pq.write_table(table_of([example(features=features)], spec), tmp_path / "examples.parquet")
    read = read_examples(tmp_path / "examples.parquet", spec)
    np.testing.assert_array_equal(read.numeric, [[0, 1, 2, 3]])
    assert read.categories.tolist() == [["id-s", "user-s", "item-s", "type-s"]]
    assert (read.label[0], read.sample_weight[0], read.time[0]) == (1, 2, START)


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
        (lambda t: t.drop_columns(["id"]), "missing: id; rebuild the dataset"),
        (lambda t: t.slice(0, 0), "no rows; wait until labels have matured"),
        (change("label", [0, 1] * 24 + [0, 2]), r"`label` is 0 or 1, got 2\.0 for id d49"),
        (change("label", [0, 1] * 24 + [0, None]), "`label` is 0 or 1, got nan for id d49"),
        (change("time", [*range(49), None]), "every example has `time`, got 1 rows without"),
        (change("id", ["a", "b", *[None] * 48]), "every example has `id`, got 48 rows without"),
        (
            change("time", pa.array(range(50), pa.timestamp("us"))),
            r"`time` is a column of integers, milliseconds, got timestamp",
        ),
        (change("feature.price", ["dear"] * 50), r"`feature\.price` is a column of numbers, got string"),
        (change("feature.plan", [3] * 50), r"`feature\.plan` is a column of strings, got int64"),
        (change("sample_weight", [-1.0] * 50), r"`sample_weight` is a finite number from 0, got -1\.0 for id d0"),
        (change("sample_weight", [np.nan] * 50), "`sample_weight` is a finite number from 0, got nan for id d0"),
    ],
)  # fmt: skip
def test_unusable_examples_are_refused(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    """Examples that would teach something else than what happened are refused with what to do."""
    with pytest.raises(ExamplesError, match=message):
        prepared(tmp_path, change(examples(50)))


def test_where_there_is_nothing_to_read_says_so(tmp_path: Path) -> None:
    """A path without examples, a file that is no Parquet and a URL of no known kind are told apart."""
    with pytest.raises(ExamplesError, match="there are no examples; correct the path, or wait"):
        read_examples(tmp_path / "nowhere", SPEC)
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(ExamplesError, match=r"text\.parquet.* cannot be read"):
        read_examples(tmp_path / "text.parquet", SPEC)
    with pytest.raises(ExamplesError, match="no way to reach it: Protocol not known: nosuch"):
        read_examples("nosuch://bucket/log", SPEC)
