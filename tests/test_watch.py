"""Facts about deploy/watch.py: what is worse is told soon, what is not hardly ever, however often one looks."""

from __future__ import annotations

import doctest

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from deploy import transitions, watch
from deploy.release import Role
from deploy.watch import (
    Evidence,
    Other,
    Pair,
    Step,
    begun,
    compared,
    difference,
    extended,
    judged,
    judged_correction,
    of_correction,
)
from model.usecase import Retrain
from retrain.watching import Comparison
from stream.scoring import Other as ByOther
from stream.scoring import Score
from tests.trainers import V2, V3, first, why
from tests.variants import correction

POLICY = Retrain(stage_labels=100, watch_labels=1000, margin=0.005)


def differences(seed: int, n: int, noise: float) -> NDArray[np.float64]:
    """What a model whose log-odds are off by ``noise`` loses on ``n`` decisions against one that knows the odds."""
    random = np.random.default_rng(seed)
    odds = random.normal(size=n)
    label = random.random(n) < 1 / (1 + np.exp(-odds))
    off = odds + noise * random.normal(size=n)
    scores = 1 / (1 + np.exp(-np.stack([off, odds])))  # [2, n]
    return np.array([difference(int(y), a, b) for y, a, b in zip(label, scores[0], scores[1], strict=True)])


def fired(found: NDArray[np.float64], step: int = 50) -> int | None:
    """After how many pairs the model is called worse, looking every ``step``."""
    evidence = Evidence()
    for begin in range(0, len(found), step):
        evidence = extended(evidence, found[begin : begin + step])
        if evidence.worse:
            return evidence.pairs
    return None


@pytest.mark.parametrize("law", ["normal", "heavy", "coin"])
def test_a_model_that_is_not_worse_is_called_so_in_one_run_of_a_hundred(law: str) -> None:
    """Of 300 runs of 5000 pairs with mean 0, watched at every pair, at most 1 % and what chance adds raise an alarm."""
    alarms = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        drawn = {
            "normal": random.normal(0, 0.3, 5000),
            "heavy": random.choice([-1.0, 0.1], 5000, p=[1 / 11, 10 / 11]),
            "coin": random.choice([-0.05, 0.05], 5000),
        }[law]
        alarms += extended(Evidence(), drawn).worse
    assert alarms <= 8  # 3 are expected at most; 8 or fewer with a probability of 99.6 %


def test_two_equally_noisy_models_are_never_called_worse() -> None:
    """Models with errors of the same size, and not the same errors, are not told apart in 20 runs."""
    found = [fired(differences(seed, 4000, 0.4) - differences(seed + 100, 4000, 0.4)) for seed in range(20)]
    assert found == [None] * 20


@pytest.mark.parametrize(
    ("noise", "expected"),
    [(0.5, [850, 400, 1800, 550]), (1.0, [150, 250, 250, 300]), (3.0, [100, 150, 100, 200])],
)
def test_a_worse_model_is_found_at_these_pairs(noise: float, expected: list[int]) -> None:
    """A model that loses .03, .10 or .4 nats a decision is told after about 900, 250 and 140 of them."""
    assert [fired(differences(seed, 20_000, noise)) for seed in range(4)] == expected


def test_how_pairs_are_divided_changes_nothing() -> None:
    """One by one, or all at once: the same evidence."""
    found = differences(1, 300, 0.5)
    one_by_one = Evidence()
    for each in found:
        one_by_one = extended(one_by_one, np.array([each]))
    whole = extended(Evidence(), found)
    assert one_by_one.pairs == whole.pairs
    assert one_by_one.highest == pytest.approx(whole.highest)
    assert one_by_one.wealth == pytest.approx(whole.wealth)
    assert extended(whole, np.array([])) == whole


def test_one_impossible_decision_does_not_decide() -> None:
    """A score of 0 for what happened counts as one nat, whatever its log-loss."""
    assert difference(1, 0.0, 0.9) == pytest.approx(6.8, abs=0.01)
    assert not extended(Evidence(), np.array([difference(1, 0.0, 0.9)])).worse
    assert extended(Evidence(), np.array([50.0])).mean == 1.0


def test_a_pair_is_compared_whichever_of_the_two_was_served() -> None:
    """A canary's pairs have the challenger's score first, those of a shadow the live model's."""
    shadow = Pair("d", "v1", 0.2, 1, None, Other("v2", 0.6))
    canary = Pair("d", "v2", 0.6, 1, None, Other("v1", 0.2))
    assert compared(shadow, "v2", "v1") == compared(canary, "v2", "v1") == difference(1, 0.6, 0.2)
    assert compared(shadow, "v1", "v2") == difference(1, 0.2, 0.6)
    assert compared(shadow, "v3", "v1") is None
    assert compared(Pair("d", "v1", 0.2, None, None, Other("v2", 0.6)), "v2", "v1") is None
    assert compared(Pair("d", "v1", 0.2, 1), "v2", "v1") is None


