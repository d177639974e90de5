"""The scoring network: numbers and category ids in, a probability out. Called by :mod:`model.training`.

One of the four modules that import TensorFlow (with :mod:`model.devices`, :mod:`model.fitting` and :mod:`model.training`);
workers score with
:mod:`model.scorer` instead. Everything between a logged feature and a score is in the graph (missing values,
scaling, embeddings), so that training and serving cannot disagree. Only ops that LiteRT has built in are used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.features import FeatureSpec, Float32, Int32
from model.normalisation import Normalisation
from model.usecase import Network

# Read when TensorFlow is first imported: its log starts at errors (a machine without a GPU says so five times
# otherwise), Keras 3 runs on TensorFlow, and Ray Train's wish for the legacy Keras is not granted.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.pop("TF_USE_LEGACY_KERAS", None)

import keras
import tensorflow as tf

Known = NDArray[np.bool_]  # which rows of the embedding table an earlier model had learnt

# What saved models name our layers by; as `__module__`, too, or Keras adds this file's name to them.
PACKAGE = "eddyline"


@keras.saving.register_keras_serializable(package=PACKAGE)
class Standardise(keras.layers.Layer):  # type: ignore[misc]  # keras is untyped
    """Numbers [n, F] to [n, 2F]: signed log1p, standardised and clipped, 0 where missing; then 1 where missing."""

    __module__ = PACKAGE

    def __init__(self, learned: dict[str, list[float]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.learned = learned

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Carry what a :class:`~model.normalisation.Normalisation` holds as weights that training does not touch."""
        for name, values in self.learned.items():
            start = keras.initializers.Constant(np.asarray(values, np.float32))
            shape = input_shape[-1:]  # [F]
            setattr(self, name, self.add_weight(name=name, shape=shape, initializer=start, trainable=False))

    def call(self, numeric: Any) -> Any:
        """Scale ``numeric`` [n, F] and append its missing indicators."""
        missing = tf.not_equal(numeric, numeric)  # only NaN differs from itself
        present = tf.where(missing, 0.0, numeric) / self.scale
        missing = tf.cast(missing, tf.float32)
        # sign(x) * log1p(|x|) in ops that LiteRT's fast kernels have: sign and log1p are not among them
        value = tf.math.log(1.0 + tf.nn.relu(present)) - tf.math.log(1.0 + tf.nn.relu(-present))
        value = tf.minimum(tf.maximum((value - self.mean) / self.std, self.low), self.high)
        return tf.concat([value * (1.0 - missing), missing], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """What a saved model needs to rebuild this layer."""
        return {**super().get_config(), "learned": self.learned}


@keras.saving.register_keras_serializable(package=PACKAGE)
class FusedEmbedding(keras.layers.Layer):  # type: ignore[misc]  # keras is untyped
    """Category ids [n, C] to [n, C * width]: one table for all columns, each column's rows at its own offset."""

    __module__ = PACKAGE

    def __init__(self, buckets: Sequence[int], width: int, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.buckets, self.width, self.seed = tuple(buckets), width, seed
        self.offsets = np.cumsum([0, *self.buckets[:-1]], dtype=np.int32)  # [C]

    def build(self, _input_shape: Sequence[int | None]) -> None:
        """Create the table [sum of buckets, width]."""
        start = keras.initializers.RandomUniform(-0.05, 0.05, seed=self.seed)
        self.table = self.add_weight(name="table", shape=(sum(self.buckets), self.width), initializer=start)

    def call(self, ids: Any) -> Any:
        """Look ``ids`` [n, C] up; each must be in 0 … buckets-1, which the caller has checked."""
        rows = tf.gather(self.table, ids + self.offsets)  # [n, C, width]
        return tf.reshape(rows, (-1, len(self.buckets) * self.width))

    def get_config(self) -> dict[str, Any]:
        """What a saved model needs to rebuild this layer."""
        return {**super().get_config(), "buckets": self.buckets, "width": self.width, "seed": self.seed}


@keras.saving.register_keras_serializable(package=PACKAGE)
class Cross(keras.layers.Layer):  # type: ignore[misc]  # keras is untyped
    """A low-rank cross layer of DCN-v2: ``x0 * (x V U + b) + x`` (Wang et al. 2021, section 3.1)."""

    __module__ = PACKAGE

    def __init__(self, rank: int, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rank, self.seed = rank, seed

    def build(self, input_shape: Sequence[Sequence[int | None]]) -> None:
        """Create V [D, rank], U [rank, D] and b [D]."""
        width = input_shape[0][-1]
        glorot = keras.initializers.GlorotUniform
        self.v = self.add_weight(name="v", shape=(width, self.rank), initializer=glorot(seed=self.seed))
        self.u = self.add_weight(name="u", shape=(self.rank, width), initializer=glorot(seed=self.seed + 1))
        self.b = self.add_weight(name="b", shape=(width,), initializer="zeros")

    def call(self, inputs: Sequence[Any]) -> Any:
        """Cross the first layer's ``x0`` [n, D] with the previous layer's ``x`` [n, D]."""
        x0, x = inputs
        return x0 * (tf.matmul(tf.matmul(x, self.v), self.u) + self.b) + x

    def get_config(self) -> dict[str, Any]:
        """What a saved model needs to rebuild this layer."""
        return {**super().get_config(), "rank": self.rank, "seed": self.seed}


def build(
    spec: FeatureSpec, sizes: Network, normalisation: Normalisation, *, base_rate: float = 0.5, seed: int = 0
) -> Any:
    """A new network for ``spec``: cross layers and dense layers side by side, added up to one logit.

    Inputs are ``numeric`` float32 [n, F], NaN for missing, and ``categorical`` int32 [n, C], 0 for missing;
    a kind without columns has no input. The output is the probability ``score`` float32 [n, 1]; the layer
    ``logit`` stands before it. A new network scores about ``base_rate``. Equal seeds give equal weights.
    """
    inputs, parts = {}, []
    if spec.numeric:
        inputs["numeric"] = keras.Input((len(spec.numeric),), dtype="float32", name="numeric")
        learned = {name: list(values) for name, values in msgspec.structs.asdict(normalisation).items()}
        parts.append(Standardise(learned, name="standardise")(inputs["numeric"]))
    if spec.categorical:
        inputs["categorical"] = keras.Input((len(spec.categorical),), dtype="int32", name="categorical")
        buckets = [column.buckets for column in spec.categorical]
        parts.append(FusedEmbedding(buckets, sizes.embedding, seed, name="embedding")(inputs["categorical"]))
    if not parts:
        raise ValueError(
            "a network needs at least one feature, got a spec without columns; declare [features.NAME]"
        )
    x0 = keras.layers.Concatenate(name="features")(parts) if len(parts) > 1 else parts[0]  # [n, D]
    crossed, deep = x0, x0
    for i in range(sizes.cross_layers):
        cross = Cross(sizes.cross_rank, seed + 10 * i + 1, name=f"cross_{i}")
        crossed = cross([x0, crossed])  # [n, D]
    for i, width in enumerate(sizes.dense):
        start = keras.initializers.HeUniform(seed=seed + 10 * i + 5)
        dense = keras.layers.Dense(width, "relu", kernel_initializer=start, name=f"dense_{i}")
        deep = dense(deep)  # [n, width]
    both = keras.layers.Concatenate(name="both")([crossed, deep]) if sizes.dense else crossed
    bias = keras.initializers.Constant(float(np.log(base_rate / (1.0 - base_rate))))
    start = keras.initializers.GlorotUniform(seed=seed)
    logit = keras.layers.Dense(1, kernel_initializer=start, bias_initializer=bias, name="logit")
    score = keras.layers.Activation("sigmoid", name="score")(logit(both))  # [n, 1]
    return keras.Model(inputs, score, name="eddyline")


def read_unseen_as_missing(model: Any, categorical: Int32, learnt: Known | None = None) -> None:
    """Give the categories of ``model`` that are not among the ids ``categorical`` [n, C] the embedding of a missing one.

    What they start with is chance, and training has no row to correct it by; unless an earlier model had ``learnt`` them.
    """
    if not categorical.shape[1]:
        return
    layer = model.get_layer("embedding")
    table, first = np.array(layer.table), 0
    for buckets, ids in zip(layer.buckets, categorical.T, strict=True):
        unseen = np.bincount(ids, minlength=buckets) == 0
        if learnt is not None:
            unseen &= ~learnt[first : first + buckets]
        table[first : first + buckets][unseen] = table[first]
        first += buckets
    layer.table.assign(table)


def continued(model: Any, earlier: Any) -> Known | None:
    """Give ``model``, new, the weights of ``earlier`` wherever layers of one name have weights of one shape.

    But not the scaling of numbers: its ends are where the earlier model stops telling larger from smaller, and numbers may
    have moved beyond them. On OULAD either scaling led to the same log-loss. Returns which rows of the embedding table
    ``earlier`` had learnt, those unlike its missing one; None if it has no such table.
    """
    known = None
    for layer in model.layers:
        old = next((each for each in earlier.layers if each.name == layer.name), None)
        if layer.name == "standardise" or old is None:
            continue
        if [w.shape for w in old.get_weights()] != [w.shape for w in layer.get_weights()]:
            continue
        layer.set_weights(old.get_weights())
        if layer.name == "embedding" and tuple(layer.buckets) == tuple(old.buckets):
            table, firsts = np.array(layer.table), layer.offsets
            missing = np.repeat(table[firsts], layer.buckets, axis=0)
            known = (table != missing).any(axis=1)
    return known


def inputs(spec: FeatureSpec, numeric: Float32, categorical: Int32) -> dict[str, Any]:
    """The rows ``numeric`` [n, F] and ``categorical`` [n, C] as the inputs that a network of ``spec`` has."""
    named: dict[str, Any] = {"numeric": numeric, "categorical": categorical}
    return {name: named[name] for name in named if getattr(spec, name)}
