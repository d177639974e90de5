"""Facts about model/analysis.py."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from model import analysis, usecase
from model.evaluation import auc, log_loss
from model.examples import Examples
from model.features import FeatureSpec, Float32, feature_spec
from model.split import Parts, window
from tests import events
from tests.builders import CASE, ROOT, SPEC, examples, prepared


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """The usual examples."""
    return window(prepared(tmp_path, examples(2000)), CASE.training)


def by_views_and_plan(rows: Examples) -> Float32:
    """A model of two features: the views, missing ones as few, and the plan."""
    odds = np.nan_to_num(np.log(rows.numeric[:, 0]), nan=-2) + 0.3 * (rows.categorical[:, 1] % 5)
    score: Float32 = (1 / (1 + np.exp(-odds))).astype(np.float32)
    return score


def test_only_what_the_model_reads_is_worth_something(parts: Parts) -> None:
    """Shuffling a feature that is not read costs nothing to the bit; of two that are, the stronger costs more."""
    found = analysis.importance(by_views_and_plan, parts.validation, SPEC, np.random.default_rng(0))
    costs = {each.feature: (each.auc, each.log_loss) for each in found}
    assert [each.feature for each in found][:2] == ["views", "plan"]
    assert costs["views"][0] > 0.1
    assert costs["views"][1] > 0.1
    assert {costs[name] for name in ("spend", "last_view", "price", "item")} == {(0.0, 0.0)}


def test_every_row_costs_alike(parts: Parts) -> None:
    """The rows' weights, which steer fitting, change no cost."""
    heavy = msgspec.structs.replace(parts.validation, sample_weight=1 + 4 * parts.validation.label)
    one, two = (
        analysis.importance(by_views_and_plan, rows, SPEC, np.random.default_rng(0), repeats=1)
        for rows in (parts.validation, heavy)
    )
    assert one == two


def test_shuffling_leaves_the_rows_as_they_were(parts: Parts) -> None:
    """The examples are not changed."""
    before = parts.validation.numeric.copy(), parts.validation.categorical.copy()
    analysis.importance(by_views_and_plan, parts.validation, SPEC, np.random.default_rng(0), repeats=1)
    np.testing.assert_array_equal(parts.validation.numeric, before[0])
    np.testing.assert_array_equal(parts.validation.categorical, before[1])


def test_groups_are_the_sources_of_the_features() -> None:
    """A feature stands with each type of event that it reads, a ratio with those of its parts."""
    assert analysis.groups(events.usecase()) == {
        "event page": ("pages_1d", "pages_7d", "all_1d", "since_page", "items"),
        "event quiz": ("all_1d", "quiz_7d", "quizzes_7d", "mean_quiz", "last_quiz"),
        "event offer": ("all_1d", "items"),
        "event done": ("all_1d",),
        "tenure": ("tenure",),
        "time of day": ("clock_sin", "clock_cos"),
        "decision": ("amount", "plan", "price", "item"),
    }


def test_every_column_of_the_example_is_in_a_group() -> None:
    """Nothing that a model reads is left out of the ablation."""
    case = usecase.load(ROOT / "examples" / "oulad" / "usecase.toml")
    spec = feature_spec(case)
    columns = {*spec.numeric, *(category.name for category in spec.categorical)}
    assert columns == {name for group in analysis.groups(case).values() for name in group}


def test_ablation_trains_without_the_group(parts: Parts) -> None:
    """Each training gets exactly the columns that are left; its cost is against the whole model's scores."""
    given: list[tuple[FeatureSpec, int]] = []
    whole = by_views_and_plan(parts.validation)

    def refitted(left: Parts, spec: FeatureSpec, seed: int) -> Float32:
        given.append((spec, seed))
        for rows in (left.fitting, left.validation, left.whole):
            assert rows.numeric.shape[1] == len(spec.numeric)
            assert rows.categorical.shape[1] == rows.categories.shape[1] == len(spec.categorical)
        return np.full(len(left.validation), 0.5, np.float32) if "views" not in spec.numeric else whole

    found = {each.group: each for each in analysis.ablation(refitted, CASE, parts, whole, seed=3)}
    later = parts.validation
    assert list(found) == ["event view", "event buy", "decision", ""]
    assert found["event view"].columns == ("views", "last_view")
    assert found["event view"].auc == pytest.approx(auc(later.label, whole) - 0.5)
    flat = np.full(len(later), 0.5, np.float32)
    expected = log_loss(later.label, flat) - log_loss(later.label, whole)
    assert found["event view"].log_loss == pytest.approx(expected)
    assert (found["event buy"].auc, found["event buy"].log_loss) == (0.0, 0.0)
    assert given[-1] == (SPEC, 4)
    assert {seed for _, seed in given[:-1]} == {3}
