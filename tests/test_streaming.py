"""River's detectors as witnesses fire where they always did."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from detectors.rows import Float64, Rows, Schema, rows_of
from detectors.streaming import ON, ask, log_loss, mistaken

EVENTS = 50_000
AT = np.arange(1000)
STATIONARY = np.full(1000, 0.2)
SUDDEN = np.where(AT < 300, 0.2, 0.5)
GRADUAL = 0.2 + 0.3 * np.clip((AT - 300) / 500, 0, 1)
RECURRING = np.where(AT // 250 % 2 == 1, 0.5, 0.2)


def stream(chance: Float64, seed: int = 1) -> Rows:
    """Decisions whose labels are positive with ``chance``, scored at about .2."""
    rng = np.random.default_rng(seed)
    label = (rng.random(len(chance)) < chance).astype(np.float64)
    return rows_of(np.zeros((len(chance), 1)), 0.2 + rng.uniform(-0.1, 0.1, len(chance)), label)


def first(name: str, window: Rows) -> float | None:
    """The row of the window at which the detector ``name`` first fires."""
    testimony = ask(name, EVENTS, stream(np.full(2000, 0.2), seed=0), window, Schema(()))
    assert testimony.drift == (testimony.statistic is not None)
    return testimony.statistic


@pytest.mark.parametrize(
    ("name", "sudden", "gradual", "recurring"),
    [
        ("adwin", 367, 719, 303),
        ("page_hinkley", 321, 505, 272),
        ("kswin", 343, 841, 335),
        ("ddm", 370, 625, 330),
        ("hddm_a", 330, 705, 272),
        ("hddm_w", 329, 717, 272),
    ],
)
def test_each_fires_at_its_row(name: str, sudden: int, gradual: int, recurring: int) -> None:
    """The firing rows are fixed on a sudden change at 300, a gradual one from 300 on, and one that comes at 250."""
    assert [first(name, stream(chance)) for chance in (STATIONARY, SUDDEN, GRADUAL, RECURRING)] == [
        None,
        sudden,
        gradual,
        recurring,
    ]


def test_rows_without_a_label_are_counted_but_not_fed() -> None:
    """The row is one of the window as it is, though only every other label is known."""
    chance = np.repeat(SUDDEN, 2)
    window = stream(chance)
    dense, sparse = stream(SUDDEN), window
    sparse.label[:] = np.nan
    sparse.label[1::2], sparse.score[1::2] = dense.label, dense.score
    for name in set(ON) - {"kswin"}:
        index = first(name, dense)
        assert index is not None
        assert first(name, sparse) == 2 * index + 1


def test_a_detection_in_the_reference_is_none_in_the_window() -> None:
    """What changed within the reference is past: the window goes on as the reference ended."""
    reference = stream(np.where(np.arange(2000) < 800, 0.5, 0.2), seed=0)
    for name in ON:
        assert ask(name, EVENTS, reference, stream(STATIONARY), Schema(())).drift is False


@pytest.mark.parametrize("name", ["adwin", "page_hinkley", "kswin", "hddm_a", "hddm_w"])
def test_rarer_false_alarms_take_longer(name: str) -> None:
    """The more events there are to be between false alarms, the later a real change is found."""
    reference, window = stream(np.full(2000, 0.2), seed=0), stream(SUDDEN)
    soon, late = (ask(name, events, reference, window, Schema(())).statistic for events in (2000, 10_000_000))
    assert soon is not None
    assert late is None or soon <= late


def test_losses() -> None:
    """The log-loss of a certain mistake is bounded; a mistake is an outcome that was the less likely."""
    score, label = np.array([0.0, 0.5, 0.9]), np.array([1.0, 0.0, 1.0])
    np.testing.assert_allclose(log_loss(score, label), [-np.log(1e-6), np.log(2), -np.log(0.9)])
    assert mistaken(score, label).tolist() == [1.0, 0.0, 0.0]


def test_river_comes_without_what_it_does_not_need() -> None:
    """ADWIN brings neither pandas nor scikit-learn nor scipy.stats; ``river.drift`` as a whole still imports after it."""
    program = """
import sys
import numpy as np
from detectors.rows import Schema, rows_of
from detectors.streaming import ask
score = np.full(100, 0.5)
rows = rows_of(score[:, None], score, np.tile([0.0, 1.0], 50))
for name in ("adwin", "page_hinkley", "ddm", "hddm_a", "hddm_w"):
    assert ask(name, 1000, rows, rows, Schema(("x",))).drift is False
assert not {"pandas", "sklearn", "scipy.stats", "river.drift"} & set(sys.modules)
import river.drift
assert river.drift.ADWIN is sys.modules["river.drift.adwin"].ADWIN
assert river.drift.datasets.__name__ == "river.drift.datasets"
assert ask("kswin", 1000, rows, rows, Schema(("x",))).drift is False
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
