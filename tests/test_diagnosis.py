"""The diagnosis: each kind of drift is told from the others, with what supports it, and nothing from too little."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from detectors.diagnosis import Diagnosis, diagnose, p_same
from detectors.response import kind_of, respond
from detectors.rows import Rows, Schema, rows_of
from detectors.two_sample import homogeneity_p, kolmogorov_p
from detectors.verdict import Action, Estimate, Kind
from tests.worlds import SCHEMA, World, unlabelled

REFERENCE = World().draw(4000, 1)
TRUTHS = {
    Kind.COVARIATE: World(shift=0.6, plans=(0.4, 0.3, 0.3)),
    Kind.LABEL: World(prior=0.65),
    Kind.CONCEPT: World(turned=0.6),
}


def told(world: World, rows: int = 1000, seed: int = 2, *, labels: bool = True) -> Diagnosis:
    """The diagnosis of a window of ``world``."""
    window = world.draw(rows, seed)
    return diagnose(REFERENCE, window if labels else unlabelled(window), SCHEMA, 0.01, ("plan",))


@pytest.mark.parametrize("kind", TRUTHS)
def test_each_kind_is_told_from_the_others(kind: Kind) -> None:
    """Of ten windows of 1000 rows, nine or more leave the true kind alone."""
    found = [told(TRUTHS[kind], seed=seed).kinds for seed in range(10)]
    assert sum(kinds == (kind,) for kinds in found) >= 9


def test_two_drifts_at_once_are_mixed() -> None:
    """When columns, and the label given them, change together, no single kind is left."""
    found = told(World(shift=0.8, turned=1.0))
    assert (found.kinds, kind_of(found)) == ((), Kind.MIXED)
    assert respond(found, 0, last=True).action is Action.RETRAIN


def test_no_change_is_not_called_one() -> None:
    """A window of the same world leaves all kinds, and the answer to what may be a false alarm is to keep the model."""
    found = told(World())
    assert not found.changed
    assert respond(found, 0, last=True).action is Action.KEEP
    assert respond(found, 0, last=False).action is Action.WAIT


def test_the_true_kind_is_refuted_as_rarely_as_promised() -> None:
    """In 60 windows of label shift, the label's p-value is below .05 in no more than 7: level, not power."""
    found = [told(World(prior=0.6), rows=500, seed=seed).invariances.label for seed in range(60)]
    assert sum(p is not None and p < 0.05 for p in found) <= 7


def test_a_label_shift_is_only_suspected_without_labels() -> None:
    """The fit holds and the prior that it finds covers the true one; but a shift along the score would look the same."""
    found = told(TRUTHS[Kind.LABEL], labels=False)
    assert (found.kinds[0], kind_of(found)) == (Kind.LABEL, Kind.UNDETERMINED)
    assert found.prior_fitted is not None
    assert found.prior_fitted.low < 0.65 < found.prior_fitted.high
    response = respond(found, 0, last=False)
    assert response.action is Action.WAIT
    assert "along the score" in response.reason


def test_a_suspected_label_shift_is_corrected_at_once_where_that_is_declared() -> None:
    """With label_free the fitted prior is acted on before there are labels, and the reason says that they will tell."""
    found = told(TRUTHS[Kind.LABEL], labels=False)
    response = respond(found, 0, last=False, label_free=True)
    assert response.action is Action.CORRECT_PRIOR
    assert "fitted without labels" in response.reason
    assert "labels will confirm or withdraw" in response.reason
    assert kind_of(found) is Kind.UNDETERMINED, "it is not called what it may not be"


def test_a_fitted_prior_that_is_surely_another_shows_the_change_itself() -> None:
    """Of a few hundred rows P(X) may not be refuted yet; the owner has declared what such scores mean."""
    found = msgspec.structs.replace(
        told(World(), labels=False), prior_before=0.4, prior_fitted=Estimate(0.6, 0.5, 0.7)
    )
    assert not found.changed
    assert respond(found, 0, last=False, label_free=True).action is Action.CORRECT_PRIOR
    assert respond(found, 0, last=False).action is Action.WAIT


