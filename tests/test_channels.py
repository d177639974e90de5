"""Channels: uniform whatever a column's law, bounded as they say, and each moved by what it is named for."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from detectors.channels import of_labelled, of_scored
from detectors.rows import Float64, Rows, Schema, rows_of
from tests.worlds import SCHEMA, World

REFERENCE = World().draw(4000, 1)


def strongest(world: World, *, labelled: bool = False) -> str:
    """The channel with the largest mean in ``world``, in standard errors."""
    make = of_labelled if labelled else of_scored
    channels = make(REFERENCE, SCHEMA)
    values = channels(world.draw(4000, 2))
    return str(channels.names[int(np.argmax(values.mean(axis=0) / np.maximum(values.std(axis=0), 1e-9)))])


@pytest.mark.parametrize(
    ("world", "channel"),
    [
        (World(shift=0.5), "location of a up"),
        (World(shift=-0.5), "location of a down"),
        (World(missing=0.3), "missing values of b more"),
        (World(missing=0.0), "missing values of b fewer"),
        (World(plans=(0.3, 0.6, 0.1)), "share of 'basic' of plan down"),
        (World(flag=0.6), "location of flag up"),
    ],
)
def test_a_change_is_seen_in_the_channel_that_is_named_for_it(world: World, channel: str) -> None:
    """A moved column, missing values, a category's share and a binary column each have their channel."""
    assert strongest(world) == channel


def test_the_label_has_a_channel() -> None:
    """A higher base rate shows in the share of the label."""
    assert strongest(World(prior=0.7), labelled=True) == "share of label up"


def test_a_concept_drift_shows_where_the_errors_are() -> None:
    """Exchanged weights leave the mean residual alone; the residual by column tells them."""
    assert strongest(World(turned=1.0), labelled=True).startswith("residual by")


@pytest.mark.parametrize("make", [of_scored, of_labelled])
def test_nothing_moves_while_the_world_stays(make: type) -> None:
    """In the reference's own world no channel's mean is above 0 by more than chance: the margin sees to that."""
    channels = make(REFERENCE, SCHEMA)
    values = channels(World().draw(20_000, 3))
    assert (values.mean(axis=0) < 2.5 * values.std(axis=0) / np.sqrt(20_000)).all()


@pytest.mark.parametrize("make", [of_scored, of_labelled])
def test_values_stay_above_the_lowest(make: type) -> None:
    """The bound that the bets rely on holds even for rows that are nothing like the reference."""
    channels = make(REFERENCE, SCHEMA)
    odd = World(shift=30, missing=1.0, plans=(0, 0, 1), flag=1).draw(500, 4)
    unknown = msgspec.structs.replace(odd, categorical=np.full((500, 1), "never seen", np.object_))
    for rows in (odd, unknown):
        assert (channels(rows) >= channels.lowest - 1e-9).all()


def test_ranks_do_not_depend_on_unit_or_tails() -> None:
    """A column and its exponential give equal values."""
    column = np.random.default_rng(0).normal(size=(300, 1))
    schema, score = Schema(("x",)), np.full(300, 0.5)

    def values(of: Float64) -> Float64:
        return of_scored(rows_of(of[:200], score[:200]), schema)(rows_of(of[200:], score[200:]))

    assert np.array_equal(values(column), values(np.exp(3 * column)))


def test_a_row_read_again_gives_the_same_values() -> None:
    """What is drawn among equals depends on the row's key alone, not on when or with whom it is read."""
    channels = of_scored(REFERENCE, SCHEMA)
    rows = World().draw(100, 5)
    assert np.array_equal(channels(rows)[40:50], channels(rows[40:50]))


def test_weights_add_up_to_one() -> None:
    """Evidence is a weighted mean, so the promise holds for all channels together."""
    for make in (of_scored, of_labelled):
        assert make(REFERENCE, SCHEMA).weight.sum() == pytest.approx(1)


def test_columns_may_be_of_one_sort_only() -> None:
    """Without categories, and without numbers, there are channels all the same."""
    numeric = Rows(**{**_fields(REFERENCE), "categorical": np.empty((len(REFERENCE), 0), np.object_)})
    assert of_scored(numeric, Schema(SCHEMA.numeric)).names
    categorical = Rows(**{**_fields(REFERENCE), "numeric": np.empty((len(REFERENCE), 0))})
    schema = Schema((), SCHEMA.categorical)
    assert of_scored(categorical, schema)(categorical).shape[0] == len(REFERENCE)
    assert of_labelled(categorical, schema)(categorical).shape[0] == len(REFERENCE)


def _fields(rows: Rows) -> dict[str, Any]:
    return {name: getattr(rows, name) for name in Rows.__struct_fields__}


def rare(n: int, rate: float, seed: int, scored: float = 0.003) -> Rows:
    """``n`` rows with positives at ``rate``, which the model takes for ``scored``."""
    random = np.random.default_rng(seed)
    columns, plan = (
        random.normal(size=(n, 2)),
        np.array(["a", "b", "c"], np.object_)[random.integers(0, 3, n)],
    )
    label = (random.random(n) < rate).astype(np.float64)
    return rows_of(columns, np.full(n, scored), label, plan[:, None])


RARE = Schema(("x", "y"), ("plan",))


@pytest.mark.parametrize(("n", "rate"), [(300, 0.003), (500, 0.002), (5000, 0.0002)])
@pytest.mark.parametrize("scored", [0.003, 1e-6])
def test_a_reference_without_positives_makes_no_miracle_of_one(n: int, rate: float, scored: float) -> None:
    """At the rate that leaves a reference without one now and then, no channel's mean is above 0 by more than chance."""
    reference = msgspec.structs.replace(rare(n, rate, 1, scored), label=np.zeros(n))
    channels = of_labelled(reference, RARE)
    values = channels(rare(60_000, rate, 2, scored))
    assert (values.mean(axis=0) < 2.5 * values.std(axis=0) / np.sqrt(60_000)).all()


def test_values_of_rare_outcomes_stay_above_the_lowest_and_are_of_order_one() -> None:
    """The bound holds for labels never seen, and a positive is worth as much as half a row's says."""
    reference = msgspec.structs.replace(rare(300, 0.003, 1), label=np.zeros(300))
    channels = of_labelled(reference, RARE)
    for score in (0.0, 1.0):
        for label in (0.0, 1.0):
            odd = msgspec.structs.replace(
                rare(50, 0.5, 3), score=np.full(50, score), label=np.full(50, label)
            )
            assert (channels(odd) >= channels.lowest - 1e-9).all()
    assert channels(rare(1000, 0.5, 4))[:, :4].max() < np.sqrt(2 * 301)
