"""The rivals of the comparison of delays: river's detectors of a rise, and how they are tuned to a rate of false alarms.

:mod:`tests.bench.drift_delay` says what the rate is about.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import numpy as np

from tests.bench.drift_peers import river

RUN = 10_000  # events between false alarms
BEFORE = 1000  # events before the change
EARLY = 2 * (1 - math.exp(-BEFORE / RUN))  # twice what that rate comes to: .19
TUNING = 1_000_000  # events of the long stream; a fifth as many are in fresh ones of ``BEFORE``
STEPS = 7
CLOSE = 0.06  # of RUN: the search ends; a hundred alarms have an error of a tenth

Random = np.random.Generator


class Rising:
    """ADWIN that raises an alarm only if its mean rose: the others look for that alone."""

    def __init__(self, delta: float) -> None:
        self._adwin = river.ADWIN(delta=delta)
        self.drift_detected = False

    def update(self, value: int) -> None:
        """Take in ``value``."""
        before = self._adwin.estimation
        self._adwin.update(value)
        self.drift_detected = self._adwin.drift_detected and self._adwin.estimation > before


class Peer(msgspec.Struct, frozen=True):
    """A detector of river and the range of the parameter that is tuned; more of it is less sensitive if ``rising``."""

    make: Callable[[float], Any]
    low: float
    high: float
    rising: bool


PEERS: dict[str, Peer] = {
    "ADWIN": Peer(Rising, 0.1, 0.999, rising=False),
    "DDM": Peer(lambda sd: river.binary.DDM(drift_threshold=sd, warning_threshold=sd), 1.8, 5.0, rising=True),
    "HDDM_A": Peer(
        lambda p: river.binary.HDDM_A(drift_confidence=p, warning_confidence=p), 2e-3, 0.15, rising=False
    ),
    "HDDM_W": Peer(
        lambda p: river.binary.HDDM_W(drift_confidence=p, warning_confidence=p), 2e-5, 0.1, rising=False
    ),
    "Page-Hinkley": Peer(lambda most: river.PageHinkley(threshold=most, mode="up"), 8.0, 80.0, rising=True),
}


class Tuned(msgspec.Struct, frozen=True):
    """A detector as tuned: its parameter, events and false alarms of the long stream, and alarmed share of the fresh."""

    name: str
    base: float
    parameter: float
    events: int
    alarms: int
    early: float

    @property
    def run(self) -> float:
        """Events between false alarms."""
        return self.events / max(self.alarms, 1)


class Search(msgspec.Struct, frozen=True):
    """Which rival to tune to which error rate."""

    name: str
    base: float
    scale: float  # of the events, for a quick look


def tune(search: Search) -> Tuned:
    """Bisect the logarithm of the parameter."""
    peer = PEERS[search.name]
    low, high = math.log(peer.low), math.log(peer.high)
    long = _bits(search.base, int(TUNING * search.scale), 1)
    fresh = _bits(search.base, len(long) // 5, 2)
    found = []
    for _ in range(STEPS):
        parameter = math.exp((low + high) / 2)
        make = partial(peer.make, parameter)
        alarms, early = _alarms(make, long), _early(make, fresh)
        found.append(Tuned(search.name, search.base, parameter, len(long), alarms, early))
        too_many = found[-1].run < RUN or early > EARLY
        if abs(found[-1].run / RUN - 1) < CLOSE and early <= EARLY:
            break
        if too_many == peer.rising:
            low = math.log(parameter)
        else:
            high = math.log(parameter)
    allowed = [each for each in found if each.early <= EARLY] or found[-1:]
    return min(allowed, key=lambda each: abs(math.log(each.run / RUN)))


def _alarms(make: Callable[[], Any], values: list[int]) -> int:
    detector, alarms = make(), 0
    for value in values:
        detector.update(value)
        if detector.drift_detected:
            alarms += 1
            detector = make()
    return alarms


def _early(make: Callable[[], Any], values: list[int]) -> float:
    """The share of fresh streams of ``BEFORE`` events with an alarm."""
    streams = [values[begin : begin + BEFORE] for begin in range(0, len(values), BEFORE)]
    return sum(first(make(), stream) < len(stream) for stream in streams) / len(streams)


def _bits(base: float, events: int, seed: int) -> list[int]:
    found: list[int] = (seeded(base, seed).random(events) < base).astype(np.int64).tolist()
    return found


def first(detector: Any, values: list[int]) -> int:
    """The index of the first alarm; how many values there are, if there is none."""
    for index, value in enumerate(values):
        detector.update(value)
        if detector.drift_detected:
            return index
    return len(values)


def seeded(*numbers: float) -> Random:
    """Random numbers that depend on ``numbers``."""
    return np.random.default_rng([round(1000 * number) for number in numbers])