@pytest.mark.parametrize(
    "found",
    [told(TRUTHS[Kind.COVARIATE], labels=False), told(World(), labels=False), told(TRUTHS[Kind.CONCEPT])],
    ids=["covariate", "nothing", "concept-with-labels"],
)
def test_label_free_changes_nothing_else(found: Diagnosis) -> None:
    """What the fit refuses, what no test confirms and what labels have told is answered as ever."""
    assert respond(found, 0, last=False, label_free=True) == respond(found, 0, last=False)


@pytest.mark.parametrize(
    ("low", "value", "high", "action"),
    [
        (0.45, 0.50, 0.55, Action.CORRECT_PRIOR),
        (0.42, 0.50, 0.58, Action.WAIT),  # the nearer end is less than a tenth of the log-odds away
        (0.38, 0.50, 0.62, Action.WAIT),
        (0.20, 0.25, 0.30, Action.CORRECT_PRIOR),
        (0.0, 0.0, 0.0, Action.CORRECT_PRIOR),
    ],
)
def test_a_fitted_prior_is_acted_on_if_it_is_surely_another(
    low: float, value: float, high: float, action: Action
) -> None:
    """Where the interval comes near to the base rate of before, which is .4, labels are waited for."""
    found = msgspec.structs.replace(
        told(TRUTHS[Kind.LABEL], labels=False), prior_before=0.4, prior_fitted=Estimate(value, low, high)
    )
    assert respond(found, 0, last=False, label_free=True).action is action


def test_a_covariate_shift_is_told_without_labels() -> None:
    """Columns that no mixture of the known classes explains: the label shift's fit is refused."""
    found = told(TRUTHS[Kind.COVARIATE], labels=False)
    assert found.kinds == (Kind.COVARIATE,)
    assert respond(found, 0, last=False).action is Action.KEEP


def test_a_concept_drift_cannot_be_told_without_labels() -> None:
    """Where P(X) stays, waiting for labels is all there is to do."""
    found = told(TRUTHS[Kind.CONCEPT], labels=False)
    assert kind_of(found) is Kind.UNDETERMINED
    assert respond(found, 0, last=False).action is Action.WAIT


def test_rows_where_the_model_has_none_are_said_to_be_that() -> None:
    """Without overlap P(Y|X) cannot be compared, so the model is not trusted there."""
    found = told(World(shift=8))
    assert found.overlap < 0.1
    assert respond(found, 0, last=True).action is Action.RETRAIN


def test_effects_name_what_moved_and_by_how_much() -> None:
    """The column that moved comes first, with its shift in standard deviations; slices have their shares."""
    found = told(TRUTHS[Kind.COVARIATE])
    assert found.effects[0].column in {"a", "plan"}
    shift = next(each.shift for each in found.effects if each.column == "a")
    assert shift == pytest.approx(0.6, abs=0.1)
    gold = next(each for each in found.slices if each.value == "gold")
    assert gold.share_before == pytest.approx(0.1, abs=0.03)
    assert gold.share == pytest.approx(0.3, abs=0.05)


def test_missing_values_are_an_effect() -> None:
    """A column that loses values shows the share before and now."""
    found = told(World(missing=0.5))
    effect = next(each for each in found.effects if each.column == "b")
    assert effect.missing_before == pytest.approx(0.05, abs=0.02)
    assert effect.missing == pytest.approx(0.5, abs=0.05)


def test_the_counted_prior_has_an_interval() -> None:
    """It covers the true base rate."""
    prior = told(TRUTHS[Kind.LABEL]).prior_counted
    assert prior is not None
    assert prior.low < 0.65 < prior.high


def test_what_could_not_have_been_seen_shrinks_with_more_rows() -> None:
    """Four times the rows see about half the shift."""
    few, many = told(World(), rows=250), told(World(), rows=1000)
    assert few.smallest_shift > 1.6 * many.smallest_shift
    assert few.smallest_prior is not None
    assert many.smallest_prior is not None
    assert few.smallest_prior > many.smallest_prior


