"""Facts about model/scorer.py."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from model import bundle
from model.bundle import BundleError
from model.features import Float32, Int32
from model.scorer import LiteRTScorer, split
from tests.builders import ROOT, SPEC, rows, sign_again

SIZES = (1, 16, 64, 256, 1024)


@pytest.fixture(scope="session")
def scorer(trained: Path) -> LiteRTScorer:
    """Scorer of that bundle."""
    return LiteRTScorer.load(trained)


def test_a_scorer_says_what_it_is(scorer: LiteRTScorer) -> None:
    """A scorer names the version and the spec of its bundle."""
    assert (scorer.version, scorer.spec) == ("7", SPEC)


def test_the_scorer_does_without_tensorflow() -> None:
    """Importing the scorer imports neither TensorFlow nor Keras, which cost 10 s and 700 MB."""
    program = "import sys, model.scorer; print([m for m in sys.modules if m.partition('.')[0] in ('tensorflow', 'keras')])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_score_does_not_depend_on_its_batch(scorer: LiteRTScorer) -> None:
    """A row gets the same bits alone, in every bucket, at any place in it, and beside any other rows."""
    numeric, categorical = rows(5000, seed=2)
    alone = np.concatenate([scorer.score(numeric[i : i + 1], categorical[i : i + 1]) for i in range(5000)])
    random = np.random.default_rng(3)
    for n in (2, 3, 15, 16, 17, 63, 64, 65, 200, 255, 256, 257, 700, 1023, 1024, 1025, 2500, 5000):
        for start in range(0, min(5000, 8 * n), n):
            chosen = random.permutation(5000)[:n]
            np.testing.assert_array_equal(
                scorer.score(numeric[chosen], categorical[chosen]), alone[chosen], f"{n} {start}"
            )


@pytest.mark.parametrize("size", SIZES)
def test_every_bucket_gives_the_same_bits(scorer: LiteRTScorer, size: int) -> None:
    """Each bucket, with whatever padding, agrees with the smallest to the bit."""
    numeric, categorical = rows(1500, seed=4)
    expected, actual = np.empty(1500, np.float32), np.empty(1500, np.float32)
    for bucket, scores in ((scorer._buckets[1], expected), (scorer._buckets[size], actual)):
        for start in range(0, 1500, bucket._size):
            chosen = slice(start, start + bucket._size)
            bucket.score(numeric[chosen], categorical[chosen], scores[chosen])
    np.testing.assert_array_equal(actual, expected)


def test_scores_are_probabilities_whatever_the_features(scorer: LiteRTScorer) -> None:
    """Missing, infinite and enormous values still give a probability."""
    numeric, categorical = rows(2000, seed=5)
    numeric[:100] = np.float32(3e38)
    scores = scorer.score(numeric, categorical)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_no_rows_give_no_scores(scorer: LiteRTScorer) -> None:
    """An empty batch is not an error."""
    numeric, categorical = rows(1)
    scores = scorer.score(numeric[:0], categorical[:0])
    assert scores.shape == (0,)
    assert scores.dtype == np.float32


def test_the_layout_in_memory_does_not_matter(scorer: LiteRTScorer) -> None:
    """Columns-first arrays and views of wider ones score like compact ones."""
    numeric, categorical = rows(300, seed=6)
    wide = np.column_stack([categorical, categorical])[:, : categorical.shape[1]]
    expected = scorer.score(numeric, categorical)
    np.testing.assert_array_equal(scorer.score(np.asfortranarray(numeric), wide), expected)


def test_threads_may_share_a_scorer(scorer: LiteRTScorer) -> None:
    """Calls from several threads at once give what they give one after the other."""
    batches = [rows(40 + seed, seed) for seed in range(40)]
    expected = [scorer.score(*batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        actual = list(pool.map(lambda batch: scorer.score(*batch), batches))
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("value", "text"), [(16, "got 16"), (-1, "got -1")])
def test_an_unknown_id_is_named(scorer: LiteRTScorer, value: int, text: str) -> None:
    """An id that its column does not have is told by column, row and value before LiteRT fails the batch."""
    numeric, categorical = rows(5)
    categorical[3, 1] = value
    with pytest.raises(ValueError, match=f"ids of `plan` are 0 to 15, {text} in row 3; hash"):
        scorer.score(numeric, categorical)


@pytest.mark.parametrize(
    ("numeric", "categorical", "message"),
    [
        (
            np.zeros((2, 3), np.float32),
            np.zeros((2, 2), np.int32),
            r"`numeric` is float32 \[2, 4\], got float32 \[2, 3\]",
        ),
        (
            np.zeros((2, 4)),
            np.zeros((2, 2), np.int32),
            r"`numeric` is float32 \[2, 4\], got float64 \[2, 4\]",
        ),
        (
            np.zeros((2, 4), np.float32),
            np.zeros((3, 2), np.int32),
            r"`categorical` is int32 \[2, 2\], got int32 \[3, 2\]",
        ),
        (
            np.zeros((2, 4), np.float32),
            np.zeros((2, 2), np.int64),
            r"`categorical` is int32 \[2, 2\], got int64",
        ),
    ],
)
def test_a_wrong_shape_or_type_is_named(
    scorer: LiteRTScorer, numeric: Float32, categorical: Int32, message: str
) -> None:
    """Rows of another shape or type are refused with what was expected and what came."""
    with pytest.raises(ValueError, match=message):
        scorer.score(numeric, categorical)


def test_a_refused_batch_leaves_no_trace(scorer: LiteRTScorer) -> None:
    """After an error the next batch scores as before."""
    numeric, categorical = rows(20, seed=7)
    before = scorer.score(numeric, categorical)
    with pytest.raises(ValueError, match="ids of `item`"):
        scorer.score(numeric, categorical + 1000)
    np.testing.assert_array_equal(scorer.score(numeric, categorical), before)


def test_a_damaged_bundle_does_not_load(copy: Path) -> None:
    """Loading verifies the bundle first."""
    (copy / "model.keras").write_bytes(b"")
    with pytest.raises(BundleError, match=r"model\.keras: the manifest says"):
        LiteRTScorer.load(copy)


@pytest.mark.parametrize("wrong", [0.001, np.nan])
def test_a_model_that_scores_otherwise_than_keras_does_not_load(copy: Path, wrong: float) -> None:
    """One golden row that is off by more than 1e-5, or not a number, refuses the bundle."""
    golden = bundle.read_golden(bundle.read(copy))
    golden.score[5] += np.float32(wrong)
    bundle.write_golden(copy, golden)
    sign_again(copy)
    with pytest.raises(
        BundleError, match="golden rows score within 1e-05 of Keras, got 1 of 256 further off"
    ):
        LiteRTScorer.load(copy)


def test_a_file_that_is_no_model_does_not_load(copy: Path) -> None:
    """Bytes that LiteRT cannot read refuse the bundle, digests or not."""
    (copy / "model.tflite").write_bytes(b"not a model")
    sign_again(copy)
    with pytest.raises(BundleError, match=r"model\.tflite: LiteRT cannot load it"):
        LiteRTScorer.load(copy)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (0, ()),
        (1, (1,)),
        (5, (16,)),
        (16, (16,)),
        (17, (16, 1)),
        (200, (256,)),
        (300, (256, 64)),
        (1024, (1024,)),
        (3000, (1024, 1024, 1024)),
    ],
)
def test_a_batch_is_split_into_few_and_full_buckets(n: int, expected: tuple[int, ...]) -> None:
    """Rows go into the buckets that compute the least in all."""
    assert expected == split(n, SIZES)


def test_every_split_holds_its_rows() -> None:
    """The buckets of a batch hold all of its rows, and only the last is padded."""
    for n in range(2100):
        sizes = split(n, SIZES)
        assert sum(sizes[:-1]) < n <= sum(sizes) if n else sizes == ()
