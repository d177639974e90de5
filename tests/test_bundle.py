"""Facts about model/bundle.py."""

from __future__ import annotations

import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest

from model import bundle
from model.bundle import BundleError
from model.features import Category, FeatureSpec
from tests.builders import SPEC, sign_again


def test_training_leaves_a_whole_bundle(trained: Path) -> None:
    """A trained bundle verifies, and its manifest lists exactly the files that were asked for."""
    read = bundle.read(trained)
    bundle.verify(read)
    top = {name.partition("/")[0] for name in read.manifest.files}
    assert {
        "model.tflite",
        "saved_model",
        "model.keras",
        "features.json",
        "golden.npz",
        "reference.npz",
    } == top
    assert (
        read.manifest.usecase,
        read.manifest.version,
        read.manifest.buckets,
    ) == ("synthetic", "7", (1, 16, 64, 256, 1024))
    assert read.spec == SPEC
    assert {"auc", "log_loss", "base_rate_log_loss"} < read.manifest.metrics.keys()


def test_training_leaves_nothing_but_the_bundle(trained: Path) -> None:
    """The folder in which the bundle was written is gone once the bundle has its name."""
    assert sorted(path.name for path in trained.parent.iterdir()) == [
        "bundle",
        "examples.parquet",
        "usecase.toml",
    ]


def test_saved_models_name_no_module(trained: Path) -> None:
    """The Keras file names our layers by package, so that moving a module breaks no saved model."""
    with zipfile.ZipFile(trained / "model.keras") as archive:
        config = archive.read("config.json").decode()
    assert "eddyline>Cross" in config
    assert "model.network" not in config


@pytest.mark.parametrize(
    "name", ["model.tflite", "golden.npz", "reference.npz", "saved_model/saved_model.pb", "model.keras"]
)
def test_a_changed_byte_is_found(copy: Path, name: str) -> None:
    """One flipped bit in any file is an error that names the file."""
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: the manifest says"):
        bundle.verify(bundle.read(copy))


@pytest.mark.parametrize("name", ["model.tflite", "saved_model/variables/variables.index"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    """A file that the manifest lists and the folder lacks is an error that names it."""
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: .*is missing"):
        bundle.verify(bundle.read(copy))


@pytest.mark.parametrize("name", ["notes.txt", "saved_model/assets/vocabulary.txt"])
def test_an_unlisted_file_is_named(copy: Path, name: str) -> None:
    """A file that the manifest does not list is an error that names it, in a folder of the bundle, too."""
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("not asked for")
    with pytest.raises(BundleError, match=f"{name}: .*is not in it"):
        bundle.verify(bundle.read(copy))


def test_a_link_is_no_file(copy: Path) -> None:
    """A link to the right bytes is refused: what it points to may change after the check."""
    elsewhere = copy.parent / "elsewhere"
    (copy / "model.tflite").rename(elsewhere)
    (copy / "model.tflite").symlink_to(elsewhere)
    with pytest.raises(BundleError, match=r"model\.tflite: a bundle holds plain files only"):
        bundle.verify(bundle.read(copy))


@pytest.mark.parametrize("name", ["model.tflite", "golden.npz", "reference.npz"])
def test_a_bundle_cannot_vouch_for_what_it_lacks(copy: Path, name: str) -> None:
    """A manifest that does not list a file that every bundle has is not taken for whole: the file is missing."""
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: .*is missing"):
        bundle.verify(sign_again(copy))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": bundle.FORMAT + 1},
            rf"manifest\.json: this program reads bundles of format {bundle.FORMAT}, got {bundle.FORMAT + 1}; upgrade it",
        ),
        ({"format": bundle.FORMAT - 1}, f"got {bundle.FORMAT - 1}; train a new version"),
        ({"buckets": [16, 1]}, r"buckets are sizes in rising order, got \[16, 1\]"),
        ({"buckets": []}, "buckets are sizes in rising order"),
        ({"version": 7}, r"manifest\.json: not a manifest: Expected `str`, got `int`"),
    ],
)
def test_a_manifest_that_cannot_be_understood_is_refused(
    copy: Path, change: dict[str, object], message: str
) -> None:
    """A manifest of another format, or of none, is an error with what came and what to do."""
    manifest = msgspec.json.decode((copy / "manifest.json").read_bytes())
    (copy / "manifest.json").write_bytes(msgspec.json.encode({**manifest, **change}))
    with pytest.raises(BundleError, match=message):
        bundle.read(copy)


