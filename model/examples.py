"""Examples: decisions whose outcome is known, as records, as a table on disk and as arrays to learn from.

An :class:`Example` is a record of the ``examples`` topic, written by :mod:`stream.feedback`. :func:`table_of` is what
every writer of example files calls (:mod:`stream.replay`, :mod:`retrain.sink`), :func:`read_examples` every reader
(:mod:`model.training`), so that the layout is known here alone:

=================  ===================================================================================
``id``             string, the decision's, unique
``user``           string
``item``           string, null where the decision names none
``type``           string, the decision's event type
``time``           int64, the decision's, ms since the epoch
``score``          float32, what the decision was scored
``model``          string, the model version that scored
``label``          int8, 1 if the outcome came within the window, else 0
``sample_weight``  float32 from 0, how much the row counts; optional, 1 where there is no such column
``outcome_time``   int64, ms, when the outcome that counts happened; null for a negative example
``closes``         int64, ms, the end of the window and its lateness: from then on every such label is known
``feature.NAME``   one a feature of the spec: float32, or string for a category; null or NaN is missing
=================  ===================================================================================

The dot, which no feature's name has, keeps a feature that is called ``item`` or ``label`` apart from the column.
A crash can leave an example more than once, each time the same: readers keep one a decision's ``id``. Where tables lie
is the business of :mod:`model.example_log`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Meta
from numpy.typing import NDArray

from model.example_log import ExampleLogError, encoded, read_table, unique
from model.features import CategoryHasher, FeatureSpec, Float32, Int32

# 2000-01-01 to the year 10000, as events have it: what is outside has no date to be filed under.
Time = Annotated[int, Meta(ge=946_684_800_000, lt=253_402_300_800_000)]

_COLUMNS: tuple[tuple[str, str, pa.DataType], ...] = (
    ("id", "id", pa.string()),
    ("user", "user", pa.string()),
    ("item", "item", pa.string()),
    ("type", "type", pa.string()),
    ("time", "time", pa.int64()),
    ("score", "score", pa.float32()),
    ("model", "model", pa.string()),
    ("label", "label", pa.int8()),
    ("sample_weight", "weight", pa.float32()),
    ("outcome_time", "outcome_time", pa.int64()),
    ("closes", "closes", pa.int64()),
)
SAMPLE_WEIGHT = "sample_weight"


class ExamplesError(Exception):
    """These examples cannot be trained on: the rule, what came, what to do."""


class Example(msgspec.Struct, frozen=True, gc=False):
    """A record of the ``examples`` topic, keyed by user: all of a decision's ``scores`` record, and its label.

    ``weight`` is that of the outcome which counts, 1 for a negative example. ``outcome_time`` and ``closes`` are ms.
    """

    id: Annotated[str, Meta(min_length=1)]
    type: str
    user: Annotated[str, Meta(min_length=1)]
    item: str | None
    time: Time
    score: float
    model: str
    profile_offset: int
    features: dict[str, float | str | None]
    label: Literal[0, 1]
    weight: Annotated[float, Meta(ge=0, le=1e6)]
    outcome_time: Time | None
    closes: Time


class Examples(msgspec.Struct, frozen=True):
    """n examples in order of time: ``numeric`` [n, F], ``categorical`` [n, C], and [n] of the rest; times in ms.

    ``user`` numbers the users from 0, ``categories`` [n, C] are the strings that ``categorical`` hashes. ``importance``
    [n] says how many rows of the world to come one stands for (:mod:`retrain.importance`); None: one each.
    """

    numeric: Float32
    categorical: Int32
    label: Float32
    sample_weight: Float32
    time: NDArray[np.int64]
    closes: NDArray[np.int64]
    user: NDArray[np.int64]
    categories: NDArray[np.object_]
    importance: Float32 | None = None

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: slice | NDArray[np.bool_] | NDArray[np.int64]) -> Examples:
        columns = ((name, getattr(self, name)) for name in self.__struct_fields__)
        chosen: dict[str, Any] = {name: None if each is None else each[rows] for name, each in columns}
        return Examples(**chosen)

    @property
    def base_rate(self) -> float:
        """The weighted share of positive examples."""
        return float(np.average(self.label, weights=self.sample_weight))


_decode = msgspec.json.Decoder(Example).decode


def decode(value: bytes | None) -> Example:
    """The example that a record of the topic holds; raises :class:`ExamplesError` saying what is wrong with it."""
    try:
        return _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ExamplesError(f"not a record of the examples topic: {error}") from error


def column_of(feature: str) -> str:
    """The name of the column that holds ``feature``."""
    return f"feature.{feature}"


def table_of(examples: Sequence[Example], spec: FeatureSpec) -> pa.Table:
    """The table of ``examples``; of their features those that ``spec`` names, missing where an example has it not."""
    columns: dict[str, pa.Array[Any]] = {
        name: pa.array([getattr(example, field) for example in examples], kind)
        for name, field, kind in _COLUMNS
    }
    features = [example.features for example in examples]
    for name in spec.numeric:
        columns[column_of(name)] = _column(features, name, pa.float32(), (float, int))
    for category in spec.categorical:
        columns[column_of(category.name)] = _column(features, category.name, pa.string(), (str,))
    return pa.table(columns)


def _column(
    features: Sequence[Mapping[str, Any]], name: str, kind: pa.DataType, types: tuple[type, ...]
) -> pa.Array[Any]:
    values = [each.get(name) for each in features]
    try:
        return pa.array(values, kind)
    except pa.ArrowException:  # a feature of that name was of another kind when some were scored
        return pa.array([value if isinstance(value, types) else None for value in values], kind)


def read_examples(
    where: str | Path, spec: FeatureSpec, begin: int | None = None, end: int | None = None
) -> Examples:
    """The examples at ``where`` with the features of ``spec``, one an id, sorted by time, then by id.

    ``where`` is a Parquet file, or the folder or URL of an example log; times are from ``begin`` to before ``end``, ms.
    Raises :class:`ExamplesError` when a column is missing, is of another type or holds what it may not, and when
    there is nothing to learn from.
    """
    numbers = [column_of(name) for name in spec.numeric]
    strings = [column_of(category.name) for category in spec.categorical]
    table = _read(where, ["id", "user", "time", "closes", "label", *numbers, *strings], begin, end)
    _check_types(where, table, numbers, strings)
    table = unique(table)
    table = table.take(pc.sort_indices(table, sort_keys=[("time", "ascending"), ("id", "ascending")]))
    label = _floats(table, "label")
    weight = _weights(table)
    for name, values, rule, good in (
        ("label", label, "0 or 1", (label == 0) | (label == 1)),
        (SAMPLE_WEIGHT, weight, "a finite number from 0", np.isfinite(weight) & (weight >= 0)),
    ):
        if not good.all():
            row = int(np.argmin(good))
            raise ExamplesError(
                f"{where}: `{name}` is {rule}, got {values[row]} for id {table.column('id')[row]}; rebuild the dataset"
            )
    categorical, categories = _categorical(table, spec)
    return Examples(
        numeric=_numeric(table, numbers),
        categorical=categorical,
        label=label,
        sample_weight=weight,
        time=table.column("time").cast(pa.int64()).to_numpy(),
        closes=table.column("closes").cast(pa.int64()).to_numpy(),
        user=encoded(table.column("user"))[0],
        categories=categories,
    )


def _read(where: str | Path, names: list[str], begin: int | None, end: int | None) -> pa.Table:
    """The columns ``names``, and the sample weights where there are any."""
    try:
        table = read_table(where, begin, end, [*names, SAMPLE_WEIGHT])
    except ExampleLogError as error:
        raise ExamplesError(f"{error}; or rebuild the dataset") from error
    if not table.column_names:
        raise ExamplesError(
            f"{where}: there are no examples; correct the path, or wait until labels have matured"
        )
    if missing := [name for name in names if name not in table.column_names]:
        raise ExamplesError(
            f"{where}: examples have id, user, time, closes, label and a column for each feature of the use case; missing: "
            f"{', '.join(missing)}; rebuild the dataset with this use case"
        )
    if len(table) == 0:
        raise ExamplesError(
            f"{where}: no rows; wait until labels have matured, or widen the dataset's time range"
        )
    return table


def _check_types(where: str | Path, table: pa.Table, numbers: list[str], strings: list[str]) -> None:
    """Refuse what a cast would turn into something else without a word: a time in µs, a number as a category."""
    kinds = pa.types
    number: tuple[Callable[[pa.DataType], bool], ...]
    number = (kinds.is_floating, kinds.is_integer, kinds.is_boolean, kinds.is_null)
    string = (kinds.is_string, kinds.is_large_string, kinds.is_dictionary, kinds.is_null)
    wanted: dict[str, tuple[str, tuple[Callable[[pa.DataType], bool], ...]]]
    wanted = dict.fromkeys((*numbers, "label", SAMPLE_WEIGHT), ("numbers", number))
    wanted |= dict.fromkeys(strings, ("strings", string))
    wanted |= dict.fromkeys(("time", "closes"), ("integers, milliseconds", (kinds.is_integer,)))
    for name, (what, allowed) in wanted.items():
        if name in table.column_names and not any(kind(table.schema.field(name).type) for kind in allowed):
            got = table.schema.field(name).type
            raise ExamplesError(f"{where}: `{name}` is a column of {what}, got {got}; rebuild the dataset")
    for name in ("id", "user", "time", "closes"):
        if nulls := table.column(name).null_count:
            raise ExamplesError(
                f"{where}: every example has `{name}`, got {nulls} rows without; rebuild the dataset"
            )


def _categorical(table: pa.Table, spec: FeatureSpec) -> tuple[Int32, NDArray[np.object_]]:
    """Embedding rows [n, C] and their strings [n, C]; each string is hashed once."""
    shape = len(table), len(spec.categorical)
    ids, objects = np.empty(shape, np.int32), np.empty(shape, np.object_)
    for j, category in enumerate(spec.categorical):
        codes, dictionary = encoded(table.column(column_of(category.name)))
        strings = dictionary.to_pylist()
        hashed = CategoryHasher(FeatureSpec((), (category,)))([strings], len(strings))  # [k, 1]
        ids[:, j] = hashed[codes, 0]
        objects[:, j] = np.array(strings, np.object_)[codes]
    return ids, objects


def _numeric(table: pa.Table, names: list[str]) -> Float32:
    numeric = np.empty((len(table), len(names)), np.float32)
    for j, name in enumerate(names):
        numeric[:, j] = _floats(table, name)
    return numeric


def _floats(table: pa.Table, name: str) -> Float32:
    values: Float32 = _float32(table, name).to_numpy()  # null becomes NaN
    return values


def _float32(table: pa.Table, name: str) -> Any:
    return table.column(name).cast(pa.float32(), safe=False)


def _weights(table: pa.Table) -> Float32:
    """Sample weights [n]; null, as files without the column read in a log of others, is 1."""
    if SAMPLE_WEIGHT not in table.column_names:
        return np.ones(len(table), np.float32)
    weights: Float32 = pc.coalesce(_float32(table, SAMPLE_WEIGHT), pa.scalar(1.0, pa.float32())).to_numpy()
    return weights
