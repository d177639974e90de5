"""Facts about model/training.py; they import TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.bundle import read
from model.evaluation import auc, log_loss
from model.examples import Examples, split
from model.scorer import LiteRTScorer
from tests.builders import CASE, ROWS, SPEC, examples, inputs, prepared, replaced, tensorflow


@pytest.fixture(scope="session")
def training() -> Any:
    """Module under test, imported only when a test runs: TensorFlow takes 10 s."""
    return tensorflow("model.training")


def fitted(training: Any, data: Examples, **settings: float) -> Any:
    """Train in this process, silently."""
    return training.train(data, SPEC, CASE.model, training.Settings(**settings), lambda _: None)


def test_the_network_learns(process: tuple[Path, str], tmp_path: Path) -> None:
    """On fresh examples of the same law the bundle orders well and beats the base rate by far."""
    fresh = prepared(tmp_path, examples(4000, seed=99))
    scores = LiteRTScorer.load(process[0]).score(fresh.numeric, fresh.categorical)
    base = np.full_like(scores, fresh.base_rate)
    assert auc(fresh.label, scores, fresh.sample_weight) > 0.83  # the law itself: 0.88
    loss, base_loss = (log_loss(fresh.label, s, fresh.sample_weight) for s in (scores, base))
    assert loss < 0.8 * base_loss


def test_the_manifest_holds_the_validation_metrics(process: tuple[Path, str], tmp_path: Path) -> None:
    """The metrics of the bundle are those of the live model on the latest 20 % of its examples."""
    fitting, later = split(prepared(tmp_path, examples()))
    metrics = read(process[0]).manifest.metrics
    scores = LiteRTScorer.load(process[0]).score(later.numeric, later.categorical)
    assert metrics["auc"] == pytest.approx(auc(later.label, scores, later.sample_weight), abs=1e-5)
    assert metrics["log_loss"] == pytest.approx(log_loss(later.label, scores, later.sample_weight), abs=1e-5)
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
    again = fitted(training, prepared(tmp_path, examples()), seed=1, epochs=8).model
    stored = training.keras.saving.load_model(process[0] / "model.keras")
    for one, other in zip(again.get_weights(), stored.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_fitting_never_sees_later_rows(training: Any, tmp_path: Path) -> None:
    """After one epoch the weights are the same whatever the latest 20 % of rows hold."""
    table = examples(1000)
    later = np.arange(1000) >= 800
    price = np.where(later, 1e6, table.column("feature.price").to_numpy()).astype(np.float32)
    label = np.where(later, 1 - table.column("label").to_numpy(), table.column("label").to_numpy()).astype(
        np.int8
    )
    other = replaced(replaced(table, "feature.price", price), "label", label)
    results = [
        fitted(training, prepared(tmp_path / name, each), epochs=1)
        for name, each in (("as it was", table), ("another future", other))
    ]
    for one, two in zip(*(result.model.get_weights() for result in results), strict=True):
        np.testing.assert_array_equal(one, two)
    assert results[0].metrics["log_loss"] != results[1].metrics["log_loss"]


def test_early_stopping_keeps_the_best_epoch(training: Any, tmp_path: Path) -> None:
    """Fitting stops after the set number of epochs without a gain and leaves the weights of the best one."""
    told: list[Any] = []
    data = prepared(tmp_path, examples(600))
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
    table = replaced(table, "label", label)
    table = replaced(table, "sample_weight", np.where(even, 1.0, 1e-3).astype(np.float32))
    result = fitted(training, prepared(tmp_path, table), epochs=5)
    fresh = prepared(tmp_path / "fresh", examples(2000, seed=5))
    assert auc(fresh.label, training.predict(result.model, SPEC, fresh), fresh.sample_weight) < 0.3


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
    data = prepared(tmp_path, examples(1000))
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
