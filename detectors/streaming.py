"""River's detectors as witnesses: they watch the loss of one decision after another. Only this module knows river.

Asked about a window they are warmed up on the reference, where a detection only makes them start anew, and then fed the
window. They drift if they detect there; the statistic is the row of the window at which they first do. River is imported
when one of them is asked first. :mod:`detectors.witnesses` calls this.
"""

from __future__ import annotations

import importlib
import math
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from detectors.rows import Float64, Rows, Schema
from detectors.verdict import Testimony

ON = dict.fromkeys(("adwin", "page_hinkley", "kswin", "ddm", "hddm_a", "hddm_w"), "loss")

LABELS = 50  # known ones, fewer of which in reference or window tell nothing
WARM_UP = 5000  # values of the reference: 0.1 s at most
CLOCK = 32  # values from one check of ADWIN to the next
KSWIN_WINDOW, KSWIN_RECENT = (
    500,
    150,
)  # values that it remembers, and of them those that are compared with the others
ALLOWANCE = 0.1  # standard deviations of the loss that Page-Hinkley lets it drift: half the shift that is worth knowing
_importing = threading.Lock()


def ask(
    name: str, events_between_false_alarms: int, reference: Rows, window: Rows, _schema: Schema
) -> Testimony:
    """What the detector ``name`` says of the window; rows whose label is not known are left out."""
    make, values_of, note = _DETECTORS[name]
    before, known = _values(reference, values_of), np.flatnonzero(~np.isnan(window.label))
    if min(len(before), len(known)) < LABELS:
        return Testimony(
            name,
            ON[name],
            None,
            note=f"{len(before)} and {len(known)} labels, of which {LABELS} each are needed",
        )
    after = _values(window, values_of)
    if values_of is log_loss:
        # In standard deviations of the reference, so that thresholds hold whatever the base rate.
        centre, spread = before.mean(), before.std() or 1.0
        before, after = (before - centre) / spread, (after - centre) / spread
    found = first_detection(make(events_between_false_alarms), before, after)
    row = None if found is None else float(known[found])
    return Testimony(name, ON[name], found is not None, statistic=row, note=note)


def first_detection(detector: Any, before: Float64, after: Float64) -> int | None:
    """Index in ``after`` of the first detection of river's ``detector``, warmed up on ``before``; None if none."""
    warm_up = (
        KSWIN_WINDOW if type(detector).__name__ == "KSWIN" else WARM_UP
    )  # KSWIN forgets what came earlier
    for value in before[-warm_up:].tolist():
        detector.update(value)  # after a detection, river's detectors start anew by themselves
    for index, value in enumerate(after.tolist()):
        detector.update(value)
        if detector.drift_detected:
            return index
    return None


def log_loss(score: Float64, label: Float64) -> Float64:
    """Log-loss of each row; scores are kept 1e-6 away from 0 and 1, so that one row weighs 14 at most."""
    score = np.clip(score, 1e-6, 1 - 1e-6)
    loss: Float64 = -np.log(np.where(label > 0.5, score, 1 - score))
    return loss


def mistaken(score: Float64, label: Float64) -> Float64:
    """1 where the likelier outcome did not happen, else 0."""
    wrong: Float64 = ((score > 0.5) != (label > 0.5)).astype(np.float64)
    return wrong


def _values(rows: Rows, of: Callable[[Float64, Float64], Float64]) -> Float64:
    known = ~np.isnan(rows.label)
    return of(rows.score[known], rows.label[known])


def _river(module: str) -> Any:
    """River's ``module`` of ``river.drift``, without what the package ``river.drift`` imports besides.

    Its sample data sets bring pandas and scikit-learn: 3.6 s and 143 MB, where ADWIN itself takes 0.04 s and 1 MB. So a
    hollow package stands in for it while the module is imported, and goes again: who imports ``river.drift`` later gets
    the real one, with these same classes.
    """
    name = f"river.drift.{module}"
    with _importing:
        if name in sys.modules or "river.drift" in sys.modules:
            return importlib.import_module(name)
        hollow = types.ModuleType("river.drift")
        hollow.__path__ = [f"{path}/drift" for path in importlib.import_module("river").__path__]
        sys.modules["river.drift"] = hollow
        try:
            return importlib.import_module(name)
        finally:
            if sys.modules.get("river.drift") is hollow:
                del sys.modules["river.drift"]


def _adwin(events: int) -> Any:
    """Bifet and Gavaldà, "Learning from time-changing data with adaptive windowing", SDM 2007.

    A check of a stream without change detects with probability ``delta`` at most.
    """
    return _river("adwin").ADWIN(delta=min(0.002, CLOCK / events), clock=CLOCK)


def _page_hinkley(events: int) -> Any:
    """Page, "Continuous inspection schemes", Biometrika 1954; the threshold by Siegmund, "Sequential analysis", 1985.

    The mean run of a one-sided CUSUM of normal values with allowance k and threshold h to a false alarm is
    (exp(a) - a - 1) / 2k² with a = 2k (h + 1.166). It is to be twice ``events``, since both sides are watched.
    """
    exponent = 1.0
    for _ in range(50):  # a fixed point of a contraction: 50 steps are exact for every number of events
        exponent = math.log(4 * ALLOWANCE**2 * events + exponent + 1)
    threshold = exponent / (2 * ALLOWANCE) - 1.166
    return _river("page_hinkley").PageHinkley(delta=ALLOWANCE, threshold=threshold)


def _kswin(events: int) -> Any:
    """Raab, Heusinger and Schleif, "Reactive soft prototype computing for concept drift streams", Neurocomputing 2020.

    Each value is a test at ``alpha``; of the 30 values of its default it sees nothing but the grossest change at an
    ``alpha`` as small as that.
    """
    return _river("kswin").KSWIN(
        alpha=min(0.005, 1 / events), window_size=KSWIN_WINDOW, stat_size=KSWIN_RECENT, seed=0
    )


def _ddm(_events: int) -> Any:
    """Gama et al., "Learning with drift detection", SBIA 2004."""
    return _river("binary").DDM()


def _hddm_a(events: int) -> Any:
    """Frías-Blanco et al., "Online and non-parametric drift detection methods based on Hoeffding's bounds", TKDE 2014."""
    return _river("binary").HDDM_A(drift_confidence=min(0.001, 1 / events))


def _hddm_w(events: int) -> Any:
    """HDDM with a weighted average: the same paper."""
    return _river("binary").HDDM_W(drift_confidence=min(0.001, 1 / events))


_DETECTORS: dict[str, tuple[Callable[[int], Any], Callable[[Float64, Float64], Float64], str]] = {
    "adwin": (_adwin, log_loss, ""),
    "page_hinkley": (_page_hinkley, log_loss, ""),
    "kswin": (_kswin, log_loss, ""),
    "ddm": (_ddm, mistaken, "three standard deviations: it promises no rate of false alarms"),
    "hddm_a": (_hddm_a, mistaken, ""),
    "hddm_w": (_hddm_w, mistaken, ""),
}