def test_no_bundle_is_an_error_that_says_where(tmp_path: Path) -> None:
    """A folder without a manifest is an error that names the file."""
    with pytest.raises(BundleError, match=r"manifest\.json: cannot be read: No such file"):
        bundle.read(tmp_path)


def test_the_digest_covers_every_file(copy: Path) -> None:
    """The one digest that is announced changes when any file does."""
    before = bundle.read(copy).digest
    (copy / "features.json").write_bytes((copy / "features.json").read_bytes() + b"\n")
    assert before != sign_again(copy).digest


def test_a_half_written_bundle_is_never_seen(tmp_path: Path) -> None:
    """While writing, and after writing has failed, there is nothing under the bundle's name and nothing left over."""
    out = tmp_path / "version"

    def stop_half_way() -> None:
        with bundle.writing(out) as directory:
            (directory / "model.tflite").write_bytes(b"half")
            assert not out.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_half_way()
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_never_written_over(tmp_path: Path) -> None:
    """Writing where something is, even an empty folder, is refused and changes nothing."""
    (tmp_path / "version").mkdir()
    with (
        pytest.raises(BundleError, match="written once, and this exists"),
        bundle.writing(tmp_path / "version"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["version"]


def test_of_two_writers_the_first_wins(tmp_path: Path) -> None:
    """A writer that finds the name taken at the end says so and leaves the other's bundle as it is."""
    out = tmp_path / "version"

    def write(content: bytes) -> None:
        with bundle.writing(out) as directory:
            (directory / "file").write_bytes(content)
            if content == b"second":
                write(b"first")

    with pytest.raises(BundleError, match="cannot take this name"):
        write(b"second")
    assert (out / "file").read_bytes() == b"first"


def test_golden_rows_are_never_unpickled(copy: Path) -> None:
    """Golden rows that would need pickle are refused, even with digests that fit."""
    odd = np.array([object()], dtype=object)
    np.savez(copy / "golden.npz", numeric=odd, categorical=odd, score=odd)
    with pytest.raises(BundleError, match=r"golden\.npz: golden rows cannot be read: .*allow_pickle"):
        bundle.read_golden(sign_again(copy))


def test_golden_rows_fit_the_spec(copy: Path) -> None:
    """Golden rows with another number of columns are refused."""
    none = np.zeros((3, 0), np.int32)
    bundle.write_golden(copy, bundle.Golden(np.zeros((3, 2), np.float32), none, np.zeros(3, np.float32)))
    with pytest.raises(BundleError, match=r"have the shapes \[\(3, 4\), \(3, 2\), \(3,\)\].*got \[\(3, 2\)"):
        bundle.read_golden(sign_again(copy))


def test_golden_rows_have_missing_values(trained: Path) -> None:
    """Among the golden rows are missing numbers and missing categories, and whole rows of them."""
    golden = bundle.read_golden(bundle.read(trained))
    assert np.isnan(golden.numeric).any(axis=0).all()
    assert (golden.categorical == 0).any(axis=0).all()
    assert np.isnan(golden.numeric[-1]).all()
    assert np.isfinite(golden.score).all()


def test_the_spec_of_the_use_case_fits(trained: Path) -> None:
    """A bundle trained with a use case passes the check against it."""
    bundle.check_spec(bundle.read(trained), SPEC)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (
            FeatureSpec((*SPEC.numeric, "age"), SPEC.categorical),
            "`age` is absent in the model and numeric in the use case",
        ),
        (
            FeatureSpec(SPEC.numeric[1:], SPEC.categorical),
            "`views` is numeric in the model and absent in the use case",
        ),
        (
            FeatureSpec(SPEC.numeric, (SPEC.categorical[0], Category("plan", 99))),
            "`plan` is a category of 16 buckets in the model and a category of 99 buckets in the use case",
        ),
        (FeatureSpec(SPEC.numeric[::-1], SPEC.categorical), r"the order is .*'views'.* in the model"),
    ],
)
def test_another_spec_is_told_by_its_columns(trained: Path, expected: FeatureSpec, message: str) -> None:
    """Every column that differs from the use case's is named with what it is on both sides."""
    with pytest.raises(BundleError, match=message):
        bundle.check_spec(bundle.read(trained), expected)
