"""Facts about model/baselines.py."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from model import baselines
from model.evaluation import auc, calibration_error, log_loss
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
    losses = [log_loss(later.label, scorers[name](later)) for name in baselines.NAMES]
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
    """With all weight on the even rows, whose labels are turned round, all but the base rate learn the turned law."""
    even = np.arange(len(parts.fitting)) % 2 == 0
    label = np.where(even, 1 - parts.fitting.label, parts.fitting.label).astype(np.float32)
    weight = np.where(even, 1, 1e-3).astype(np.float32)
    rows = msgspec.structs.replace(parts.fitting, label=label, sample_weight=weight)
    later = parts.validation
    for score in (
        baselines.heuristic(rows),
        baselines.logistic(rows),
        baselines.boosting(rows, SPEC, 0, 20),
    ):
        assert auc(later.label, score(later)) < 0.4


def test_weights_move_no_level(parts: Parts) -> None:
    """With positive rows of weight 5 every baseline's scores still are probabilities; weight 0 is left out."""
    heavy, later = 1 + 4 * parts.fitting.label, parts.validation
    weighted = Parts(
        msgspec.structs.replace(parts.fitting, sample_weight=heavy), later, parts.whole, parts.as_of
    )
    for name, score in baselines.fit(weighted, SPEC, 0).items():
        assert score(later).mean() == pytest.approx(later.base_rate, abs=0.06), name
        assert calibration_error(later.label, score(later)) < 0.1, name
    positive = msgspec.structs.replace(parts.fitting, sample_weight=parts.fitting.label)
    assert baselines.base_rate(positive)(later)[0] == 1


@pytest.mark.parametrize("present", [0, 1])
def test_a_number_that_no_fitted_row_has_is_no_failure(parts: Parts, present: int) -> None:
    """A feature that is missing on every fitted row, or all but one, is passed over, and later values say nothing."""
    numeric = parts.fitting.numeric.copy()
    numeric[present:, 0] = np.nan
    without = msgspec.structs.replace(parts.fitting, numeric=numeric)
    score = baselines.fit(Parts(without, parts.validation, without, parts.as_of), SPEC, 0)["boosting"]
    changed = parts.validation.numeric.copy()
    changed[:, 0] = 5
    other = msgspec.structs.replace(parts.validation, numeric=changed)
    np.testing.assert_array_equal(score(parts.validation), score(other))


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
