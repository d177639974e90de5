"""Facts about model/network.py; they import TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from model import usecase
from model.bundle import read, read_golden
from model.features import Category, FeatureSpec, Float32, Int32
from model.normalisation import CLIP, Normalisation
from model.scorer import LiteRTScorer, _Bucket
from tests.builders import SPEC, rows, tensorflow


@pytest.fixture(scope="session")
def network() -> Any:
    """Module under test, imported only when a test runs: TensorFlow takes 10 s."""
    return tensorflow("model.network")


def scores(network: Any, model: Any, spec: FeatureSpec, numeric: Float32, categorical: Int32) -> Float32:
    """Score [n] rows with a Keras model."""
    return np.asarray(model(network.inputs(spec, numeric, categorical)))[:, 0]


def exported(model: Any, spec: FeatureSpec, size: int, folder: Path) -> _Bucket:
    """Export a Keras model to LiteRT, once a folder, and load it for batches of ``size``."""
    path = folder / "model.tflite"
    if not path.exists():
        model.export(path, format="litert", verbose=False)
    return _Bucket(path.read_bytes(), size, spec)


def test_three_runtimes_agree(network: Any, trained: Path) -> None:
    """LiteRT, the SavedModel and Keras give each row the same score to 1e-5, whatever its values."""
    numeric, categorical = rows(3000, seed=8)
    keras_model = network.keras.saving.load_model(trained / "model.keras")
    by_keras = scores(network, keras_model, SPEC, numeric, categorical)
    served = network.tf.saved_model.load(trained / "saved_model").signatures["serving_default"]
    (by_saved_model,) = served(
        numeric=network.tf.constant(numeric), categorical=network.tf.constant(categorical)
    ).values()
    by_litert = LiteRTScorer.load(trained).score(numeric, categorical)
    np.testing.assert_allclose(by_litert, by_keras, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(by_saved_model)[:, 0], by_keras, rtol=0, atol=1e-5)
    assert np.ptp(by_keras) > 0.9  # else agreement would say little


def test_golden_scores_are_those_of_keras(network: Any, trained: Path) -> None:
    """The stored Keras model gives the golden rows the golden scores."""
    golden = read_golden(read(trained))
    model = network.keras.saving.load_model(trained / "model.keras")
    again = scores(network, model, SPEC, golden.numeric, golden.categorical)
    np.testing.assert_allclose(again, golden.score, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "sizes"),
    [
        (FeatureSpec(("a", "b"), ()), usecase.Network()),
        (FeatureSpec((), (Category("c", 5),)), usecase.Network()),
        (FeatureSpec(("a",), (Category("c", 5),)), usecase.Network(cross_layers=0, dense=())),
    ],
    ids=["numbers only", "categories only", "logistic regression"],
)
def test_any_kind_of_column_and_layer_may_be_absent(
    network: Any, tmp_path: Path, spec: FeatureSpec, sizes: usecase.Network
) -> None:
    """A network without numbers, categories, cross or dense layers builds, exports to LiteRT and scores."""
    numeric = np.array([[1.0, np.nan], [0.0, -5.0]], np.float32)[:, : len(spec.numeric)]
    categorical = np.array([[4], [0]], np.int32)[:, : len(spec.categorical)]
    model = network.build(spec, sizes, network.Normalisation.of(numeric))
    bucket = exported(model, spec, 2, tmp_path)
    expected = scores(network, model, spec, numeric, categorical)
    actual = np.empty(2, np.float32)
    bucket.score(numeric, categorical, actual)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


def test_a_network_needs_a_column(network: Any) -> None:
    """A spec without columns is refused with what to do."""
    with pytest.raises(
        ValueError, match=r"at least one feature, got a spec without columns; declare \[features.NAME\]"
    ):
        network.build(FeatureSpec((), ()), usecase.Network(), network.Normalisation((), (), (), (), ()))


def test_equal_seeds_give_equal_networks(network: Any) -> None:
    """The start is a function of the seed alone, and no two layers start alike."""
    numeric, categorical = rows(50)
    build = [
        network.build(SPEC, usecase.Network(), network.Normalisation.of(numeric), seed=seed)
        for seed in (1, 1, 2)
    ]
    first, same, other = (scores(network, model, SPEC, numeric, categorical) for model in build)
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    crosses = [build[0].get_layer(f"cross_{i}").get_weights()[0] for i in (0, 1)]
    assert not np.array_equal(*crosses)


def standardise(network: Any, learned: Normalisation) -> Any:
    """The layer that scales as was ``learned``."""
    values = msgspec.structs.asdict(learned)
    return network.Standardise({name: list(each) for name, each in values.items()})


def test_missing_is_not_zero(network: Any) -> None:
    """A missing value and 0 are different inputs, and a missing value adds nothing but its indicator."""
    learned = {"scale": [1.0], "mean": [0.5], "std": [2.0], "low": [-8.0], "high": [8.0]}
    layer = network.Standardise(learned)
    missing, zero = np.asarray(layer(np.array([[np.nan], [0.0]], np.float32)))
    assert missing.tolist() == [0.0, 1.0]
    assert zero.tolist() == [-0.25, 0.0]


def test_the_unit_of_a_feature_does_not_matter(network: Any) -> None:
    """A column given in seconds or in days is the same to the network, since its scale is learned."""
    numeric, _ = rows(500, seed=9)
    numeric = numeric[np.abs(numeric).max(axis=1) < 1e6]
    outputs = []
    for unit in (1.0, 86400.0, 1e-3):
        values = (numeric * np.float32(unit)).astype(np.float32)
        learned = network.Normalisation.of(values)
        outputs.append(np.asarray(standardise(network, learned)(values)))
    np.testing.assert_allclose(outputs[1], outputs[0], atol=2e-5)
    np.testing.assert_allclose(outputs[2], outputs[0], atol=2e-5)


def test_scaled_columns_are_standard(network: Any) -> None:
    """After scaling, what is present of a column has mean 0 and standard deviation 1, but for the clipped tails."""
    numeric = np.exp(np.random.default_rng(0).normal(size=(2000, 3)) * 2).astype(np.float32)
    numeric[::7] = np.nan
    learned = network.Normalisation.of(numeric)
    scaled = np.asarray(standardise(network, learned)(numeric))[:, :3]
    present = scaled[~np.isnan(numeric[:, 0])]
    np.testing.assert_allclose(present.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(present.std(axis=0), 1, atol=0.1)


@pytest.mark.parametrize("column", [np.nan, 0.0, 7.0, np.inf], ids=str)
def test_a_column_without_variety_is_harmless(network: Any, column: float) -> None:
    """A column that is missing, constant or infinite throughout scales to finite values, then and later."""
    learned = network.Normalisation.of(np.full((10, 1), column, np.float32))
    later = np.array([[column], [1e30], [-1e-30], [np.nan]], np.float32)
    scaled = np.asarray(standardise(network, learned)(later))
    assert np.isfinite(scaled).all()
    assert np.abs(scaled).max() <= CLIP


def test_what_lies_beyond_the_fitted_range_counts_as_its_end(network: Any) -> None:
    """A value further out than nearly all that were fitted says no more than those; a rare count does."""
    count = np.where(np.arange(2000) % 500 == 0, 5.0, 0.0)  # 4 of 2000
    numeric = np.column_stack([np.linspace(1, 100, 2000), count]).astype(np.float32)
    layer = standardise(network, network.Normalisation.of(numeric))
    outside, end = np.asarray(layer(np.array([[1e6, 0], [97.0, 5]], np.float32)))
    assert outside[0] == pytest.approx(end[0], abs=0.02)
    assert end[1] - outside[1] > 5


def test_scaling_without_tensorflow_is_the_same(network: Any) -> None:
    """What logistic regression reads is what the network reads, up to rounding."""
    numeric, _ = rows(500)
    learned = network.Normalisation.of(numeric)
    scaled = np.asarray(standardise(network, learned)(numeric))[:, : numeric.shape[1]]
    np.testing.assert_allclose(learned(numeric), scaled, atol=1e-4)


def test_a_new_network_scores_about_the_base_rate(network: Any) -> None:
    """Before training the mean score is near the base rate, so that the first steps are not spent on it."""
    numeric = np.random.default_rng(1).normal(size=(500, len(SPEC.numeric))).astype(np.float32)
    categorical = rows(500)[1]
    model = network.build(SPEC, usecase.Network(), network.Normalisation.of(numeric), base_rate=0.03)
    assert scores(network, model, SPEC, numeric, categorical).mean() == pytest.approx(0.03, abs=0.03)


def test_a_large_network_gives_a_row_the_same_bits_in_every_bucket(network: Any, tmp_path: Path) -> None:
    """With 40 numbers, 7 categories and 200 000 weights that are not small, no batch size changes a bit."""
    buckets = (20_000, 997, 50, 50, 7, 7, 2)
    spec = FeatureSpec(
        tuple(f"f{i}" for i in range(40)), tuple(Category(f"c{i}", size) for i, size in enumerate(buckets))
    )
    sizes = usecase.Network(embedding=8, cross_layers=2, cross_rank=32, dense=(128, 64))
    random = np.random.default_rng(11)
    numeric = (random.normal(size=(3000, 40)) * np.exp(random.normal(size=(1, 40)) * 3)).astype(np.float32)
    numeric[random.random(numeric.shape) < 0.1] = np.nan
    categorical = np.column_stack([random.integers(0, size, 3000) for size in buckets]).astype(np.int32)
    model = network.build(spec, sizes, network.Normalisation.of(numeric))
    for weight in model.trainable_variables:
        weight.assign_add(random.normal(0, 0.1, weight.shape).astype(np.float32))
    results = {}
    for size in (1, 16, 64, 256, 1024):
        bucket, results[size] = exported(model, spec, size, tmp_path), np.empty(3000, np.float32)
        for start in range(0, 3000, size):
            chosen = slice(start, start + size)
            bucket.score(numeric[chosen], categorical[chosen], results[size][chosen])
    for size, result in results.items():
        np.testing.assert_array_equal(result, results[1], f"bucket {size}")
    np.testing.assert_allclose(
        results[1], scores(network, model, spec, numeric, categorical), rtol=0, atol=1e-5
    )
    assert np.ptp(results[1]) > 0.5
