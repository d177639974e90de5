"""Facts about model/baselines.py."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from model import baselines
from model.evaluation import auc, log_loss
from model.examples import Examples
from model.features import FeatureSpec
from model.split import Parts, window
from tests.builders import CASE, SPEC, examples, prepared


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """The usual examples."""
    return window(prepared(tmp_path_factory.mktemp("parts"), examples()), CASE.training)


@pytest.fixture(scope="module")
def scorers(parts: Parts) -> dict[str, baselines.Scorer]:
    """The baselines, fitted."""
    return baselines.fit(parts, SPEC, 0)


def without_numbers(rows: Examples) -> Examples:
    """The same rows with categories alone."""
    return msgspec.structs.replace(rows, numeric=rows.numeric[:, :0])


def without_categories(rows: Examples) -> Examples:
    """The same rows with numbers alone."""
    return msgspec.structs.replace(
        rows, categorical=rows.categorical[:, :0], categories=rows.categories[:, :0]
    )


def test_each_is_better_than_the_one_before(parts: Parts, scorers: dict[str, baselines.Scorer]) -> None:
    """On later rows the rule of thumb beats the base rate, regression the rule, and trees find the product."""
    later = parts.validation
    losses = [log_loss(later.label, scorers[name](later), later.sample_weight) for name in baselines.NAMES]
    assert losses == sorted(losses, reverse=True)
    assert auc(later.label, scorers["boosting"](later)) > 0.83  # the law itself: 0.88


def test_scores_are_probabilities(parts: Parts, scorers: dict[str, baselines.Scorer]) -> None:
    """Each baseline gives a float32 a row, from 0 to 1, about the base rate on average."""
    for score in scorers.values():
        scores = score(parts.validation)
        assert scores.dtype == np.float32
        assert scores.shape == (len(parts.validation),)
        assert ((scores >= 0) & (scores <= 1)).all()
        assert scores.mean() == pytest.approx(parts.validation.base_rate, abs=0.06)


def test_equal_seeds_give_equal_scores(parts: Parts, scorers: dict[str, baselines.Scorer]) -> None:
    """Nothing is left to chance."""
    again = baselines.fit(parts, SPEC, 0)
    for name, score in scorers.items():
        np.testing.assert_array_equal(score(parts.validation), again[name](parts.validation))


def test_what_fitting_never_met_is_scored(parts: Parts, scorers: dict[str, baselines.Scorer]) -> None:
    """New categories, missing values and sizes beyond any fitted give a score, no error."""
    rows = parts.validation[:4]
    numeric = np.array([[np.nan] * 4, [1e30] * 4, [-1e30] * 4, [0] * 4], np.float32)
    odd = msgspec.structs.replace(rows, numeric=numeric, categorical=np.full((4, 2), 15, np.int32))
    for score in scorers.values():
        assert np.isfinite(score(odd)).all()


def test_only_the_fitting_part_is_fitted_unless_live(parts: Parts) -> None:
    """Validated labels do not reach a baseline that is judged by them, and do reach a live one."""
    turned = msgspec.structs.replace(parts.validation, label=1 - parts.validation.label)
    whole = msgspec.structs.replace(parts.whole, label=1 - parts.whole.label)
    other = Parts(parts.fitting, turned, whole, parts.as_of)
    rows = parts.validation
    for live in (False, True):
        one, two = (baselines.fit(each, SPEC, 0, live=live)["logistic"](rows) for each in (parts, other))
        assert np.array_equal(one, two) is not live


def test_weights_count(parts: Parts) -> None:
    """With all weight on positive rows every baseline but the base rate's arithmetic leans to them."""
    heavy = np.where(parts.fitting.label == 1, 10, 1).astype(np.float32)
    rows = msgspec.structs.replace(parts.fitting, sample_weight=heavy)
    for one, two in (
        (baselines.base_rate(parts.fitting), baselines.base_rate(rows)),
        (baselines.heuristic(parts.fitting), baselines.heuristic(rows)),
        (baselines.logistic(parts.fitting), baselines.logistic(rows)),
        (baselines.boosting(parts.fitting, SPEC, 0, 20), baselines.boosting(rows, SPEC, 0, 20)),
    ):
        assert two(parts.validation).mean() > one(parts.validation).mean() + 0.2


def test_either_kind_of_column_may_be_absent(parts: Parts) -> None:
    """Numbers alone, or categories alone, are fitted and scored."""
    numbers, categories = FeatureSpec(SPEC.numeric, ()), FeatureSpec((), SPEC.categorical)
    for spec, cut in ((numbers, without_categories), (categories, without_numbers)):
        left = Parts(cut(parts.fitting), cut(parts.validation), cut(parts.whole), parts.as_of)
        for score in baselines.fit(left, spec, 0).values():
            assert np.isfinite(score(left.validation)).all()


def test_many_categories_keep_the_frequent_ones(parts: Parts) -> None:
    """Trees take a column of more values than they can tell apart, the most frequent by themselves."""
    rows = parts.fitting
    many = rows.categorical.copy()
    many[:, 0] = np.where(rows.label == 1, 700, np.arange(len(rows)) % 600 + 1)
    score = baselines.boosting(msgspec.structs.replace(rows, categorical=many), SPEC, 0, 20)
    assert auc(rows.label, score(msgspec.structs.replace(rows, categorical=many))) > 0.99
