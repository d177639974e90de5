"""Facts about model/reference.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from model import bundle, reference
from model.bundle import Bundle, BundleError, Manifest
from model.reference import Reference, sample
from model.usecase import Drift, Duration
from tests.builders import SPEC, START, decisions

DAY = 86_400_000  # ms
FIRST = START // (14 * DAY) * 14 * DAY  # a midnight, where blocks of a day and of two begin
DAILY = Drift(block=Duration(86_400), reference=500)


def visits(users: int, days: int, a_day: int = 3) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """User and time [n], in order of time: each of ``users`` decides ``a_day`` times on each of ``days``."""
    n = users * days * a_day
    return np.arange(n) % users, FIRST + np.arange(n) * (days * DAY // n)


def of(user: NDArray[np.int64], time: NDArray[np.int64], policy: Drift = DAILY, seed: int = 0) -> Any:
    """Rows of the sample, as places in what it was drawn from."""
    drawn = sample(decisions(user, time), np.zeros(len(user), np.float32), policy, seed)
    return drawn.numeric[:, 0].astype(int)


def test_a_user_gives_one_row_a_block() -> None:
    """However often a user decides on a day, the first decision of it alone can be in the sample."""
    user, time = visits(users=30, days=10)
    rows = of(user, time)
    days = (time - FIRST) // DAY
    assert len(rows) == 300
    assert len(np.unique(np.column_stack([user[rows], days[rows]]), axis=0)) == 300
    earlier = [((user[:row] == user[row]) & (days[:row] == days[row])).any() for row in rows]
    assert not any(earlier)


def test_blocks_are_as_long_as_the_policy_says() -> None:
    """With blocks of two days half as many rows remain, with blocks of a second all do."""
    user, time = visits(users=10, days=10)
    lengths = {2 * 86_400.0: 50, 1.0: 300, 0.0001: 300}
    for seconds, left in lengths.items():
        assert len(of(user, time, Drift(block=Duration(seconds), reference=500))) == left


def test_the_sample_is_as_large_as_asked_for() -> None:
    """Of more rows than enough exactly ``reference`` are drawn, each once; of fewer, all."""
    user, time = visits(users=400, days=5, a_day=1)
    for wanted in (500, 501, 1999, 2000, 5000):
        rows = of(user, time, Drift(reference=wanted))
        assert len(rows) == len(set(rows.tolist())) == min(wanted, 2000)


def test_users_give_rows_evenly() -> None:
    """A user gives no more than its share rounded up, so that few rows depend on each other."""
    user, time = visits(users=200, days=10, a_day=1)
    for wanted, most in ((500, 3), (1000, 5)):
        counts = np.bincount(user[of(user, time, Drift(reference=wanted))], minlength=200)
        assert (counts.min(), counts.max()) == (wanted // 200, most)


def test_every_block_of_a_user_has_the_same_chance() -> None:
    """Users who come every day are as large a part of the sample as of the stream, rather than under-represented."""
    user, time = visits(users=200, days=20, a_day=1)
    kept = (user < 100) | ((time - FIRST) // DAY % 10 == 0)  # the others come every tenth day
    user, time = user[kept], time[kept]
    shares = [float((user[of(user, time, seed=seed)] < 100).mean()) for seed in range(20)]
    assert float((user < 100).mean()) == pytest.approx(2000 / 2200)
    assert np.mean(shares) == pytest.approx(2000 / 2200, abs=0.01)
    assert max(abs(share - 2000 / 2200) for share in shares) < 0.04


def test_the_sample_is_spread_over_the_whole_time() -> None:
    """Each tenth of the time gives about a tenth of the rows, each weekday a seventh; they come in order of time."""
    user, time = visits(users=100, days=70, a_day=1)
    for wanted in (
        500,
        1000,
        700,
    ):  # every 14th, 7th and 10th: steps that could keep to one weekday, or to one tenth
        rows = of(user, time, Drift(reference=wanted))
        assert (np.diff(rows) > 0).all()
        for parts, kinds in ((rows // 700, 10), (rows // 100 % 7, 7)):
            counts = np.bincount(parts, minlength=kinds)
            assert np.abs(counts - wanted / kinds).max() < 3 * (wanted / kinds) ** 0.5


def test_equal_arguments_draw_equal_samples() -> None:
    """The same seed draws the same rows, another seed others, and users may bear any numbers."""
    user, time = visits(users=400, days=5)
    rows = of(user, time, seed=3)
    np.testing.assert_array_equal(rows, of(user, time, seed=3))
    np.testing.assert_array_equal(rows, of(user * 1000 - 7, time, seed=3))
    assert set(rows.tolist()) != set(of(user, time, seed=4).tolist())


def test_rows_stay_whole() -> None:
    """Numbers, strings, score, label and time of a sampled row are those of one example."""
    examples = decisions(*visits(users=100, days=10))
    score = np.random.default_rng(1).random(len(examples)).astype(np.float32)
    drawn = sample(examples, score, DAILY, seed=0)
    rows = drawn.numeric[:, 0].astype(int)
    np.testing.assert_array_equal(drawn.numeric, examples.numeric[rows])
    np.testing.assert_array_equal(drawn.categorical, examples.categories[rows])
    np.testing.assert_array_equal(drawn.score, score[rows])
    np.testing.assert_array_equal(drawn.label, examples.label[rows])
    np.testing.assert_array_equal(drawn.time, examples.time[rows])


def test_of_no_examples_none_are_drawn() -> None:
    """Without examples the sample is empty, with the columns that it would have had."""
    none = np.empty(0, np.int64)
    drawn = sample(decisions(none, none), np.empty(0, np.float32), DAILY, seed=0)
    assert (len(drawn), drawn.categorical.shape) == (0, (0, len(SPEC.categorical)))


@pytest.fixture
def holder(tmp_path: Path) -> Bundle:
    """A bundle as far as a reference sample needs one."""
    manifest = Manifest(usecase="synthetic", version="1", created="", metrics={}, buckets=bundle.BUCKETS)
    return Bundle(tmp_path, manifest, SPEC, digest="")


def drawn() -> Reference:
    """A sample with missing and odd values."""
    examples = decisions(*visits(users=20, days=5))
    return sample(examples, np.linspace(0, 1, len(examples), dtype=np.float32), DAILY, seed=0)


def test_a_sample_comes_back_exactly(holder: Bundle) -> None:
    """What was written is read, to the bit: missing values, empty strings, NULs at a string's end, and types."""
    written = drawn()
    assert {*written.categorical.ravel().tolist()} == {"", "a", "b\0", "größer", None}
    assert np.isnan(written.numeric).any()
    reference.write(holder.directory, written)
    found = reference.read(holder)
    for name in Reference.__struct_fields__:
        was, now = getattr(written, name), getattr(found, name)
        assert was.dtype == now.dtype
        np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize("texts", [[None, None], ["", ""], ["x" * 100_000, None]])
