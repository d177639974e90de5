"""Training: an example dataset in, a model bundle out. Run in a process of its own, by hand or by :mod:`retrain`.

``python -m model.training --usecase U.toml --examples EX.parquet --out DIR --version V`` prints one JSON line an
epoch, leaves a bundle at DIR and exits 0; or it leaves nothing there, says why on the last line and exits 1.

One of the only two modules that import TensorFlow (the other is :mod:`model.network`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from model import bundle, network, usecase

# isort: split
# After `network`, which says how TensorFlow is to start.
import keras
import tensorflow as tf

from model.evaluation import auc, log_loss
from model.examples import Examples, ExamplesError, read_examples, split
from model.features import FeatureSpec, Float32, feature_spec
from model.scorer import LiteRTScorer

GOLDEN_ROWS = 256


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to fit. More ``patience`` (epochs without a better validation log-loss) costs time, less stops on noise."""

    seed: int = 0
    epochs: int = 20
    patience: int = 3
    batch: int = 256  # rows over all replicas
    learning_rate: float = 2e-3


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One line of progress; ``seconds`` since fitting began."""

    epoch: int
    loss: float
    validation_log_loss: float
    best: bool
    seconds: float


Report = Callable[[Epoch], None]


class Trained(msgspec.Struct, frozen=True):
    """A fitted Keras model, its metrics on the validation rows, and those rows."""

    model: Any
    metrics: dict[str, float]
    validation: Examples


def train(
    examples: Examples, spec: FeatureSpec, sizes: usecase.Network, settings: Settings, report: Report
) -> Trained:
    """Fit a new network to all but the latest examples and measure it on those.

    Equal arguments give equal weights on one machine. TensorFlow is told to be deterministic for the process.
    """
    tf.config.experimental.enable_op_determinism()
    fitting, validation = split(examples)
    scaling = network.Normalisation.of(fitting.numeric)
    with tf.distribute.get_strategy().scope():
        model = network.build(spec, sizes, scaling, base_rate=fitting.base_rate, seed=settings.seed)
    epochs = fit(model, spec, (fitting, validation), settings, report)
    scores = predict(model, spec, validation)
    base = np.full_like(scores, fitting.base_rate)
    metrics = {
        "auc": auc(validation.label, scores, validation.sample_weight),
        "log_loss": log_loss(validation.label, scores, validation.sample_weight),
        "base_log_loss": log_loss(validation.label, base, validation.sample_weight),
        "base_rate": fitting.base_rate,
        "rows": float(len(fitting)),
        "validation_rows": float(len(validation)),
        "epochs": float(epochs),
    }
    return Trained(model, metrics, validation)


def fit(
    model: Any, spec: FeatureSpec, parts: tuple[Examples, Examples], settings: Settings, report: Report
) -> int:
    """Fit ``model`` in place, leave it with the weights of its best epoch and return that epoch (from 1).

    ``parts`` are the examples to fit and those to validate, from :func:`model.examples.split`.

    One custom loop for one device and for many: call it, and build the model, inside the scope of a
    ``tf.distribute`` strategy (Keras 3's own ``fit`` fails under MultiWorkerMirroredStrategy). Each epoch leaves
    out the few rows, other ones each time, that do not fill a batch, so that all batches have one shape.
    """
    fitting, validation = parts
    strategy = tf.distribute.get_strategy()
    size = min(settings.batch, len(fitting))
    steps = len(fitting) // size
    rows = network.inputs(spec, fitting.numeric, fitting.categorical)
    weight = fitting.sample_weight / fitting.sample_weight.mean()
    with strategy.scope():
        logits = keras.Model(model.inputs, model.get_layer("logit").output)  # shares the weights of `model`
        optimizer = keras.optimizers.Adam(settings.learning_rate)
        optimizer.build(model.trainable_variables)

    def replica(x: Any, y: Any, w: Any) -> Any:
        with tf.GradientTape() as tape:
            each = tf.nn.sigmoid_cross_entropy_with_logits(y, tf.squeeze(logits(x, training=True), -1)) * w
            loss = tf.nn.compute_average_loss(each, global_batch_size=size)
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    step = tf.function(lambda batch: strategy.reduce("SUM", strategy.run(replica, args=batch), axis=None))
    table = tf.nest.map_structure(tf.constant, (rows, fitting.label, weight))
    random = np.random.default_rng(settings.seed)
    best, best_epoch, best_weights = np.inf, 0, model.get_weights()
    began = time.monotonic()
    for epoch in range(1, settings.epochs + 1):
        order = random.permutation(len(fitting))[: steps * size].reshape(steps, size)
        batches = tf.data.Dataset.from_tensor_slices(order).map(
            lambda chosen: tf.nest.map_structure(lambda column: tf.gather(column, chosen), table)
        )
        losses = [step(batch) for batch in strategy.experimental_distribute_dataset(batches)]
        loss = log_loss(validation.label, predict(model, spec, validation), validation.sample_weight)
        better = loss < best
        if better:
            best, best_epoch, best_weights = loss, epoch, model.get_weights()
        seconds = round(time.monotonic() - began, 3)
        mean = float(np.mean(losses))
        report(Epoch(epoch=epoch, loss=mean, validation_log_loss=loss, best=better, seconds=seconds))
        if epoch - best_epoch >= settings.patience:
            break
    if best_epoch == 0:
        raise ExamplesError(
            "the validation log-loss is a number, got nan in every epoch; check the examples' weights"
        )
    model.set_weights(best_weights)
    return best_epoch


def predict(model: Any, spec: FeatureSpec, examples: Examples) -> Float32:
    """The scores [n] that ``model`` itself, rather than LiteRT, gives ``examples``."""
    inputs = network.inputs(spec, examples.numeric, examples.categorical)
    chunks = range(0, len(examples), 8192)
    parts = [
        model({name: rows[i : i + 8192] for name, rows in inputs.items()}, training=False) for i in chunks
    ]
    return np.concatenate([np.asarray(part)[:, 0] for part in parts])


def golden_rows(trained: Trained, spec: FeatureSpec, seed: int) -> bundle.Golden:
    """Rows spread over the validation time, a quarter with values made missing and the last with nothing else."""
    chosen = np.linspace(0, len(trained.validation) - 1, GOLDEN_ROWS).astype(int)
    numeric, categorical = trained.validation.numeric[chosen], trained.validation.categorical[chosen]
    random = np.random.default_rng(seed)
    quarter = np.arange(GOLDEN_ROWS)[:, None] % 4 == 3  # [n, 1]
    numeric[quarter & (random.random(numeric.shape) < 0.5)] = np.nan
    categorical[quarter & (random.random(categorical.shape) < 0.5)] = 0
    numeric[-1], categorical[-1] = np.nan, 0
    score = np.asarray(trained.model(network.inputs(spec, numeric, categorical), training=False))[:, 0]
    return bundle.Golden(numeric, categorical, score)


def write(
    trained: Trained, spec: FeatureSpec, out: Path, *, name: str, version: str, created: str, seed: int
) -> None:
    """Export to a new bundle at ``out``, which appears only once LiteRT has loaded it and scored as Keras does."""
    with bundle.writing(out) as directory:
        trained.model.save(directory / bundle.KERAS)
        trained.model.export(directory / bundle.SAVED_MODEL, verbose=False)
        trained.model.export(directory / bundle.MODEL, format="litert", verbose=False)
        bundle.write_features(directory, spec)
        bundle.write_golden(directory, golden_rows(trained, spec, seed))
        manifest = bundle.Manifest(
            usecase=name, version=version, created=created, metrics=trained.metrics, buckets=bundle.BUCKETS
        )
        bundle.write_manifest(directory, manifest)
        LiteRTScorer.load(directory)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see the module docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m model.training", description="Train a model and write its bundle."
    )
    parser.add_argument("--usecase", type=Path, required=True, help="the use case, a TOML file")
    parser.add_argument("--examples", type=Path, required=True, help="the examples, a Parquet file")
    parser.add_argument(
        "--out", type=Path, required=True, help="the bundle to write, a folder that does not exist"
    )
    parser.add_argument(
        "--version", required=True, help="the version that the bundle and its scores will name"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="start of all randomness; equal seeds, equal weights"
    )
    parser.add_argument(
        "--epochs", type=int, default=Settings().epochs, help="passes over the examples, at most"
    )
    given = parser.parse_args(arguments)
    if given.epochs < 1:
        parser.error(f"--epochs is at least 1, got {given.epochs}")
    settings = Settings(seed=given.seed, epochs=given.epochs)
    try:
        bundle.check_new(given.out)
        case = usecase.load(given.usecase)
        spec = feature_spec(case)
        trained = train(read_examples(given.examples, spec), spec, case.model, settings, _say)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        named = {"name": case.name, "version": given.version, "created": created}
        write(trained, spec, given.out, **named, seed=settings.seed)
    except (ExamplesError, usecase.UseCaseError, bundle.BundleError) as error:
        sys.stderr.write(f"training failed: {error}\n")
        return 1
    _say(trained.metrics)
    return 0


def _say(line: Epoch | dict[str, float]) -> None:
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
