"""Every witness keeps one contract, whichever library it comes from."""

from __future__ import annotations

import sys
from functools import cache
from typing import get_args

import numpy as np
import pytest

from detectors import streaming, verdict, windowed
from detectors.rows import Rows, Schema, rows_of
from detectors.witnesses import NAMES, Witness, witnesses
from model.usecase import Witness as Name

SCHEMA = Schema(("age", "clicks", "visits"), ("device",))
EVENTS = 50_000


def world(
    seed: int, n: int, *, shift: float = 0.0, wrong: float = 0.0, missing: float = 0.0, labelled: float = 1.0
) -> Rows:
    """Decisions whose features lie ``shift`` standard deviations off, and a share ``wrong`` of labels turned round."""
    rng = np.random.default_rng(seed)
    numeric = rng.normal(size=(n, 3)) + shift
    share = min(0.9, 0.4 + 0.3 * shift)
    device = np.where(rng.random(n) < share, "phone", "desk").astype(np.object_)
    chance = 1 / (1 + np.exp(-2 * numeric[:, 0]))
    label = (rng.random(n) < chance).astype(np.float64)
    label = np.where(rng.random(n) < wrong, 1 - label, label)
    label[rng.random(n) >= labelled] = np.nan
    numeric[rng.random((n, 3)) < missing] = np.nan
    device[rng.random(n) < missing] = None
    return rows_of(numeric, chance, label, device[:, None])


def ask(name: Name, reference: Rows, window: Rows, schema: Schema = SCHEMA) -> verdict.Testimony:
    """What the witness ``name`` says."""
    (witness,), missing = witnesses([name], EVENTS)
    assert missing == []
    return witness.testify(reference, window, schema)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thresholds of the online ones in a second."""
    monkeypatch.setattr(windowed, "ONLINE_RUN", 2000)


@cache
def reference() -> Rows:
    """One reference for all, so that the thresholds of the online ones are simulated once."""
    return world(0, 2000)


def changed(name: str) -> Rows:
    """A window that differs from the reference in what the witness looks at."""
    on = {**windowed.ON, **streaming.ON}[name]
    return world(1, 1000, wrong=0.5) if on == "loss" else world(1, 1000, shift=1.0)


def test_the_registry_has_exactly_the_names_of_the_use_case() -> None:
    """Every witness that a use case may name exists, and no other."""
    assert sorted(NAMES) == sorted(get_args(Name))


@pytest.mark.parametrize("name", NAMES)
def test_two_samples_of_one_law_are_no_drift(name: Name) -> None:
    """No witness finds drift between two samples of one law, for this seed."""
    testimony = ask(name, reference(), world(3, 1000))
    assert (testimony.witness, testimony.drift, testimony.columns) == (name, False, ())


@pytest.mark.parametrize("name", NAMES)
def test_an_obvious_change_is_found(name: Name) -> None:
    """Each witness finds a change of what it looks at; a test says how sure, a stream when."""
    testimony = ask(name, reference(), changed(name))
    assert testimony.drift is True
    if testimony.p is None:
        assert testimony.statistic is not None
        assert 0 <= testimony.statistic < 1000
    else:
        assert 0 < testimony.p < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_missing_values_and_unknown_labels_are_no_obstacle(name: Name) -> None:
    """NaN, None and labels that have not come yet leave a witness enough to go by."""
    before, after = world(0, 2000, missing=0.2, labelled=0.5), world(7, 1000, missing=0.2, labelled=0.5)
    assert ask(name, before, after).drift is False


@pytest.mark.parametrize("name", NAMES)
def test_too_little_is_said_so(name: Name) -> None:
    """A witness that has too few rows or labels says that it cannot tell, and why."""
    few = world(1, 40)
    testimony = ask(name, reference(), few)
    assert (testimony.drift, testimony.p) == (None, None)
    assert testimony.note


@pytest.mark.parametrize("name", NAMES)
def test_asked_twice_it_says_the_same_and_leaves_the_random_state_alone(name: Name) -> None:
    """A testimony depends on the rows alone, and drawing random numbers for it is nobody else's business."""
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    first = ask(name, reference(), changed(name))
    actual = np.random.random(3)  # noqa: NPY002
    np.random.seed(6)  # noqa: NPY002
    assert ask(name, reference(), changed(name)) == first
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_raises_becomes_a_note(name: Name) -> None:
    """Rows that no detector can read give a testimony without a finding, and no exception."""
    broken = Rows(*(None for _ in Rows.__struct_fields__))  # type: ignore[arg-type]
    testimony = ask(name, broken, broken)
    assert testimony.drift is None
    assert "Error" in testimony.note


def test_an_unknown_name_is_refused() -> None:
    """A name that is no witness's is an error of the caller, who is told the names."""
    with pytest.raises(ValueError, match="one of ks, cvm"):
        witnesses(["mmd"], EVENTS)


def test_without_alibi_detect_the_others_testify(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where alibi-detect is not installed its witnesses are named as missing, and river's work."""
    monkeypatch.setitem(sys.modules, "alibi_detect", None)
    found, missing = witnesses(NAMES, EVENTS)
    assert missing == list(windowed.ON)
    assert [each.name for each in found] == list(streaming.ON)
    assert all(each.testify(reference(), changed(each.name), SCHEMA).drift for each in found)


def test_no_witness_is_wanted() -> None:
    """A use case may want none."""
    nothing: tuple[list[Witness], list[str]] = ([], [])
    assert witnesses([], EVENTS) == nothing
