"""The e-detector: its promise, its speed, and that a restart does not show."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.rows import Float64
from detectors.sequential import EDetector


def one_channel(share: float) -> EDetector:
    """A detector of a 0/1 stream whose share of ones rises above ``share``."""
    deviation = np.sqrt(share * (1 - share))
    return EDetector(np.array([-share / deviation]), np.ones(1))


def standard(values: Float64, share: float) -> Float64:
    """0/1 ``values`` [n] as the detector's channel [n, 1]."""
    return np.asarray((values - share)[:, None] / np.sqrt(share * (1 - share)))


def fires(detector: EDetector, values: Float64, threshold: float) -> int | None:
    """The index at which the evidence first reaches ``threshold``."""
    for at, factors in enumerate(detector.factors(values)):
        if detector.add(factors, at) >= threshold:
            return at
    return None


def run_length(share: float, threshold: float, runs: int) -> Float64:
    """Lengths [runs] of the runs until a false alarm."""
    random = np.random.default_rng(1)
    detector, since = one_channel(share), 0
    found: list[int] = []
    while len(found) < runs:
        factors = detector.factors(standard((random.random(1000) < share).astype(np.float64), share))
        for at in range(1000):
            since += 1
            if detector.add(factors[at], since) >= threshold:
                found.append(since)
                detector.reset()
                since = 0
    return np.array(found[:runs], np.float64)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
def test_false_alarms_are_as_rare_as_promised(share: float) -> None:
    """The mean time to a false alarm is no less than the threshold, by the lower end of its confidence interval."""
    lengths = run_length(share, 200.0, 300)
    assert lengths.mean() - 1.96 * lengths.std() / np.sqrt(len(lengths)) >= 200


def sudden(random: np.random.Generator) -> Float64:
    """A rate that jumps from .2 to .4 at 1000."""
    return (random.random(2000) < np.where(np.arange(2000) < 1000, 0.2, 0.4)).astype(np.float64)


def gradual(random: np.random.Generator) -> Float64:
    """A rate that rises from .2 at 1000 to .4 at 2000."""
    return (random.random(3000) < np.interp(np.arange(3000), [1000, 2000], [0.2, 0.4])).astype(np.float64)


def recurring(random: np.random.Generator) -> Float64:
    """A rate of .2 with a spell of .4 between 1000 and 1300, and again from 2000 on."""
    at = np.arange(3000)
    return (random.random(3000) < np.where(((at >= 1000) & (at < 1300)) | (at >= 2000), 0.4, 0.2)).astype(
        np.float64
    )


@pytest.mark.parametrize(("stream", "index"), [(sudden, 1027), (gradual, 1328), (recurring, 1027)])
def test_it_fires_where_it_always_did(stream: object, index: int) -> None:
    """The firing index on seeded streams is fixed, so that any change of behaviour shows."""
    assert callable(stream)
    values = standard(stream(np.random.default_rng(0)), 0.2)
    assert fires(one_channel(0.2), values, 10_000.0) == index


def test_the_change_is_dated() -> None:
    """The estimated time of the change lies near the true one, and well before the alarm."""
    values = standard(sudden(np.random.default_rng(0)), 0.2)
    detector = one_channel(0.2)
    alarm = fires(detector, values, 1e6)
    assert alarm is not None
    assert abs(detector.change() - 1000) < 50 < alarm - 1000


def test_a_restored_detector_goes_on_as_if_nothing_had_happened() -> None:
    """Evidence after a restart is equal to the bit."""
    values = standard(sudden(np.random.default_rng(3)), 0.2)
    whole, first = one_channel(0.2), one_channel(0.2)
    for at, factors in enumerate(whole.factors(values[:700])):
        whole.add(factors, at)
        first.add(factors, at)
    second = one_channel(0.2)
    second.restore(first.state())
    rest = whole.factors(values[700:])
    assert [whole.add(each, 0) for each in rest] == [second.add(each, 0) for each in rest]
    assert (second.rows, second.change()) == (whole.rows, whole.change())


def test_evidence_is_the_sum_over_channels() -> None:
    """What a row returns is what the channels add up to, by their weights."""
    detector = EDetector(np.array([-1.0, -2.0, -0.5]), np.array([0.5, 0.25, 0.25]))
    random = np.random.default_rng(0)
    for at in range(50):
        total = detector.add(detector.factors(random.uniform(-0.5, 1, (1, 3)))[0], at)
    assert total == pytest.approx(float(detector.evidence().sum()))


def test_no_value_can_turn_the_evidence_negative() -> None:
    """Even the lowest values that the channels can take leave the evidence positive."""
    lowest = np.array([-0.05, -1.0, -30.0])
    detector = EDetector(lowest, np.full(3, 1 / 3))
    for at in range(1000):
        assert detector.add(detector.factors(lowest[None])[0], at) > 0
