"""Other detectors on the drift protocol's streams: river's on the frozen model's mistakes, alibi-detect's on windows.

Those of river have their default settings, which are what the protocol's authors call so, and start anew by themselves.
KSDrift compares windows of ``WINDOW`` rows with the reference, all columns, Bonferroni over them; after an alarm it gets
the ``GATHERED`` rows that follow as its reference, as our panel does, because it would raise one alarm a window for ever.
Its first reference is as large: it takes milliseconds a column.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import drift

from detectors.rows import Float64, Rows
from detectors.streaming import mistaken
from detectors.windowed import _alibi

river: Any = drift  # half of it is typed, which to mypy is worse than nothing

WINDOW = 500
GATHERED = 2000
# Of each window, and what leaves 5 % over a hundred windows.
LEVELS = {"KSDrift .05": 0.05, "KSDrift .0005": 0.0005}
RIVER: dict[str, Callable[[], Any]] = {
    "ADWIN": river.ADWIN,
    "DDM": river.binary.DDM,
    "EDDM": river.binary.EDDM,
    "HDDM_A": river.binary.HDDM_A,
    "HDDM_W": river.binary.HDDM_W,
    "PageHinkley": river.PageHinkley,
}


def alarms(reference: Rows, rows: Rows) -> dict[str, list[int]]:
    """The times of the rows at which each peer raises an alarm; labels all known."""
    before = mistaken(reference.score, reference.label).astype(np.int64).tolist()
    after = mistaken(rows.score, rows.label).astype(np.int64).tolist()
    times = rows.time.tolist()
    found = {name: _streaming(make(), before, after, times) for name, make in RIVER.items()}
    if importlib.util.find_spec("alibi_detect") is not None:
        found |= {
            name: _windows(reference.numeric[-GATHERED:], rows.numeric, rows.time, level)
            for name, level in LEVELS.items()
        }
    return found


def _streaming(detector: Any, before: list[int], after: list[int], times: list[int]) -> list[int]:
    for value in before:
        detector.update(value)
    found = []
    for value, time in zip(after, times, strict=True):
        detector.update(value)
        if detector.drift_detected:
            found.append(time)
    return found


def _windows(reference: Float64, values: Float64, times: NDArray[np.int64], level: float) -> list[int]:
    found: list[int] = []
    detector, begin = ks_drift(reference, level), 0
    while begin + WINDOW <= len(values):
        end = begin + WINDOW
        if detector.predict(values[begin:end])["data"]["is_drift"]:
            found.append(int(times[end - 1]))
            begin, end = end, end + GATHERED
            if end > len(values):
                break
            detector = ks_drift(values[begin:end], level)
        begin = end
    return found


def ks_drift(reference: Float64, level: float) -> Any:
    """alibi-detect's test of every column against ``reference`` [n, F]."""
    return _alibi().KSDrift(reference, p_val=level)
