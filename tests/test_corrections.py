"""Facts about retrain/corrections.py: which prior correction a model's verdicts call for, from the first to the last."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.release import Correction
from retrain.corrections import differs, wanted
from retrain.verdicts import Action, Estimate, Kind, Verdict
from tests.trainers import SINGLE, verdict

BASE = 0.31  # of the bundle's reference; the monitor's is .30 at first


def correct(number: int = 1, before: float = 0.3, now: float = 0.5, **changed: Any) -> Verdict:
    """An episode that calls for a correction."""
    return verdict(
        Action.CORRECT_PRIOR,
        number,
        kind=Kind.LABEL,
        kinds=(Kind.LABEL,),
        prior_before=before,
        prior_counted=Estimate(now, now - 0.05, now + 0.05),
        **changed,
    )


def wait(number: int, before: float) -> Verdict:
    """An episode that has just begun."""
    return verdict(Action.WAIT, number, final=False, kinds=SINGLE, prior_before=before)


def keep(number: int, before: float) -> Verdict:
    """An episode that keeps the model."""
    return verdict(Action.KEEP, number, kinds=(Kind.COVARIATE,), prior_before=before)


def test_scores_are_corrected_from_what_the_bundle_is_calibrated_to() -> None:
    """Not from what the episode compared with: that may be of a later time."""
    assert wanted([correct(before=0.4)], BASE) == Correction(0.31, 0.5, 0.45, 0.55, "v1/1")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], None),
        ([wait(1, 0.3)], None),
        ([correct(1), wait(2, 0.5)], 0.5),  # undecided: what is in force stays
        ([correct(1), keep(2, 0.5)], 0.5),  # the reference of the second is of a time that is corrected for
        ([correct(1), keep(2, 0.3)], None),  # the reference of the second is that of before
        ([correct(1), wait(2, 0.5), correct(2, 0.5, 0.7)], 0.7),  # in absolute terms
        ([correct(1), correct(2, 0.5, 0.7), keep(2, 0.5)], 0.5),  # the second takes its word back
        ([correct(1), keep(1, 0.3)], None),  # the first does
        ([correct(1), verdict(Action.RETRAIN, 1)], None),
        ([correct(1, slice="plan", value="plus")], None),
        ([correct(1, now=0.32)], None),  # within the interval of what it is
        ([correct(1), correct(2, 0.5, 0.32)], None),  # back to where it was
        ([correct(1, now=0.9999)], 0.999),  # none at all has no odds
    ],
)
def test_what_is_in_force_follows_from_the_verdicts(verdicts: list[Verdict], expected: float | None) -> None:
    """Episode by episode, revision by revision."""
    found = wanted(verdicts, BASE)
    assert (found and found.now) == expected


def test_a_share_that_was_fitted_without_labels_is_taken_where_none_was_counted() -> None:
    """With its interval."""
    found = wanted(
        [verdict(Action.CORRECT_PRIOR, prior_counted=None, prior_fitted=Estimate(0.6, 0.5, 0.7))], BASE
    )
    assert found == Correction(0.31, 0.6, 0.5, 0.7, "v1/1")


def test_a_correction_that_did_harm_is_not_made_again() -> None:
    """That of a later episode is."""
    assert wanted([correct(1)], BASE, {"v1/1"}) is None
    found = wanted([correct(1), correct(2, 0.3, 0.6)], BASE, {"v1/1"})
    assert found is not None
    assert found.verdict == "v1/2"


def test_who_called_for_the_same_correction_does_not_matter() -> None:
    """So a later verdict that says the same releases nothing."""
    one, other = Correction(0.3, 0.5, 0.4, 0.6, "a"), Correction(0.3, 0.5, 0.45, 0.55, "b")
    assert not differs(one, other)
    assert differs(one, None)
    assert differs(one, Correction(0.3, 0.51, 0.4, 0.6, "a"))
    assert not differs(None, None)
