"""How soon a rise of the error rate is found by detectors that raise false alarms equally seldom.

Ours is one channel of :mod:`detectors.sequential`, in standard deviations and with the margin of
:mod:`detectors.channels`, around an error rate that is estimated from ``REFERENCE`` events; river's need no reference.
Each is tuned, by the one parameter that sets its sensitivity, to a false alarm in ``RUN`` events without change, as
measured here: events by alarms on a long stream, started anew after each. Ours is watched for equally long over many
references, so that one with too low an error rate counts with all of its false alarms (its mean run is longer: of those
with too high a rate some never end), and it has no more of them than any detector that it is compared with.

Over the first ``BEFORE`` events, too, no more than twice that rate is allowed. Without this DDM would be at its best
where half of its runs end within some hundred events and a few last for ever: its mean run is ``RUN`` when four streams
in five are alarmed before the change comes, and the others are those on which it happens to be quick.

Streams with an alarm before the change do not count. How low delays can be at all, an oracle tells: CUSUM that knows the
error rate before the change and after it, each of which the others have to find out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.channels import margin
from detectors.sequential import EDetector
from tests.bench import drift_oracle
from tests.bench.drift_pool import Spread
from tests.bench.drift_rivals import BEFORE, PEERS, RUN, Random, Search, Tuned, first, seeded, tune

REFERENCE = 5000
PATIENCE = 6000  # events after it; who has not found it by then counts as if at that
CELLS = {0.2: (0.25, 0.3, 0.4), 0.05: (0.08, 0.1, 0.2)}
OURS, ORACLE = "eddyline", "CUSUM, told both rates"
REFERENCES, STEADY = 400, 15_000  # of ours without change, and events of each
CHUNK = 500


class _Delays(msgspec.Struct, frozen=True):
    tuned: Tuned
    to: float
    streams: int


class Found(msgspec.Struct, frozen=True):
    """What one detector did in one cell: mean delay, share not found, streams with a false alarm before the change."""

    name: str
    base: float
    to: float
    delay: float
    missed: float
    early: int
    error: float  # standard error of the delay


def measure(spread: Spread, streams: int, scale: float = 1.0) -> dict[str, Any]:
    """Figures by name: ``delay_ratio``, and what it is made of; ``streams`` in a cell, tuning ``scale`` times as long."""
    peers = spread(tune, [Search(name, base, scale) for base in CELLS for name in PEERS])
    found = spread(_delays, [_Delays(each, to, streams) for each in peers for to in CELLS[each.base]])
    run = {
        base: max([RUN, *(each.run for each in peers if each.base == base and _near(each))]) for base in CELLS
    }
    tuned = spread(_tune_ours, [(base, run[base], scale) for base in CELLS])
    ours = spread(_delays, [_Delays(each, to, streams) for each in tuned for to in CELLS[each.base]])
    bounds = spread(_oracle, [(each.base, each.to, streams, scale) for each in ours])
    cells: list[dict[str, Any]] = []
    for mine, bound in zip(ours, bounds, strict=True):
        others = [each for each in found if (each.base, each.to) == (mine.base, mine.to)]
        best = min(others, key=lambda each: each.delay)
        error = math.hypot(mine.error / mine.delay, best.error / best.delay)
        cells.append(
            {
                "from": mine.base,
                "to": mine.to,
                "ours": mine.delay,
                "best": best.name,
                "best_delay": best.delay,
                "ratio": mine.delay / best.delay,
                "error": error,
                "least": bound.delay / best.delay,
            }
        )
    return {
        "delay_ratio": _geometric_mean([each["ratio"] for each in cells]),
        "delay_ratio_error": math.hypot(*(each["error"] for each in cells)) / len(cells),  # of its logarithm
        "delay_ratio_least": _geometric_mean([each["least"] for each in cells]),
        "delay_ratio_worst": max(each["ratio"] for each in cells),
        "delay_cells": cells,
        "delay_tuned": [msgspec.to_builtins(each) | {"run": each.run} for each in (*tuned, *peers)],
        "delay_found": [msgspec.to_builtins(each) for each in (*ours, *bounds, *found)],
    }


def _near(tuned: Tuned) -> bool:
    return RUN / 1.5 < tuned.run < RUN * 1.5


def _geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _tune_ours(wanted: tuple[float, float, float]) -> Tuned:
    """The least threshold of a grid with no more false alarms than a detector of that run has."""
    base, run, scale = wanted
    for threshold in np.geomspace(RUN / 4, RUN, 30).tolist():
        found = Tuned(OURS, base, threshold, *_steady(base, threshold, scale))
        if found.run >= run:
            break
    return found


class _Ours:
    """One channel beside another, each a stream of errors with a reference of its own; all take a step at a time."""

    def __init__(self, base: float, streams: int, random: Random) -> None:
        rate = random.binomial(REFERENCE, base, streams) / REFERENCE
        self._rate, self._sd = rate, np.sqrt(rate * (1 - rate))
        self._margin = margin(1, REFERENCE)
        self.detector = EDetector(-rate / self._sd - self._margin, np.full(streams, 1 / streams))

    def alarms(self, bits: NDArray[np.bool_], threshold: float) -> Iterator[NDArray[np.int64]]:
        """Step by step through ``bits`` [n, streams], the streams whose evidence has reached ``threshold``."""
        factors = self.detector.factors((bits - self._rate) / self._sd - self._margin)
        for row in factors:
            self.detector.add(row, 0)
            yield np.flatnonzero(self.detector.levels() >= threshold)

    def restart(self, streams: NDArray[np.int64]) -> None:
        """Let ``streams`` forget what they saw."""
        state = self.detector.state()
        sums = np.frombuffer(state.sums).reshape(len(self._rate), -1).copy()
        sums[streams] = 0
        self.detector.restore(msgspec.structs.replace(state, sums=sums.tobytes()))


def _steady(base: float, threshold: float, scale: float) -> tuple[int, int, float]:
    """Events without change, the false alarms among them, and the share of references with one in the first ``BEFORE``."""
    random = seeded(base, 3)
    references = int(REFERENCES * scale)
    ours, alarms, early = _Ours(base, references, random), 0, np.zeros(references, np.bool_)
    for begin in range(0, STEADY, CHUNK):
        for hit in ours.alarms(random.random((CHUNK, references)) < base, threshold):
            if len(hit):
                alarms += len(hit)
                early[hit] |= begin < BEFORE
                ours.restart(hit)
    return references * STEADY, alarms, float(early.mean())


def _delays(task: _Delays) -> Found:
    tuned = task.tuned
    bits = _bits(tuned.base, task.to, task.streams)
    if tuned.name == OURS:
        return _found(OURS, tuned.base, task.to, _first_of_ours(tuned, bits))
    make = PEERS[tuned.name].make
    alarms = [first(make(tuned.parameter), row) for row in bits.astype(np.int64).tolist()]
    return _found(tuned.name, tuned.base, task.to, np.array(alarms))


def _oracle(task: tuple[float, float, int, float]) -> Found:
    base, to, streams, scale = task
    threshold = drift_oracle.threshold_of(base, to, scale)
    alarms = drift_oracle.first(_bits(base, to, streams).T, base, to, threshold)
    return _found(ORACLE, base, to, alarms)


def _bits(base: float, to: float, streams: int) -> NDArray[np.bool_]:
    """Errors [streams, n] with the change in them, the same for every detector."""
    rate = np.where(np.arange(BEFORE + PATIENCE) < BEFORE, base, to)
    found: NDArray[np.bool_] = seeded(base, to, 4).random((streams, len(rate))) < rate
    return found


def _found(name: str, base: float, to: float, alarms: NDArray[np.int64]) -> Found:
    delays = alarms[alarms >= BEFORE] - BEFORE
    return Found(
        name=name,
        base=base,
        to=to,
        delay=float(delays.mean()),
        missed=float((delays == PATIENCE).mean()),
        early=int((alarms < BEFORE).sum()),
        error=float(delays.std() / math.sqrt(len(delays))),
    )


def _first_of_ours(tuned: Tuned, bits: NDArray[np.bool_]) -> NDArray[np.int64]:
    streams, events = bits.shape
    ours = _Ours(tuned.base, streams, seeded(tuned.base, 5))
    alarms = np.full(streams, events)
    for begin in range(0, events, CHUNK):
        for step, hit in enumerate(ours.alarms(bits[:, begin : begin + CHUNK].T, tuned.parameter)):
            if len(hit):
                alarms[hit] = np.minimum(alarms[hit], begin + step)
                ours.restart(hit)
    return alarms
