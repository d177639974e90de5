"""Facts about retrain/gate.py: tables of scores and what becomes of them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from model.evaluation import surprise
from model.features import Float32
from retrain import gate
from retrain.gate import GateDecision, Holdout, Scores, Terms

N = 4000


class World:
    """Decisions of users whose law is known; column ``plan`` has a common value, and ``rare`` with every tenth row."""

    def __init__(self, n: int = N, users: int = 400, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.logit = random.normal(0, 1.5, n)
        self.label = (random.random(n) < expit(self.logit)).astype(np.float32)
        self.user = random.integers(0, users, n)
        self.rare = np.arange(n) % 10 == 0
        plan = np.where(self.rare, "rare", "common").astype(object)
        slices = {"plan": plan}
        self.holdout = Holdout(self.label, self.user, slices, "2024-01-01", "2024-02-01")
        self.noise = random.normal(size=n)

    def score(
        self, scale: float = 1.0, noise: float = 0.0, *, where: NDArray[np.bool_] | None = None
    ) -> Float32:
        """The law's own probability; elsewhere than 1 and 0 a worse one, ``where`` alone if that is given."""
        rows = np.ones(len(self.label), np.bool_) if where is None else where
        logit = np.where(rows, self.logit * scale + self.noise * noise, self.logit)
        return np.asarray(expit(logit), np.float32)


def judged(
    world: World, champion: Float32, challenger: Float32, live: Float32 | None = None, **terms: Any
) -> GateDecision:
    """What the gate says, the live file being as the twin unless a test says otherwise."""
    named = {"champion": terms.pop("against", "7"), "challenger": "8"}
    given = {"margin": 0.005, "better": False} | named | terms
    scores = Scores(champion, challenger, challenger if live is None else live)
    return gate.judge(world.holdout, scores, Terms(**given), seed=1)


WORLD = World()
GOOD, BAD = WORLD.score(), WORLD.score(0.5)
WORSE_IN_RARE = WORLD.score(-1.0, where=WORLD.rare)


@pytest.mark.parametrize(
    ("champion", "challenger", "terms", "passes"),
    [
        pytest.param(BAD, GOOD, {"better": True}, True, id="better"),
        pytest.param(GOOD, BAD, {}, False, id="worse"),
        pytest.param(GOOD, BAD, {"margin": 0.2}, True, id="worse by less than a wide margin"),
        pytest.param(GOOD, GOOD, {}, True, id="the same, which the calendar asked for"),
        pytest.param(GOOD, GOOD, {"better": True}, False, id="the same, which a drift asked for"),
        pytest.param(GOOD, 1 - GOOD, {"margin": 0.5}, False, id="learnt from labels turned round"),
        pytest.param(GOOD, WORLD.score(noise=0.4), {}, False, id="not surely as good"),
        pytest.param(BAD, WORSE_IN_RARE, {"margin": 0.1}, False, id="better, but surely worse in a slice"),
        pytest.param(
            GOOD, WORSE_IN_RARE, {"margin": 1.0}, True, id="worse in a slice, by less than the margin"
        ),
    ],
)
def test_what_passes(champion: Float32, challenger: Float32, terms: dict[str, Any], passes: bool) -> None:
    """A challenger passes that is nowhere worse by more than the margin, and better where that was asked for."""
    decision = judged(WORLD, champion, challenger, **terms)
    assert decision.passed is passes, decision.reasons
    assert decision.reasons


def test_a_slice_that_surely_is_worse_is_named() -> None:
    """The reason names slice, value, rows, what was found and the margin."""
    decision = judged(WORLD, BAD, WORSE_IN_RARE, margin=0.1)
    (reason,) = decision.reasons
    assert reason.startswith("plan rare: on 400 decisions its log-loss is worse by ")
    assert "more than the margin of 0.1" in reason


def test_chance_alone_refuses_few() -> None:
    """Of challengers whose slices differ by chance alone, none is refused for a slice, though some slices look worse."""
    looked_worse = 0
    for seed in range(20):
        world = World(seed=seed, users=2000)
        values = np.random.default_rng(seed).integers(0, 20, N).astype(str).astype(object)
        world.holdout = world.holdout._replace(slices={"city": values})
        decision = judged(world, world.score(noise=0.3), world.score(noise=-0.3), margin=0.02)
        assert not [reason for reason in decision.reasons if reason.startswith("city")]
        looked_worse += sum(each.difference > 0.02 for each in decision.compared[1:])
    assert looked_worse > 0


