"""Devices: over which ones a fit is spread, and how its processes keep in step. Called by :mod:`model.fitting` and by training jobs.

One of the four modules that import TensorFlow (with :mod:`model.network`, :mod:`model.fitting` and :mod:`model.training`).
"""

from __future__ import annotations

import json
import os
from typing import Any

from model import network  # noqa: F401  # says how TensorFlow is to start, and so comes before it

# isort: split
import tensorflow as tf


def strategy() -> Any:
    """The strategy in whose scope models are built and fitted.

    Several processes, as ``TF_CONFIG`` lists them, make one MultiWorkerMirroredStrategy, which waits for all of them, for up
    to an hour and deaf to SIGTERM: whoever starts them ends them by force. Several GPUs of one process make a
    MirroredStrategy, anything else is TensorFlow's default. To be called before TensorFlow does anything else. From then
    on it is deterministic: ranks that differ in a bit would drift apart.
    """
    tf.config.experimental.enable_op_determinism()
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    if sum(map(len, cluster.values())) > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def mean(value: float) -> float:
    """The mean of what every replica's process gives as ``value``: the same number, to the bit, in all of them.

    What a fit decides by, it decides by this, so that no process goes another way than its peers, which would wait for ever.
    """
    current = tf.distribute.get_strategy()
    if current.num_replicas_in_sync == 1:
        return value

    @tf.function  # type: ignore[untyped-decorator]  # tensorflow is untyped
    def reduced(own: Any) -> Any:
        return current.reduce("MEAN", current.run(lambda: own), axis=None)

    return float(reduced(tf.constant(value, tf.float64)))


def alike(digest: str) -> bool:
    """Whether every process gives the same hexadecimal ``digest``; the answer is No in all of them, or in none."""
    own = int(digest[:8], 16)
    off = abs(mean(float(own)) - own)
    return mean(off) < 0.5  # rounding of a mean of integers
