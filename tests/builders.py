"""What the model's tests are made of: a small use case, examples whose law is known, and one bundle trained on them."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model import usecase
from model.bundle import Bundle, read, write_manifest
from model.examples import Example, Examples, read_examples, table_of
from model.features import Float32, Int32, feature_spec

ROOT = Path(__file__).parent.parent
ROWS = 4000
START, STEP = 1_700_000_000_000, 60_000  # ms: the first example's time, and from one to the next
WINDOW = 600_000  # ms, shorter than the use case's, so that closed windows lie close behind the decisions

USECASE = """
name = "synthetic"
[events.offer]
[events.view]
[events.buy]
[decisions.offer]
outcome = "buy"
window = "7d"
[context]
plan = "category"
[features.views]
kind = "decayed_count"
events = ["view"]
half_life = "7d"
[features.spend]
kind = "decayed_sum"
events = ["buy"]
half_life = "30d"
[features.last_view]
kind = "recency"
events = ["view"]
[features.price]
kind = "value"
[features.item]
kind = "item"
buckets = 64
[features.plan]
kind = "context"
field = "plan"
buckets = 16
[model]
# sizes that fill no vector register, so that the ends of LiteRT's kernels are met, too
embedding = 5
cross_rank = 7
dense = [33, 17]
"""

CASE = usecase.parse(USECASE)
SPEC = feature_spec(CASE)


def examples(n: int = ROWS, seed: int = 0) -> pa.Table:
    """Draw ``n`` examples, a minute apart, with log-odds that need missing values, a product and both categories."""
    random = np.random.default_rng(seed)
    centre = np.array([0, 3, 10, 2])
    numbers = np.exp(random.normal(size=(n, 4)) + centre).astype(np.float32)  # [n, F]
    numbers[random.random((n, 4)) < 0.1] = np.nan
    item, plan = random.integers(0, 20, n), random.integers(0, 4, n)
    z = np.nan_to_num(np.log(numbers) - centre)
    odds = (
        1.5 * z[:, 0] + z[:, 1] * z[:, 2] + 2.0 * np.isnan(numbers[:, 3]) + np.sin(item) + 0.7 * (plan - 1.5)
    )
    label = (random.random(n) < 1 / (1 + np.exp(-odds))).astype(np.int8)
    names = [*SPEC.numeric, *(column.name for column in SPEC.categorical)]
    made = []
    for i in range(n):
        here = [
            *map(_present, numbers[i].tolist()),
            f"course-{item[i]}",
            f"plan-{plan[i]}" if plan[i] else None,
        ]
        time = START + STEP * i
        made.append(
            Example(
                id=f"d{i}",
                type="offer",
                user=f"u{i % 97}",
                item=f"course-{item[i]}",
                time=time,
                score=0.5,
                model="prior",
                profile_offset=-1,
                features=dict(zip(names, here, strict=True)),
                label=1 if label[i] else 0,
                weight=1.0,
                outcome_time=time + 1 if label[i] else None,
                closes=time + WINDOW,
            )
        )
    return table_of(made, SPEC)


def _present(number: float) -> float | None:
    return None if np.isnan(number) else number


def replaced(table: pa.Table, column: str, values: Any) -> pa.Table:
    """Give ``table`` other ``values`` in a column, or one column more."""
    at = table.schema.get_field_index(column)
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return table.append_column(column, array) if at < 0 else table.set_column(at, column, array)


def rows(n: int, seed: int = 0) -> tuple[Float32, Int32]:
    """Draw ``numeric`` [n, F] and ``categorical`` [n, C] over many sizes, with missing and infinite values and 0."""
    random = np.random.default_rng(seed)
    numeric = (random.normal(size=(n, len(SPEC.numeric))) * np.exp(random.normal(0, 5, (n, 1)))).astype(
        np.float32
    )
    for value, share in ((np.nan, 0.15), (0.0, 0.1), (np.inf, 0.01), (-np.inf, 0.01)):
        numeric[random.random(numeric.shape) < share] = value
    ids = [random.integers(0, column.buckets, n) for column in SPEC.categorical]
    return numeric, np.column_stack(ids).astype(np.int32)


def decisions(user: NDArray[np.int64], time: NDArray[np.int64], seed: int = 0) -> Examples:
    """Examples [n] of ``user`` [n] at ``time`` [n], ms and rising; the first numeric column counts the rows."""
    random, n = np.random.default_rng(seed), len(user)
    numeric = random.normal(size=(n, len(SPEC.numeric))).astype(np.float32)
    numeric[random.random(numeric.shape) < 0.1] = np.nan
    numeric[:, 0] = np.arange(n)
    words = np.array(["", "a", "b\0", "größer", None], np.object_)
    categories = words[random.integers(0, len(words), (n, len(SPEC.categorical)))]
    return Examples(
        numeric=numeric,
        categorical=np.zeros(categories.shape, np.int32),
        label=random.integers(0, 2, n).astype(np.float32),
        sample_weight=np.ones(n, np.float32),
        time=time,
        closes=time + WINDOW,
        user=user,
        categories=categories,
    )


def inputs(folder: Path, table: pa.Table | None = None) -> tuple[Path, Path]:
    """Write the use case and ``table`` (or the usual examples) into ``folder`` and return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    case, parquet = folder / "usecase.toml", folder / "examples.parquet"
    case.write_text(USECASE)
    pq.write_table(examples() if table is None else table, parquet)
    return case, parquet


def prepared(folder: Path, table: pa.Table) -> Examples:
    """Write ``table`` into ``folder`` and read it back the way training does."""
    return read_examples(inputs(folder, table)[1], SPEC)


@functools.cache
def tensorflow(module: str) -> Any:
    """Import ``module``, which imports TensorFlow, letting pass what TensorFlow's own imports warn of.

    TensorFlow gets two logical CPUs, so that a strategy of two replicas can be tried; the first is the default.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imported = importlib.import_module(module)
    config = imported.tf.config
    cpu = config.list_physical_devices("CPU")[0]
    if config.get_logical_device_configuration(cpu) is None:
        config.set_logical_device_configuration(cpu, [config.LogicalDeviceConfiguration()] * 2)
    return imported


def training_process(folder: Path) -> tuple[Path, str]:
    """Run the training process in ``folder``; return its bundle and what it printed."""
    case, parquet = inputs(folder)
    out = folder / "bundle"
    arguments = [case, parquet, "--out", out, "--version", "7", "--seed", "1", "--epochs", "8"]
    done = subprocess.run(
        [sys.executable, "-m", "eddyline", "train", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def sign_again(directory: Path) -> Bundle:
    """Write a manifest that vouches for whatever ``directory`` now holds, as a careless publisher would."""
    write_manifest(directory, read(directory).manifest)
    return read(directory)