def test_one_class_alone_in_the_window_is_no_obstacle() -> None:
    """A window without a single positive label is diagnosed; it is no covariate shift."""
    found = told(World(prior=1e-9))
    assert Kind.COVARIATE not in found.kinds


def test_constant_and_wholly_missing_columns_are_no_obstacle() -> None:
    """Columns that say nothing neither fail nor accuse."""

    def rows(seed: int) -> Rows:
        draw = np.random.default_rng(seed)
        x = draw.normal(size=(800, 1))
        columns = np.concatenate([x, np.ones((800, 1)), np.full((800, 1), np.nan)], axis=1)
        score = 1 / (1 + np.exp(-x[:, 0]))
        return rows_of(columns, score, (draw.random(800) < score).astype(np.float64))

    assert not diagnose(rows(1), rows(2), Schema(("x", "one", "none")), 0.01).changed


def test_halves_of_one_world_are_the_same_and_of_two_are_not() -> None:
    """The check that gathered rows are at rest sees a change of the label alone, too."""
    world, other = World().draw(1000, 5), World(turned=1.0).draw(1000, 6)
    assert p_same(world[:500], world[500:]) > 0.05
    assert p_same(world, other) < 0.01


def sparse(seed: int, moved: float = 0.0, law: float = 1.0) -> Rows:
    """800 rows of a column known in one row of 20, and of a category with 400 values, all alike where ``law`` is 1."""
    draw = np.random.default_rng(seed)
    columns = draw.normal(size=(800, 2))
    columns[:, 1] += moved
    columns[draw.random(800) < 0.95, 1] = np.nan
    values = np.array([f"v{each}" for each in (400 * draw.random(800) ** law).astype(int)], np.object_)
    score = 1 / (1 + np.exp(-columns[:, 0]))
    label = (draw.random(800) < score).astype(np.float64)
    return rows_of(columns, score, label, values[:, None])


def effects(window: Rows) -> dict[str, float]:
    """The p of each column against 800 rows of before."""
    found = diagnose(sparse(1), window, Schema(("x", "sparse"), ("item",)), 0.01)
    return {each.column: each.p for each in found.effects}


def test_effects_of_columns_that_stay_are_no_surprise() -> None:
    """A column mostly missing and a category of 400 values: under one law p stays above .01, over all columns."""
    found = [effects(sparse(seed)) for seed in range(2, 12)]
    assert min(min(each.values()) for each in found) > 0.01


def test_effects_of_sparse_columns_that_move_are_seen() -> None:
    """The few known values count, and so do many rare ones."""
    assert effects(sparse(2, moved=2.0))["sparse"] < 0.01
    assert effects(sparse(2, law=2.0))["item"] < 0.01


def test_p_counts_the_known_values_of_each_column() -> None:
    """Of 40 values in 800 rows the distance .25 is nothing unusual; of 800 it is."""
    few, many = kolmogorov_p(np.array([0.25, 0.25]), np.array([40, 800]), np.array([40, 800])).tolist()
    assert few > 0.1
    assert many < 1e-9
    assert kolmogorov_p(np.array([0.0]), np.array([0]), np.array([40])).tolist() == [1.0]


def test_homogeneity_holds_its_level_with_many_values() -> None:
    """Of 200 pairs of one law 5 % are below .05, or 10 at most more; one value alone, or missing, is no obstacle."""
    draw = np.random.default_rng(0)
    values = np.array([f"v{each}" for each in range(400)], np.object_)
    p = [homogeneity_p(draw.choice(values, 1500), draw.choice(values, 500)) for _ in range(200)]
    assert sum(each < 0.05 for each in p) <= 20
    assert homogeneity_p(np.full(50, None, np.object_), np.full(50, None, np.object_)) == 1.0
    assert homogeneity_p(np.full(50, "a", np.object_), np.full(50, None, np.object_)) < 1e-9
