"""Facts about model/training.py; they import TensorFlow."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from model.bundle import read
from model.features import Category, FeatureSpec
from model.scorer import LiteRTScorer
from tests.builders import CASE, ROWS, SPEC, START, STEP, examples, inputs, tensorflow, training_process


@pytest.fixture(scope="session")
def process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Bundle and output of the session's one training process; the bundle is not to be changed."""
    return training_process(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def training() -> Any:
    """Module under test, imported only when a test runs: TensorFlow takes 10 s."""
    return tensorflow("model.training")


def prepared(training: Any, folder: Path, table: pa.Table) -> Any:
    """Read ``table`` back the way training does."""
    return training.read_examples(inputs(folder, table)[1], SPEC)


def fitted(training: Any, data: Any, **settings: float) -> Any:
    """Train in this process, silently."""
    return training.train(data, SPEC, CASE.model, training.Settings(**settings), lambda _: None)


def test_the_network_learns(training: Any, process: tuple[Path, str], tmp_path: Path) -> None:
    """On fresh examples of the same law the bundle orders well and beats the base rate by far."""
    fresh = prepared(training, tmp_path, examples(4000, seed=99))
    scores = LiteRTScorer.load(process[0]).score(fresh.numeric, fresh.categorical)
    base = np.full_like(scores, fresh.base_rate)
    assert training.auc(fresh.label, scores, fresh.weight) > 0.83  # the law itself: 0.88
    loss, base_loss = (training.log_loss(fresh.label, s, fresh.weight) for s in (scores, base))
    assert loss < 0.8 * base_loss


def test_the_manifest_holds_the_validation_metrics(
    training: Any, process: tuple[Path, str], tmp_path: Path
) -> None:
    """The metrics of the bundle are those of the live model on the latest 20 % of its examples."""
    fitting, later = training.split(prepared(training, tmp_path, examples()))
    metrics = read(process[0]).manifest.metrics
    scores = LiteRTScorer.load(process[0]).score(later.numeric, later.categorical)
    assert metrics["auc"] == pytest.approx(training.auc(later.label, scores, later.weight), abs=1e-5)
    assert metrics["log_loss"] == pytest.approx(
        training.log_loss(later.label, scores, later.weight), abs=1e-5
    )
    assert metrics["base_rate"] == pytest.approx(fitting.label.mean(), abs=1e-6)
    assert metrics["log_loss"] < metrics["base_log_loss"]
    assert (metrics["rows"], metrics["validation_rows"]) == (3200, 800)


def test_progress_is_one_line_of_json_an_epoch(process: tuple[Path, str]) -> None:
    """Standard output is JSON lines alone: one an epoch, then the metrics of the manifest."""
    *epochs, metrics = map(json.loads, process[1].splitlines())
    assert list(range(1, len(epochs) + 1)) == [line["epoch"] for line in epochs]
    assert read(process[0]).manifest.metrics == metrics
    best = min(epochs, key=lambda line: float(line["validation_log_loss"]))
    assert (best["epoch"], best["validation_log_loss"]) == (metrics["epochs"], metrics["log_loss"])


def test_equal_seeds_give_equal_weights(training: Any, process: tuple[Path, str], tmp_path: Path) -> None:
    """This process and the training process, with one seed, reach the same weights to the bit."""
    again = fitted(training, prepared(training, tmp_path, examples()), seed=1, epochs=8).model
    stored = training.keras.saving.load_model(process[0] / "model.keras")
    for one, other in zip(again.get_weights(), stored.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_fitting_never_sees_later_rows(training: Any, tmp_path: Path) -> None:
    """After one epoch the weights are the same whatever the latest 20 % of rows hold."""
    table = examples(1000)
    later = np.arange(1000) >= 800
    price = np.where(later, 1e6, table.column("price").to_numpy()).astype(np.float32)
    label = np.where(later, 1 - table.column("label").to_numpy(), table.column("label").to_numpy()).astype(
        np.int8
    )
    other = (
        table.drop_columns(["price", "label"])
        .append_column("price", pa.array(price))
        .append_column("label", pa.array(label))
    )
    results = [
        fitted(training, prepared(training, tmp_path / name, each), epochs=1)
        for name, each in (("as it was", table), ("another future", other))
    ]
    for one, two in zip(*(result.model.get_weights() for result in results), strict=True):
        np.testing.assert_array_equal(one, two)
    assert results[0].metrics["log_loss"] != results[1].metrics["log_loss"]


def test_the_split_is_by_time_alone(training: Any, tmp_path: Path) -> None:
    """Whatever the order of the rows in the file, validation is later than all that is fitted."""
    table = examples(1000)
    shuffled = table.take(np.random.default_rng(0).permutation(1000))
    fitting, validation = training.split(prepared(training, tmp_path, shuffled))
    assert (len(fitting), len(validation)) == (800, 200)
    assert fitting.time.max() == START + STEP * 799
    assert validation.time.min() == START + STEP * 800
    np.testing.assert_array_equal(
        np.concatenate([fitting.label, validation.label]), table.column("label").to_numpy()
    )


def test_rows_of_one_time_stay_on_one_side(training: Any, tmp_path: Path) -> None:
    """A time at the split goes to validation whole, so that nothing of it is fitted."""
    table = examples(1000)
    by_hour = pa.array(table.column("time").to_numpy() // (300 * STEP) * (300 * STEP))
    table = table.set_column(table.schema.get_field_index("time"), "time", by_hour)
    fitting, validation = training.split(prepared(training, tmp_path, table))
    assert fitting.time.max() < validation.time.min()
    assert len(fitting) + len(validation) == 1000


def test_early_stopping_keeps_the_best_epoch(training: Any, tmp_path: Path) -> None:
    """Fitting stops after the set number of epochs without a gain and leaves the weights of the best one."""
    told: list[Any] = []
    data = prepared(training, tmp_path, examples(600))
    settings = training.Settings(epochs=60, patience=2, learning_rate=0.02, batch=32)
    result = training.train(data, SPEC, CASE.model, settings, told.append)
    losses = [line.validation_log_loss for line in told]
    assert len(told) == int(np.argmin(losses)) + 1 + 2
    assert result.metrics["log_loss"] == min(losses)
    assert result.metrics["epochs"] == int(np.argmin(losses)) + 1


def test_weights_say_how_much_a_row_counts(training: Any, tmp_path: Path) -> None:
    """With all weight on the even rows, whose labels are turned round, the model learns the turned law."""
    table = examples()
    even = np.arange(ROWS) % 2 == 0
    label = np.where(even, 1 - table.column("label").to_numpy(), table.column("label").to_numpy()).astype(
        np.int8
    )
    table = table.set_column(table.schema.get_field_index("label"), "label", pa.array(label))
    table = table.append_column("weight", pa.array(np.where(even, 1.0, 1e-3).astype(np.float32)))
    result = fitted(training, prepared(training, tmp_path, table), epochs=5)
    fresh = prepared(training, tmp_path / "fresh", examples(2000, seed=5))
    assert training.auc(fresh.label, training.predict(result.model, SPEC, fresh), fresh.weight) < 0.3


def test_auc_is_the_share_of_pairs_in_order(training: Any) -> None:
    """The area is that of counting every pair, ties half, weights multiplied."""
    random = np.random.default_rng(0)
    label, score, weight = random.integers(0, 2, 60), random.integers(0, 9, 60) / 9, random.random(60)
    pairs = [(i, j) for i, j in itertools.product(range(60), repeat=2) if label[i] > label[j]]
    total = sum(weight[i] * weight[j] for i, j in pairs)
    right = sum(
        weight[i] * weight[j] * ((score[i] > score[j]) + (score[i] == score[j]) / 2) for i, j in pairs
    )
    assert training.auc(label, score, weight) == pytest.approx(right / total)


def replace(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    """Change one column of a table."""
    return lambda table: table.set_column(table.schema.get_field_index(name), name, pa.array(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["price", "plan"]), "missing: price, plan; rebuild the dataset with this use case"),
        (lambda t: t.slice(0, 0), "no rows; wait until labels have matured"),
        (replace("label", [1] * 50), r"both labels are needed in the earliest 80 %, which are fitted, got labels \[1\]"),
        (replace("label", [0, 1] * 20 + [0] * 10), r"in the latest 20 %, which judge, got labels \[0\] in 10 of 50"),
        (replace("label", [0, 1] * 24 + [0, 2]), r"`label` is 0 or 1, got 2\.0 for id d49"),
        (replace("label", [0, 1] * 24 + [0, None]), "`label` is 0 or 1, got nan for id d49"),
        (replace("time", [7] * 50), r"got labels \[\] in 0 of 50 rows"),
        (replace("time", [*range(49), None]), "every example has a time, got 1 rows without"),
        (replace("time", pa.array(range(50), pa.timestamp("us"))), r"`time` is a column of integers, milliseconds, got timestamp"),
        (replace("price", ["dear"] * 50), "`price` is a column of numbers, got string"),
        (replace("plan", [3] * 50), "`plan` is a column of strings, got int64"),
        (lambda t: t.append_column("weight", pa.array([-1.0] * 50)), r"`weight` is a finite number from 0, got -1\.0 for id d0"),
    ],
)  # fmt: skip
def test_unusable_examples_are_refused(
    training: Any, tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    """Examples that cannot teach, or that would teach something else, are refused with what to do."""
    with pytest.raises(training.TrainingError, match=message):
        training.split(prepared(training, tmp_path, change(examples(50))))


def test_a_feature_cannot_take_the_name_of_a_column(training: Any, tmp_path: Path) -> None:
    """A feature named like a column that every example has would be read from the wrong one."""
    spec = FeatureSpec(("time",), (Category("user", 8),))
    with pytest.raises(training.TrainingError, match=r"got \['time', 'user'\]; rename it"):
        training.read_examples(tmp_path / "examples.parquet", spec)


def test_missing_values_come_as_null_or_nan(training: Any, tmp_path: Path) -> None:
    """Null and NaN numbers read as NaN, null strings as id 0, and a column of nothing but nulls as missing."""
    table = replace("views", pa.nulls(50, pa.null()))(examples(50))
    table = replace("price", [None, np.nan, *range(48)])(table)
    data = prepared(training, tmp_path, table)
    assert np.isnan(data.numeric[:, 0]).all()
    assert np.isnan(data.numeric[:3, SPEC.numeric.index("price")]).tolist() == [True, True, False]
    np.testing.assert_array_equal(data.categorical[:, 1] == 0, pc.is_null(table.column("plan")).to_numpy())


def test_a_failure_is_one_readable_line(
    training: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command ends with 1 and one line that says where and what to do, and leaves no bundle."""
    case, parquet = inputs(tmp_path, examples(50))
    parquet.write_bytes(b"nothing of the kind")
    arguments = ["--usecase", case, "--examples", parquet, "--out", tmp_path / "bundle", "--version", "1"]
    assert training.main(list(map(str, arguments))) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"training failed: {parquet}: not a readable Parquet file")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "bundle").exists()


def test_an_existing_bundle_is_left_alone(
    training: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command refuses, before it reads or trains anything, to write where something is."""
    arguments = ["--usecase", "no.toml", "--examples", "no.parquet", "--out", str(tmp_path), "--version", "1"]
    assert training.main(arguments) == 1
    assert "a bundle is written once, and this exists" in capsys.readouterr().err


def test_one_loop_serves_several_devices(training: Any, tmp_path: Path) -> None:
    """Under a strategy of two replicas the same loop reaches the same weights, up to rounding."""
    data = prepared(training, tmp_path, examples(1000))
    tf = training.tf
    alone = fitted(training, data, epochs=1).model.get_weights()
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    with strategy.scope():
        together = fitted(training, data, epochs=1).model.get_weights()
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_no_epochs_is_no_training(training: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Fewer epochs than one are refused at once, with the usage."""
    with pytest.raises(SystemExit):
        training.main(["--usecase=u", "--examples=e", "--out=o", "--version=1", "--epochs=0"])
    assert "--epochs is at least 1, got 0" in capsys.readouterr().err