def test_a_pair_is_read_from_what_a_worker_writes() -> None:
    """With its user, whose later decisions are no evidence."""
    score = Score("d", "offer", "u7", None, 1, 0.2, "v1", 3, {}, 0.3, ByOther("v2", 0.6))
    sample = msgspec.structs.asdict(score) | {"label": 1}
    assert msgspec.json.decode(msgspec.json.encode(sample), type=Pair) == Pair(
        "d", "v1", 0.2, 1, 0.3, Other("v2", 0.6), "u7"
    )


def test_a_correction_is_compared_with_none() -> None:
    """The corrected score against the model's own, of the live model's decisions that have both."""
    now = correction(0.2, 0.4)
    assert of_correction(Pair("d", "v1", 0.4, 0, 0.2), "v1", now) == difference(0, 0.4, 0.2)
    assert of_correction(Pair("d", "v1", 0.4, 0), "v1", now) is None
    assert of_correction(Pair("d", "v1", 0.4, None, 0.2), "v1", now) is None
    assert of_correction(Pair("d", "v2", 0.4, 0, 0.2), "v1", now) is None


def test_what_another_correction_served_says_nothing_of_this_one() -> None:
    """Its labels come while the next one is in force; rounding to float32 is no other correction."""
    served = Pair("d", "v1", float(np.float32(0.4)), 0, float(np.float32(0.2)))
    assert of_correction(served, "v1", correction(0.2, 0.4)) is not None
    assert of_correction(served, "v1", correction(0.2, 0.41)) is None
    assert of_correction(served, "v1", correction(0.25, 0.4)) is None


def test_what_users_have_in_common_with_themselves_is_no_evidence() -> None:
    """Of 200 runs of 100 pairs of each of 200 users, whose means differ and are 0 together, 1 % at most raise an alarm."""
    alarms, naive = 0, 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        means = random.normal(0, 0.1, 200)
        user = np.concatenate([random.permutation(200) for _ in range(100)])
        found = means[user] + random.normal(0, 0.3, len(user))
        comparison = Comparison()
        comparison.begin(("v2", "v1", "shadow"), 0)
        for number, (who, value) in enumerate(zip(user.tolist(), found.tolist(), strict=True)):
            comparison.add(str(number), f"user-{who}", 0, value)
        evidence = comparison.evidence
        assert (evidence.pairs, evidence.users) == (20_000, 200)
        alarms += evidence.worse
        naive += extended(Evidence(), found).worse
    assert alarms <= 6  # 2 are expected at most; 6 or fewer with a probability of 99.5 %
    assert naive > 10


WORSE = extended(Evidence(), np.full(200, 0.3))
SAME = extended(Evidence(), np.tile([0.3, -0.3], 1000))
BETTER = extended(Evidence(), np.full(200, -0.3))
DOUBTFUL = extended(Evidence(), np.tile([0.3, -0.28], 100))  # worse by .01 in the mean, and not shown to be


@pytest.mark.parametrize(
    ("role", "evidence", "expected"),
    [
        (Role.PREVIOUS, WORSE, Step.ROLLBACK),
        (Role.PREVIOUS, SAME, Step.END),
        (Role.PREVIOUS, BETTER, None),  # too few pairs to let the other go
        (Role.SHADOW, WORSE, Step.DROP),
        (Role.CANARY, WORSE, Step.DROP),
        (Role.SHADOW, SAME, Step.ADVANCE),
        (Role.CANARY, BETTER, Step.ADVANCE),
        (Role.CANARY, DOUBTFUL, None),
        (Role.SHADOW, Evidence(), None),
    ],
)
def test_what_evidence_calls_for(role: Role, evidence: Evidence, expected: Step | None) -> None:
    """A worse live model goes, a worse challenger too; who is not worse goes on when the labels are there."""
    found = judged(role, "v2", "v1", evidence, POLICY)
    assert (found and found.step) == expected
    assert found is None or f"{evidence.pairs:,} decisions" in found.reason


def test_a_harmful_correction_is_withdrawn() -> None:
    """By the same evidence."""
    assert judged_correction("v1", SAME) is None
    found = judged_correction("v1", WORSE)
    assert found is not None
    assert found.step is Step.WITHDRAW


def test_a_comparison_goes_on_over_releases_that_do_not_concern_it() -> None:
    """A claim or a pin between changes nothing of what is compared; another stage does."""
    log = [first()]
    log.append(transitions.promote(log[-1], V2, share=0.2, **why()))
    log.append(transitions.claim(log[-1], reason="", by="trainer", created=""))
    log.append(transitions.pin(log[-1], **why()))
    assert begun(log) == 1
    log.append(transitions.unpin(log[-1], **why()))
    log.append(transitions.shadow(log[-1], V3, share=0.2, **why()))
    assert begun(log) == 5
    log.append(transitions.canary(log[-1], V3, share=0.2, **why()))
    assert begun(log) == 6


def test_the_examples_in_the_docstrings_are_true() -> None:
    """They are run as they stand."""
    failed, tried = doctest.testmod(watch)
    assert (failed, tried > 0) == (0, True)