def test_strings_of_every_length_come_back(holder: Bundle, texts: list[str | None]) -> None:
    """No strings at all, empty ones and a very long one come back, and take no more room than they need."""
    one = msgspec.structs.replace(drawn(), categorical=np.array([texts] * 100, np.object_))
    reference.write(holder.directory, one)
    assert reference.read(holder).categorical.tolist() == [texts] * 100
    assert (holder.directory / "reference.npz").stat().st_size < 50_000


def test_a_spec_without_categories_or_numbers_will_do(holder: Bundle) -> None:
    """A model that reads numbers alone, or categories alone, has a reference sample, too."""
    for spec in (
        msgspec.structs.replace(SPEC, categorical=()),
        msgspec.structs.replace(SPEC, numeric=()),
    ):
        whole = drawn()
        part = msgspec.structs.replace(
            whole,
            numeric=whole.numeric[:, : len(spec.numeric)],
            categorical=whole.categorical[:, : len(spec.categorical)],
            usual=whole.usual[:, : len(spec.numeric) + len(spec.categorical)],
        )
        reference.write(holder.directory, part)
        found = reference.read(msgspec.structs.replace(holder, spec=spec))
        assert (found.numeric.shape, found.categorical.shape) == (part.numeric.shape, part.categorical.shape)


def test_no_sample_is_an_error_that_says_where(holder: Bundle) -> None:
    """A bundle without the file is an error that names it and says what to do."""
    with pytest.raises(
        BundleError,
        match=r"reference\.npz: reference sample cannot be read: .*No such file.*; fetch the bundle again",
    ):
        reference.read(holder)


