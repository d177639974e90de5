"""Examples: decisions whose outcome is known, as a table on disk and as arrays to learn from.

:func:`example_table` is what every writer of examples calls (:mod:`stream.replay`), :func:`read_examples` and
:func:`split` every reader (:mod:`model.training`), so that the layout is known here alone:

=================  ===================================================================================
``id``             string, the decision's, unique
``user``           string
``item``           string, null where the decision names none
``type``           string, the decision's event type
``time``           int64, the decision's, ms since the epoch
``label``          int8, 1 if the outcome came within the window, else 0
``sample_weight``  float32 from 0, how much the row counts; optional, 1 where there is no such column
``feature.NAME``   one a feature of the spec: float32, or string for a category; null or NaN is missing
=================  ===================================================================================

The dot, which no feature's name has, keeps a feature that is called ``item`` or ``label`` apart from the column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model.features import CategoryHasher, Features, FeatureSpec, Float32, Int32

IDS = ("id", "user", "item", "type")
SAMPLE_WEIGHT = "sample_weight"
VALIDATION = 0.2  # share of rows, the latest, that early stopping and metrics look at and fitting never sees


class ExamplesError(Exception):
    """These examples cannot be trained on: the rule, what came, what to do."""


class Examples(msgspec.Struct, frozen=True):
    """n examples in order of time: ``numeric`` [n, F], ``categorical`` [n, C], and [n] of the rest; ``time`` in ms."""

    numeric: Float32
    categorical: Int32
    label: Float32
    sample_weight: Float32
    time: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: slice) -> Examples:
        return Examples(*(getattr(self, name)[rows] for name in self.__struct_fields__))

    @property
    def base_rate(self) -> float:
        """The weighted share of positive examples."""
        return float(np.average(self.label, weights=self.sample_weight))


def column_of(feature: str) -> str:
    """The name of the column that holds ``feature``."""
    return f"feature.{feature}"


def example_table(
    spec: FeatureSpec,
    ids: Mapping[str, Sequence[str | None]],
    times: Sequence[int] | NDArray[np.int64],
    labels: Sequence[int | None] | NDArray[np.int8],
    features: Features,
    sample_weights: Float32 | None = None,
) -> pa.Table:
    """The table of n decisions: ``ids`` by column name of :data:`IDS`, ``times`` in ms, ``features`` of ``spec``.

    A decision whose label is None, not being known yet, is left out.
    """
    columns: dict[str, pa.Array[Any]] = {name: pa.array(ids[name], pa.string()) for name in IDS}
    columns["time"] = pa.array(times, pa.int64())
    columns["label"] = pa.array(labels, pa.int8())
    if sample_weights is not None:
        columns[SAMPLE_WEIGHT] = pa.array(sample_weights, pa.float32())
    for name, numbers in zip(spec.numeric, features.numeric.T, strict=True):
        columns[column_of(name)] = pa.array(numbers, pa.float32())
    for category, strings in zip(spec.categorical, features.categorical, strict=True):
        columns[column_of(category.name)] = pa.array(strings, pa.string())
    table = pa.table(columns)
    return table.filter(table.column("label").is_valid())


def read_examples(path: Path, spec: FeatureSpec) -> Examples:
    """The examples of the Parquet file ``path`` with the features of ``spec``, sorted by time, then by id.

    Raises :class:`ExamplesError` when a column is missing, is of another type or holds what it may not, and when
    there is nothing to learn from.
    """
    numbers = [column_of(name) for name in spec.numeric]
    strings = [column_of(category.name) for category in spec.categorical]
    table = _read(path, ["id", "time", "label", *numbers, *strings])
    _check_types(path, table, numbers, strings)
    table = table.take(pc.sort_indices(table, sort_keys=[("time", "ascending"), ("id", "ascending")]))
    numeric = [_floats(table, name) for name in numbers]
    categorical = [table.column(name).cast(pa.string()).to_pylist() for name in strings]
    label = _floats(table, "label")
    weighted = SAMPLE_WEIGHT in table.column_names
    weight = _floats(table, SAMPLE_WEIGHT) if weighted else np.ones_like(label)
    for name, values, rule, good in (
        ("label", label, "0 or 1", (label == 0) | (label == 1)),
        (SAMPLE_WEIGHT, weight, "a finite number from 0", np.isfinite(weight) & (weight >= 0)),
    ):
        if not good.all():
            row = int(np.argmin(good))
            raise ExamplesError(
                f"{path}: `{name}` is {rule}, got {values[row]} for id {table.column('id')[row]}; rebuild the dataset"
            )
    return Examples(
        numeric=np.column_stack(numeric) if numeric else np.zeros((len(table), 0), np.float32),
        categorical=CategoryHasher(spec)(categorical, len(table)),
        label=label,
        sample_weight=weight,
        time=table.column("time").cast(pa.int64()).to_numpy(),
    )


def _read(path: Path, names: list[str]) -> pa.Table:
    """The columns ``names`` of the file, and the sample weights where it has them."""
    try:
        present = pq.read_schema(path).names
        if missing := [name for name in names if name not in present]:
            raise ExamplesError(
                f"{path}: examples have id, time, label and a column for each feature of the use case; missing: "
                f"{', '.join(missing)}; rebuild the dataset with this use case"
            )
        table = pq.read_table(path, columns=[*names, *({SAMPLE_WEIGHT} & set(present))])
    except (OSError, pa.ArrowException) as error:
        raise ExamplesError(f"{path}: not a readable Parquet file: {error}; rebuild the dataset") from error
    if len(table) == 0:
        raise ExamplesError(
            f"{path}: no rows; wait until labels have matured, or widen the dataset's time range"
        )
    return table


def _check_types(path: Path, table: pa.Table, numbers: list[str], strings: list[str]) -> None:
    """Refuse what a cast would turn into something else without a word: a time in µs, a number as a category."""
    kinds = pa.types
    number: tuple[Callable[[pa.DataType], bool], ...]
    number = (kinds.is_floating, kinds.is_integer, kinds.is_boolean, kinds.is_null)
    string = (kinds.is_string, kinds.is_large_string, kinds.is_dictionary, kinds.is_null)
    wanted: dict[str, tuple[str, tuple[Callable[[pa.DataType], bool], ...]]]
    wanted = dict.fromkeys((*numbers, "label", SAMPLE_WEIGHT), ("numbers", number))
    wanted |= dict.fromkeys(strings, ("strings", string))
    wanted["time"] = ("integers, milliseconds", (kinds.is_integer,))
    for name, (what, allowed) in wanted.items():
        if name in table.column_names and not any(kind(table.schema.field(name).type) for kind in allowed):
            got = table.schema.field(name).type
            raise ExamplesError(f"{path}: `{name}` is a column of {what}, got {got}; rebuild the dataset")
    if nulls := table.column("time").null_count:
        raise ExamplesError(
            f"{path}: every example has a time, got {nulls} rows without; rebuild the dataset"
        )


def _floats(table: pa.Table, name: str) -> Float32:
    values: Float32 = table.column(name).cast(pa.float32(), safe=False).to_numpy()  # null becomes NaN
    return values


def split(examples: Examples) -> tuple[Examples, Examples]:
    """Rows to fit and, all strictly later, about the last 20 % to validate; rows of one time stay together.

    Raises :class:`ExamplesError` unless both have both labels: otherwise nothing can be fitted, or nothing judged.
    """
    wanted = int(len(examples) * (1 - VALIDATION))
    edges = [int(np.searchsorted(examples.time, examples.time[wanted], side)) for side in ("left", "right")]
    cut = min(
        (edge for edge in edges if 0 < edge < len(examples)), key=lambda edge: abs(edge - wanted), default=0
    )
    parts = examples[:cut], examples[cut:]
    for part, what in zip(
        parts, ("the earliest 80 %, which are fitted,", "the latest 20 %, which judge,"), strict=True
    ):
        labels = np.unique(part.label[part.sample_weight > 0]).astype(int).tolist()
        if labels != [0, 1]:
            raise ExamplesError(
                f"examples of both labels are needed in {what} got labels {labels} in {len(part)} of {len(examples)} "
                "rows; widen the dataset's time range or check the join of outcomes"
            )
    return parts
