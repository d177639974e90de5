"""Fitting: one loop that moves a network's weights towards examples, on one device or many. Called by :mod:`model.training`.

One of the four modules that import TensorFlow (the others are :mod:`model.devices`, :mod:`model.network` and
:mod:`model.training`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from model import checkpoint, devices, network
from model.checkpoint import Checkpoint, CheckpointError, Epoch, digest_of

# isort: split
# After `network`, which says how TensorFlow is to start.
import keras
import tensorflow as tf

from model.evaluation import log_loss, log_odds_shift
from model.examples import Examples, ExamplesError
from model.features import FeatureSpec, Float32
from model.network import Known

AVERAGING = 0.6  # how much of the average an epoch leaves as it was

Report = Callable[[Epoch], None]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to fit. More ``patience`` (epochs without a better validation log-loss) costs time, less stops on noise.

    The learning rate falls from ``learning_rate`` to 0 over ``epochs`` along half a cosine, and weights decay apart
    from the gradient (Loshchilov and Hutter 2017, 2019). Of each row's inputs a share ``hidden``, other ones in each
    epoch, is replaced by what says nothing, so that no single one is leant on; a category is made missing, so that
    one which was never seen, and reads as missing, is nothing new. ``balance`` gives both labels the same total weight.
    """

    seed: int = 0
    epochs: int = 20
    patience: int = 5
    batch: int = 256  # rows over all replicas, at most; few examples are taken in smaller ones
    learning_rate: float = 2e-3
    weight_decay: float = 0.3
    hidden: float = 0.05
    balance: bool = False


class Fitted(msgspec.Struct, frozen=True):
    """What came of each epoch, and the ``epoch`` (from 1) whose weights were kept."""

    epochs: list[Epoch]
    epoch: int


def fit(
    model: Any,
    spec: FeatureSpec,
    fitting: Examples,
    settings: Settings,
    report: Report,
    *,
    validation: Examples | None = None,
    epochs: int | None = None,
    resume: Path | None = None,
    learnt: Known | None = None,
) -> Fitted:
    """Fit ``model`` in place to ``fitting``, a row by its weight, telling ``report`` of each epoch.

    What is judged, and left, is an average of the weights after the latest epochs (Izmailov et al. 2018), which is
    steadier than any of them. With a ``validation`` part, stop when its log-loss gets no better, and leave the
    average at the best epoch; without, leave that after ``epochs``. The state is kept in the file ``resume`` after each epoch; a call that
    finds one goes on from it and ends with the same weights, to the bit, as one that was never interrupted.

    ``learnt`` says which embedding rows are kept though no example has them (:func:`model.network.continued`).

    One custom loop for one device and for many: call it, and build the model, inside the scope of a
    ``tf.distribute`` strategy (Keras 3's own ``fit`` fails under MultiWorkerMirroredStrategy). Each epoch leaves
    out the few rows, other ones each time, that do not fill a batch, so that all batches have one shape. Several
    processes each call it with the same arguments, and each goes on from a checkpoint of the same epoch.

    Raises :class:`~model.examples.ExamplesError` when no epoch has a log-loss, and
    :class:`~model.checkpoint.CheckpointError` when ``resume`` is of another fit, or another process's differs.
    """
    last = settings.epochs if epochs is None else epochs
    weight, offset = _weights(fitting, balance=settings.balance)
    loop = _Loop(model, spec, fitting, weight, offset, settings, learnt)
    digest = digest_of([spec, settings, last, *model.get_weights(), *_arrays(fitting), *_arrays(validation)])
    found = checkpoint.read(resume, digest) if resume else None
    if found:
        loop.restore(found)
    start = Checkpoint(epochs=[], best_epoch=0, weights=[], average=[], optimizer=[], best_weights=[])
    state = found or start
    if not devices.alike(digest_of([digest, len(state.epochs)])):
        raise CheckpointError(
            f"processes that share a fit have the same examples, settings and checkpoint; this one, at epoch "
            f"{len(state.epochs)} of the fit {digest[:12]}…, and its peers have not; start the job again"
        )
    began = time.monotonic()
    while len(state.epochs) < last and (
        validation is None or len(state.epochs) - state.best_epoch < settings.patience
    ):
        number = len(state.epochs) + 1
        mean, loss = loop.epoch(number), None
        weights = model.get_weights()
        average = _averaged(state.average, weights) if state.epochs else weights
        model.set_weights(average)
        if validation is not None:
            loss = devices.mean(log_loss(validation.label, predict(model, spec, validation)))
        kept = (each.validation_log_loss for each in state.epochs if each.best)
        better = loss is None or loss < min((each for each in kept if each is not None), default=np.inf)
        line = Epoch(
            epoch=number,
            loss=mean,
            validation_log_loss=loss,
            best=better,
            seconds=round(time.monotonic() - began, 3),
        )
        model.set_weights(weights)
        state = Checkpoint(
            epochs=[*state.epochs, line],
            best_epoch=number if better else state.best_epoch,
            weights=weights,
            average=average,
            optimizer=loop.optimizer,
            best_weights=average if better else state.best_weights,
        )
        if resume:
            checkpoint.write(resume, state, digest)
        report(line)
    if state.best_epoch == 0:
        raise ExamplesError("the validation log-loss is a number, got nan in every epoch; check the examples")
    model.set_weights(state.best_weights)
    return Fitted(state.epochs, state.best_epoch)


