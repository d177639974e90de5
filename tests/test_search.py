"""The search for better settings of the learner."""

from __future__ import annotations

import math
import sys

import pytest

from model.examples import ExamplesError
from retrain.search import DEFAULTS, Choice, SearchError, search


def bowl(choice: Choice) -> float:
    """Least at a learning rate of .005 and none hidden."""
    return math.log(choice["learning_rate"] / 0.005) ** 2 + choice["hidden"] ** 2


def test_the_defaults_come_first() -> None:
    """Whatever the budget, so that nothing worse is found; they are the learner's."""
    tried: list[dict[str, float | int]] = []

    def objective(choice: Choice) -> float:
        tried.append(dict(choice))
        return 1.0

    assert DEFAULTS == search(objective, trials=1, seconds=0, seed=0)
    assert DEFAULTS == search(objective, trials=50, seconds=0, seed=0)
    assert [DEFAULTS, DEFAULTS] == tried


def test_the_defaults_are_those_of_fitting() -> None:
    """They stand in two places, since the search must not load TensorFlow."""
    from model.fitting import Settings

    assert {name: getattr(Settings(), name) for name in DEFAULTS} == DEFAULTS


def test_a_better_setting_is_found_and_found_again() -> None:
    """Equal arguments give equal settings, within the space."""
    best = search(bowl, trials=25, seconds=600, seed=1)
    assert bowl(best) < 0.3 * bowl(DEFAULTS)
    assert best == search(bowl, trials=25, seconds=600, seed=1)
    assert best["batch"] in {128, 256, 512}
    assert 2e-4 <= best["learning_rate"] <= 1e-2


def test_a_trial_that_diverges_is_a_bad_one() -> None:
    """It ends no search."""

    def objective(choice: Choice) -> float:
        if choice != DEFAULTS:
            raise ExamplesError("the validation log-loss is a number, got nan in every epoch")
        return 1.0

    assert DEFAULTS == search(objective, trials=4, seconds=600, seed=0)


def test_without_optuna_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not installed by default."""
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SearchError, match=r"install eddyline\[tune\]"):
        search(bowl, trials=2, seconds=1, seed=0)