def test_a_drift_in_a_slice_wants_it_better_there() -> None:
    """Better over all is not enough where the drift was in a slice; too few rows there, and all of them count."""
    better_elsewhere = np.where(WORLD.rare, BAD, GOOD).astype(np.float32)
    terms: dict[str, Any] = {"better": True, "slice": "plan", "value": "rare"}
    refused = judged(WORLD, BAD, better_elsewhere, **terms)
    assert not refused.passed
    assert "it is not better where the drift was, plan rare: " in refused.reasons[0]
    assert judged(WORLD, BAD, GOOD, **terms).passed
    assert judged(WORLD, BAD, better_elsewhere, **terms | {"value": "none such"}).passed
    same = judged(WORLD, BAD, BAD, **terms | {"value": "none such"})
    assert "over all (plan none such has too few decisions to tell)" in same.reasons[0]


@pytest.mark.parametrize("which", ["champion", "challenger", "live"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.5])
def test_scores_that_are_no_probabilities_never_pass(which: str, value: float) -> None:
    """One such score of any of the three refuses, and says of which."""
    scores = {"champion": BAD.copy(), "challenger": GOOD.copy(), "live": GOOD.copy()}
    scores[which][17] = value
    decision = judged(WORLD, **scores)
    assert not decision.passed
    assert decision.reasons[0].startswith(which)
    assert decision.compared == ()


def test_the_file_that_goes_live_is_looked_at_too() -> None:
    """A twin that is better does not help a live file that is broken."""
    decision = judged(WORLD, BAD, GOOD, live=1 - GOOD)
    assert not decision.passed
    assert decision.reasons[0].startswith(
        "the file that would go live has a log-loss worse than the champion's by "
    )


def test_without_a_champion_the_base_rate_is_to_be_beaten() -> None:
    """The first model passes if it says more than the share of positives does, and not if it says the same."""
    rate = np.full(N, WORLD.label.mean(), np.float32)
    assert judged(WORLD, rate, GOOD, against="").passed
    same = judged(WORLD, rate, rate, against="")
    assert same.reasons[0].startswith("it does not beat the constant base rate")


def test_the_interval_is_that_of_users() -> None:
    """Rows of one user are alike: the interval is as wide as few users make it, however many their rows."""
    world = World(users=N)
    world.holdout = world.holdout._replace(user=np.arange(N))
    each = surprise(world.label, GOOD) - surprise(world.label, BAD)
    error = each.std() / np.sqrt(N)
    overall = judged(world, BAD, GOOD).compared[0]
    assert overall.high - overall.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    copies = World(users=N)
    rows = np.arange(N) // 10 * 10  # each ten times
    copies.holdout = Holdout(world.label[rows], np.arange(N) // 10, {}, "", "")
    ten = judged(copies, BAD[rows], GOOD[rows]).compared[0]
    assert ten.high - ten.low == pytest.approx(np.sqrt(10) * (overall.high - overall.low), rel=0.25)


def test_many_users_are_drawn_in_groups() -> None:
    """More users than groups give an interval as wide as theirs would be."""
    n = 3 * gate.GROUPS
    world = World(n=n)
    world.holdout = world.holdout._replace(user=np.arange(n), slices={})
    overall = judged(world, world.score(0.5), world.score()).compared[0]
    error = (surprise(world.label, world.score()) - surprise(world.label, world.score(0.5))).std() / np.sqrt(
        n
    )
    assert overall.high - overall.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_slices_of_few_rows_users_or_one_label_do_not_count() -> None:
    """Only values that can tell something are compared."""
    few = np.where(np.arange(N) < 50, np.array("few", object), np.array(None, object))
    users = np.where(WORLD.user < 10, "ten users", "others").astype(object)
    label = np.where(WORLD.label == 1, "all positive", "all negative").astype(object)
    world = World()
    world.holdout = world.holdout._replace(slices={"few": few, "users": users, "label": label})
    found = [(each.slice, each.value) for each in judged(world, BAD, GOOD).compared]
    assert found == [("", ""), ("few", "missing"), ("users", "others")]


def test_equal_arguments_give_equal_decisions() -> None:
    """The decision survives JSON, and is the same again."""
    one, two = judged(WORLD, BAD, GOOD), judged(WORLD, BAD, GOOD)
    assert one == two
    assert msgspec.json.decode(msgspec.json.encode(one), type=GateDecision) == one