def predict(model: Any, spec: FeatureSpec, examples: Examples) -> Float32:
    """The scores [n] that ``model`` itself, rather than LiteRT, gives ``examples``."""
    inputs = network.inputs(spec, examples.numeric, examples.categorical)
    chunks = range(0, len(examples), 8192)
    parts = [
        model({name: rows[i : i + 8192] for name, rows in inputs.items()}, training=False) for i in chunks
    ]
    return np.concatenate([np.asarray(part)[:, 0] for part in parts])


class _Loop:
    """A model with its optimizer and rows, an epoch at a time; an epoch's order depends on seed and number alone."""

    def __init__(
        self,
        model: Any,
        spec: FeatureSpec,
        fitting: Examples,
        weight: Float32,
        offset: float,
        settings: Settings,
        learnt: Known | None,
    ) -> None:
        self._model, self._fitting, self._settings = model, fitting, settings
        self._learnt = learnt
        self._strategy = strategy = tf.distribute.get_strategy()
        self._size = size = _batch_size(len(fitting), settings.batch)
        self._steps = len(fitting) // size
        with strategy.scope():
            logits = keras.Model(
                model.inputs, model.get_layer("logit").output
            )  # shares the weights of `model`
            rate = keras.optimizers.schedules.CosineDecay(
                settings.learning_rate, self._steps * settings.epochs
            )
            self._optimizer = optimizer = keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay)
            optimizer.build(model.trainable_variables)

        def replica(x: Any, y: Any, w: Any) -> Any:
            with tf.GradientTape() as tape:
                logit = tf.squeeze(logits(x, training=True), -1) + offset
                each = tf.nn.sigmoid_cross_entropy_with_logits(y, logit) * w
                loss = tf.nn.compute_average_loss(each, global_batch_size=size)
            optimizer.apply_gradients(
                zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
            )
            return loss

        self._step = tf.function(
            lambda batch: strategy.reduce("SUM", strategy.run(replica, args=batch), axis=None)
        )
        rows = fitting.numeric, fitting.categorical, fitting.label, weight
        self._table = tf.nest.map_structure(tf.constant, rows)
        self._spec = spec

    def epoch(self, number: int) -> float:
        """Fit once to all rows; the mean loss."""
        seed, steps = self._settings.seed, self._steps
        order = np.random.default_rng([seed, number]).permutation(len(self._fitting))
        order = order[: steps * self._size].reshape(steps, self._size)
        keys = np.column_stack([np.full(steps, seed), number * steps + np.arange(steps)])
        batches = tf.data.Dataset.from_tensor_slices((order, keys)).map(self._batch).prefetch(4)
        losses = [self._step(batch) for batch in self._strategy.experimental_distribute_dataset(batches)]
        network.read_unseen_as_missing(self._model, self._fitting.categorical, self._learnt)
        return float(np.mean(losses))

    def _batch(self, chosen: Any, key: Any) -> Any:
        """The rows ``chosen`` [b], some of their inputs hidden by chance, which ``key`` [2] alone decides."""
        numeric, categorical, label, weight = (tf.gather(column, chosen) for column in self._table)
        split = numeric.shape[1]
        chance = tf.random.stateless_uniform((self._size, split + categorical.shape[1]), key)
        hidden = chance < self._settings.hidden
        numeric = tf.where(hidden[:, :split], tf.roll(numeric, 1, axis=0), numeric)
        categorical = tf.where(hidden[:, split:], 0, categorical)
        return network.inputs(self._spec, numeric, categorical), label, weight

    @property
    def optimizer(self) -> checkpoint.Weights:
        """What the optimizer remembers."""
        return [np.asarray(variable) for variable in self._optimizer.variables]

    def restore(self, state: Checkpoint) -> None:
        """Go back, or forward, to ``state``."""
        self._model.set_weights(state.weights)
        for variable, value in zip(self._optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)


def _weights(fitting: Examples, *, balance: bool) -> tuple[Float32, float]:
    """How much each row counts, 1 on average, and what its logit is off by while fitting.

    Weights, balanced ones above all, teach odds that are too high by a ratio. The logit is moved by its logarithm
    while fitting, and so learns the real odds: the prior correction of King and Zeng (2001, section 4.1), made
    beforehand. They steer what is learnt best, not the level. Importance is no such weight: the share of positives among
    rows that it makes look like others is those others' share, which is to be learnt.
    """
    weight = fitting.sample_weight / fitting.sample_weight.mean()
    if balance:
        rate = fitting.base_rate
        weight = (weight * np.where(fitting.label == 1, 0.5 / rate, 0.5 / (1 - rate))).astype(np.float32)
    if fitting.importance is None:
        return weight, log_odds_shift(fitting.label, weight)
    offset = log_odds_shift(fitting.label, weight, fitting.importance)
    weight = weight * fitting.importance
    return (weight / weight.mean()).astype(np.float32), offset


def _batch_size(rows: int, most: int) -> int:
    """A power of two, or ``most``, that divides an epoch into at least 64 steps, but no less than 16 rows."""
    return min(most, rows, max(16, 1 << max(rows // 64, 1).bit_length() - 1))


def _averaged(average: checkpoint.Weights, weights: checkpoint.Weights) -> checkpoint.Weights:
    """An exponential average, in which what does not change stays the same to the bit."""
    return [old + (1 - AVERAGING) * (new - old) for old, new in zip(average, weights, strict=True)]


def _arrays(examples: Examples | None) -> list[Any]:
    if examples is None:
        return []
    columns = [examples.numeric, examples.categorical, examples.label, examples.sample_weight]
    return columns if examples.importance is None else [*columns, examples.importance]
