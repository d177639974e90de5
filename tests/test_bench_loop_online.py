"""Facts about tests/bench/loop_online.py: an online learner is asked before it knows, and told once it can be known."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bench.loop_online import LEARNERS, live
from tests.builders import START, STEP, WINDOW, decisions

ROWS = 400
EXAMPLES = decisions(np.arange(ROWS) % 7, START + STEP * np.arange(ROWS))
BEGIN = START + STEP * 100


class Diary:
    """Notes what it is asked and told; it knows a row by the first number, which rises."""

    def __init__(self) -> None:
        self.learned: list[float] = []
        self.asked: list[tuple[float, int]] = []  # the row, and how many labels it had then

    def learn_one(self, x: dict[Any, Any], y: bool) -> None:
        """Note the row."""
        self.learned.append(x["number 0"])
        assert y in {False, True}

    def predict_proba_one(self, x: dict[Any, Any]) -> dict[bool, float]:
        """Note the row; be surer than anybody can be."""
        self.asked.append((x["number 0"], len(self.learned)))
        return {True: 2.0}


def test_each_decision_is_asked_once_with_the_labels_that_are_known_by_then() -> None:
    """Those whose window has closed by the moment of the decision, and no other; scores stay within bounds."""
    diary = Diary()
    found = live(lambda: diary, EXAMPLES, BEGIN)
    assert len(diary.asked) == len(found.score) == ROWS - 100
    known = [int((EXAMPLES.closes <= time).sum()) for time in EXAMPLES.time[100:].tolist()]
    assert [count for _, count in diary.asked] == known
    assert known[0] == 100 - WINDOW // STEP + 1
    assert diary.learned == sorted(diary.learned)
    assert set(found.score.tolist()) == {np.float32(0.999)}


def test_the_learners_are_rivers() -> None:
    """Each scores every decision, with a probability."""
    for make in LEARNERS.values():
        score = live(make, EXAMPLES, BEGIN).score
        assert len(score) == ROWS - 100
        assert ((score > 0) & (score < 1)).all()
