"""The yardstick of the comparison of delays: Page's CUSUM, told the error rate before the change and the one after it.

Of all that see the errors and raise false alarms as seldom, none is sooner in the worst case (Moustakides, "Optimal
stopping times for detecting changes in distributions", 1986); on average others may be, by little.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tests.bench.drift_rivals import RUN, seeded

STREAMS, STEADY = 300, 15_000  # streams without change, and events of each
HIGHEST = 9.0  # threshold, nats
STEPS = 9


def threshold_of(base: float, to: float, scale: float) -> float:
    """The threshold with a false alarm in ``RUN`` events."""
    low, high = 1.0, HIGHEST
    for _ in range(STEPS):
        middle = (low + high) / 2
        bits = seeded(base, 7).random((STEADY, int(STREAMS * scale))) < base
        if bits.size < RUN * _alarms(bits, base, to, middle):
            low = middle
        else:
            high = middle
    return high


def _alarms(bits: NDArray[np.bool_], base: float, to: float, threshold: float) -> int:
    evidence, alarms = np.zeros(bits.shape[1]), 0
    for step in _steps(bits, base, to):
        evidence = np.maximum(evidence, 0) + step
        hit = evidence >= threshold
        alarms += int(hit.sum())
        evidence[hit] = 0
    return alarms


def first(bits: NDArray[np.bool_], base: float, to: float, threshold: float) -> NDArray[np.int64]:
    """The index of the first alarm in each column of ``bits`` [n, streams], n where there is none."""
    evidence, found = np.zeros(bits.shape[1]), np.full(bits.shape[1], len(bits))
    for index, step in enumerate(_steps(bits, base, to)):
        evidence = np.maximum(evidence, 0) + step
        hit = evidence >= threshold
        found[hit] = np.minimum(found[hit], index)
    return found


def _steps(bits: NDArray[np.bool_], base: float, to: float) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.where(bits, math.log(to / base), math.log((1 - to) / (1 - base)))
    return found
