"""Facts about stream/quality.py: measures of closed decisions, by model version and slice."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from model.evaluation import auc, calibration_error, log_loss
from model.usecase import parse
from stream.pending import Open
from stream.quality import MODELS, OTHER, VALUES, Cohort, Quality
from tests.events import USECASE

DECLARED = parse(USECASE + '[quality]\nslices = ["plan"]\nexamples = 1000\n')


def closed(n: int, seed: int = 0, model: str = "1", plan: str | None = "a", shift: float = 0.0) -> list[Open]:
    """``n`` closed decisions with calibrated scores, but for a ``shift`` of the label's probability."""
    random = np.random.default_rng(seed)
    scores = random.beta(2, 2, n).astype(np.float32)
    labels = random.random(n) < np.clip(scores + shift, 0, 1)
    return [
        Open(
            id=f"d{number}", type="offer", user="ann", item=None, offset=number, time=0, closes=0, due=0,
            score=score, model=model, slices=(plan,), record=b"", label=int(label),
        )
        for number, (score, label) in enumerate(zip(scores.tolist(), labels.tolist(), strict=True))
    ]  # fmt: skip


def arrays(entries: list[Open]) -> tuple[np.ndarray[tuple[int], np.dtype[np.float32]], ...]:
    """Labels and scores [n]."""
    return (
        np.array([entry.label for entry in entries], np.float32),
        np.array([entry.score for entry in entries], np.float32),
    )


def test_the_measures_are_those_of_the_latest_decisions() -> None:
    """With far fewer decisions than are kept, AUC, log-loss and calibration equal the exact ones nearly."""
    declared = msgspec.structs.replace(
        DECLARED, quality=msgspec.structs.replace(DECLARED.quality, examples=10**9)
    )
    quality, entries = Quality(declared), closed(5000)
    for begin in range(0, 5000, 333):
        quality.observe(entries[begin : begin + 333])
    measured, (label, score) = quality.measures()[Cohort("1")], arrays(entries)
    assert measured.decisions == pytest.approx(5000, rel=1e-3)
    assert measured.base_rate == pytest.approx(label.mean(), abs=1e-4)
    assert measured.auc == pytest.approx(auc(label, score), abs=0.002)
    assert measured.log_loss == pytest.approx(log_loss(label, score), abs=1e-4)
    assert measured.calibration_error < 0.03
    assert calibration_error(label, score) < 0.03


def test_older_decisions_fade() -> None:
    """After a change, a few times as many decisions as are kept show the new quality alone."""
    quality = Quality(DECLARED)
    quality.observe(closed(5000))
    good = quality.measures()[Cohort("1")]
    quality.observe(closed(5000, seed=1, shift=-0.3))
    bad = quality.measures()[Cohort("1")]
    assert good.calibration_error < 0.06
    assert bad.calibration_error > 0.2
    assert bad.decisions == pytest.approx(1000, rel=0.01)
    assert bad.base_rate < good.base_rate - 0.2


def test_batches_do_not_matter() -> None:
    """However decisions come together, the measures are the same but for rounding."""
    entries = closed(3000)
    one, many = Quality(DECLARED), Quality(DECLARED)
    one.observe(entries)
    for entry in entries:
        many.observe([entry])
    left, right = one.measures()[Cohort("1")], many.measures()[Cohort("1")]
    np.testing.assert_allclose(msgspec.structs.astuple(left), msgspec.structs.astuple(right), rtol=1e-9)


def test_versions_and_slices_are_apart() -> None:
    """Each model version is measured by itself, and so is each value of a slice, missing included."""
    quality = Quality(DECLARED)
    added = quality.observe([*closed(100), *closed(50, model="2", plan=None)])
    assert {
        Cohort("1"): 100, Cohort("1", "plan", "a"): 100, Cohort("2"): 50, Cohort("2", "plan", "missing"): 50,
    } == {cohort: each.decisions for cohort, each in added.items()}  # fmt: skip
    label, score = arrays(closed(100))
    assert added[Cohort("1")].positives == label.sum()
    assert added[Cohort("1")].score == pytest.approx(float(score.sum()), rel=1e-6)
    assert added[Cohort("1")].log_loss == pytest.approx(100 * log_loss(label, score), rel=1e-5)


def test_what_is_measured_is_bounded() -> None:
    """Many values of a slice are measured together, and the version longest without decisions is forgotten."""
    quality = Quality(DECLARED)
    for number in range(VALUES + 5):
        quality.observe(closed(2, plan=f"p{number}"))
    values = {cohort.value for cohort in quality.measures() if cohort.slice}
    assert VALUES + 1 == len(values)
    assert OTHER in values
    for number in range(MODELS + 1):
        quality.observe(closed(1, model=f"m{number}"))
    assert {f"m{number}" for number in range(1, MODELS + 1)} == {
        cohort.model for cohort in quality.measures()
    }


def test_one_label_alone_has_no_auc() -> None:
    """Without a pair to order there is no AUC; the rest is there."""
    quality = Quality(DECLARED)
    quality.observe([entry for entry in closed(100) if entry.label])
    measured = quality.measures()[Cohort("1")]
    assert math.isnan(measured.auc)
    assert measured.base_rate == 1
