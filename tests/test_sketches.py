"""Facts about the small memories: exact while they can be, within their stated errors after."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stream.sketches import (
    DISTINCT_BOUND,
    FREQUENT_BOUND,
    Distinct,
    Frequent,
    HashSample,
    Reservoir,
    column_hashes,
    hashes,
    number_hashes,
)


def test_hashes_are_the_same_in_every_process() -> None:
    """A user is in the sample today and tomorrow."""
    assert [11957940740637538957, 10566683571197309812] == hashes(["ann", "bob"]).tolist()


def test_a_missing_value_hashes_to_zero() -> None:
    """Repeated values hash alike, a missing one is 0."""
    a, none, b, again = column_hashes(["a", None, "b", "a"]).tolist()
    assert none == 0
    assert a == again != b


def test_both_zeros_are_one_number() -> None:
    """0.0 and -0.0 are the same value."""
    assert len(set(number_hashes(np.array([0.0, -0.0])).tolist())) == 1


@pytest.mark.parametrize("n", [0, 1, DISTINCT_BOUND])
def test_distinct_is_exact_up_to_its_bound(n: int) -> None:
    """Whatever repeats."""
    distinct = Distinct()
    for _ in range(2):
        distinct.add(hashes(map(str, range(n))))
    assert (n, True) == (distinct.count, distinct.exact)


def test_distinct_is_near_beyond_its_bound() -> None:
    """200,000 values in runs of 10,000, each twice: within three standard errors."""
    distinct = Distinct()
    for start in list(range(0, 200_000, 10_000)) * 2:
        distinct.add(hashes(map(str, range(start, start + 10_000))))
    assert not distinct.exact
    assert abs(distinct.count / 200_000 - 1) < 0.05


def test_a_hash_sample_holds_all_rows_of_the_keys_it_keeps() -> None:
    """Of 1,000 keys with 20 rows each, spread over the stream, 5,000 rows are held at most."""
    keys = hashes(map(str, range(1000)))
    sample = HashSample(5000)
    for turn in range(20):
        sample.add(keys, np.full(1000, turn))
    kept, turns = sample.columns()
    assert len(kept) <= 5000
    assert sample.share == 0.25
    assert {20} == set(Counter(kept.tolist()).values())
    assert {20} == {len(set(turns[kept == key].tolist())) for key in set(kept.tolist())}


def test_frequent_values_are_found_among_many_rare_ones() -> None:
    """Two frequent values among 50,000 rare ones come first, their counts within the stated loss."""
    frequent = Frequent()
    for n in range(100):
        frequent.add({"often": 40, "less": 20} | {f"rare-{500 * n + i}": 1 for i in range(500)})
    (first, count), (second, other) = frequent.top(2)
    assert ("often", "less") == (first, second)
    assert 4000 - frequent.lost <= count <= 4000
    assert 2000 - frequent.lost <= other <= 2000
    assert frequent.lost <= 56_000 / FREQUENT_BOUND


def test_a_reservoir_is_a_uniform_sample() -> None:
    """Its mean over a rising sequence is that of the whole, not of its end."""
    reservoir = Reservoir(2000, seed=0)
    for start in range(0, 100_000, 1000):
        reservoir.add(np.arange(start, start + 1000, dtype=np.float64))
    assert len(reservoir.values) == 2000
    assert abs(reservoir.values.mean() / 50_000 - 1) < 0.04  # three standard errors