def test_a_sample_is_never_unpickled(holder: Bundle) -> None:
    """An array that would need pickle is refused."""
    odd = np.array([object()], dtype=object)
    np.savez(holder.directory / "reference.npz", numeric=odd)
    with pytest.raises(BundleError, match=r"reference sample cannot be read: .*allow_pickle"):
        reference.read(holder)


def test_no_damage_goes_unnoticed_or_unexplained(holder: Bundle) -> None:
    """A file cut short, or with bytes turned round anywhere, is a BundleError and nothing else, if not read all the same."""
    reference.write(holder.directory, drawn())
    path = holder.directory / "reference.npz"
    content = path.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[random.integers(len(content))] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            reference.read(holder)
        except BundleError:
            refused += 1
    assert refused > 200  # the rest hit what a ZIP file says twice, or to nobody
    for size in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(BundleError, match="reference sample cannot be read"):
            reference.read(holder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numeric": np.zeros((100, 2), np.float32)}, r"`numeric` .* is float32 \[100, 4\], got float32 \[100, 2\]"),
        ({"numeric": np.zeros((100, 4))}, r"`numeric` .* is float32 \[100, 4\], got float64 \[100, 4\]"),
        ({"lengths": np.zeros(100, np.int32)}, r"`lengths` .* is int32 \[100, 2\], got int32 \[100\]"),
        ({"score": np.zeros(99, np.float32)}, r"`score` .* is float32 \[100\], got float32 \[99\]"),
        ({"time": np.int64(3)}, r"`numeric` .* is float32 \[1, 4\]"),
        ({"score": np.full(100, np.nan, np.float32)}, r"`score` .* is a probability, got nan in row 0"),
        ({"score": np.linspace(0, 2, 100, dtype=np.float32)}, r"is a probability, got 1\.01.* in row 50"),
        ({"label": np.full(100, 0.5, np.float32)}, r"`label` .* is 0 or 1, got 0\.5 in row 0"),
        ({"text": np.zeros(7, np.uint8)}, r"are as long together as their text, got \d+ and 7 bytes"),
        ({"lengths": np.full((100, 2), -2, np.int32)}, "are as long together as their text, got 0 and"),
        ({"text": np.full(1, 0xFF, np.uint8), "lengths": np.array([[1, -1]] + [[-1, -1]] * 99, np.int32)}, "are UTF-8"),
    ],
)  # fmt: skip
def test_a_sample_fits_the_spec(holder: Bundle, change: dict[str, NDArray[Any]], message: str) -> None:
    """An array of another shape or type, or values that cannot be, are an error that says which and what came."""
    reference.write(holder.directory, drawn())
    path = holder.directory / "reference.npz"
    with np.load(path) as arrays:
        content = dict(arrays)
    np.savez_compressed(path, **{**content, **change})
    with pytest.raises(BundleError, match=message):
        reference.read(holder)


def test_an_empty_sample_is_refused(holder: Bundle) -> None:
    """A sample of no rows is nothing to compare with."""
    none = np.empty(0, np.int64)
    empty = sample(decisions(none, none), np.empty(0, np.float32), DAILY, seed=0)
    reference.write(holder.directory, empty)
    with pytest.raises(BundleError, match=r"`numeric` .* is float32 \[1, 4\], got float32 \[0, 4\]"):
        reference.read(holder)


def test_what_is_usual_is_the_most_that_a_block_of_training_had() -> None:
    """Of the days that were trained on, the one with most missing, most alike and most strange values counts."""
    user, time = visits(users=100, days=4, a_day=1)
    history = decisions(user, time)
    first = np.arange(len(user)) < 100
    numeric, categorical = history.numeric.copy(), history.categorical.copy()
    numeric[first, 0], numeric[first, 1] = np.nan, 7.0
    categorical[first, 0] = 1 + categorical.max()
    history = msgspec.structs.replace(history, numeric=numeric, categorical=categorical)
    drawn = sample(history[~first], np.zeros(300, np.float32), DAILY, 0, history)
    f = history.numeric.shape[1]
    missing, alike, strange = drawn.usual
    assert 1.0 == missing[0]
    assert 1.0 == alike[1]
    assert 1.0 == strange[f]
    calm = sample(history[~first], np.zeros(300, np.float32), DAILY, 0)
    assert calm.usual[0, 0] < 0.1
    assert 0.0 == calm.usual[2, f]
