"""Facts about deploy/hotswap.py and deploy/live.py: which version scores here, and which never does."""

from __future__ import annotations

import errno
import gc
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deploy import transitions
from deploy.hotswap import MENDING_S, Swapper, chosen
from deploy.live import ROWS, Live, Source, positions
from deploy.registry import Registry
from deploy.release import Placed, Role
from model.bundle import (
    FEATURES,
    FORMAT,
    GOLDEN,
    MANIFEST,
    MODEL,
    BundleError,
    Fault,
    read,
    read_arrays,
    read_golden,
    write_golden,
)
from model.scorer import LiteRTScorer
from model.usecase import parse
from tests.builders import CASE, SPEC, USECASE, rows
from tests.variants import correction, planted, poisoned, promoted, publish, signed, variant


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty registry in a folder."""
    return Registry(str(tmp_path / "registry"))


@pytest.fixture
def versions(trained: Path, tmp_path: Path) -> list[Path]:
    """Four good bundles, each with scores of its own."""
    return [
        variant(trained, tmp_path, name, shift) for name, shift in (("a", 0), ("b", 1), ("c", -1), ("d", 2))
    ]


def names(live: Live) -> list[tuple[str, str]]:
    """The versions that score, with their roles."""
    return [(model.version, role) for model, role in live.models]


def test_scores_are_priors_until_there_is_a_release(registry: Registry, versions: list[Path]) -> None:
    """An empty registry is no error; the first release goes live when it is there."""
    swapper = Swapper(registry, CASE)
    assert not swapper.look().swapped
    assert names(swapper.current) == []
    promoted(registry, versions[0])
    assert swapper.look().swapped
    assert names(swapper.current) == [("a", "live")]
    assert not swapper.look().swapped


def test_every_change_of_a_release_comes_to_life(registry: Registry, versions: list[Path]) -> None:
    """Promotion, correction, shadow, canary, rollback: what scores is what the newest release says, with its role and share."""
    swapper = Swapper(registry, CASE)
    a, b, c, _ = (registry.add(each) for each in versions)
    corrected = correction(0.5, 0.2)

    def after(change: Callable[..., object], *values: object, **given: object) -> list[tuple[str, str]]:
        publish(registry, change, *values, **given)  # type: ignore[arg-type]  # each is a change
        assert swapper.look().swapped
        return names(swapper.current)

    assert after(transitions.promote, a, share=0.1) == [("a", "live")]
    assert after(transitions.correct, corrected, model="a") == [("a", "live")]
    assert swapper.current.model is not None
    assert swapper.current.model.correction == corrected
    assert after(transitions.shadow, b, share=0.3) == [("a", "live"), ("b", "shadow")]
    assert (swapper.current.role, swapper.current.share) == (Role.SHADOW, 0.3)
    assert after(transitions.canary, b, share=0.2) == [("a", "live"), ("b", "canary")]
    assert after(transitions.promote, b, share=0.1) == [("b", "live"), ("a", "previous")]
    assert swapper.current.beside is not None
    assert swapper.current.beside.correction == corrected
    assert after(transitions.promote, c, share=0.1) == [("c", "live"), ("b", "previous")]
    assert after(transitions.rollback) == [("b", "live")]


def test_versions_that_stay_are_not_loaded_again(registry: Registry, versions: list[Path]) -> None:
    """A release that changes roles or the correction alone keeps the models that score."""
    swapper = Swapper(registry, CASE)
    promoted(registry, versions[0])
    swapper.look()
    before = swapper.current.model
    promoted(registry, versions[1])
    shutil.rmtree(Path(registry.url, "versions", "a"))  # could not be loaded any more
    swapper.look()
    assert before is not None
    assert swapper.current.beside is not None
    assert swapper.current.beside.scorer is before.scorer
    publish(registry, transitions.rollback)
    assert swapper.look().swapped
    assert swapper.current.model is not None
    assert swapper.current.model.scorer is before.scorer


def test_what_no_longer_scores_is_freed(registry: Registry, versions: list[Path]) -> None:
    """After two promotions nothing holds the first version, without the garbage collector's help."""
    swapper = Swapper(registry, CASE)
    promoted(registry, versions[0])
    swapper.look()
    assert swapper.current.model is not None
    first = weakref.ref(swapper.current.model.scorer)
    gc.disable()
    try:
        for version in versions[1:3]:
            assert first() is not None
            promoted(registry, version)
            swapper.look()
        assert first() is None
    finally:
        gc.enable()


def damaged(directory: Path) -> Path:
    """Bytes of the model have flipped since it was signed."""
    content = bytearray((directory / MODEL).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (directory / MODEL).write_bytes(content)
    return directory


def no_model(directory: Path) -> Path:
    """What is signed is no model."""
    (directory / MODEL).write_bytes(b"no model" * 100)
    return signed(directory, "bad")


def other_scores(directory: Path) -> Path:
    """The golden rows were scored by another network."""
    golden = read_golden(read(directory))
    write_golden(directory, type(golden)(golden.numeric, golden.categorical, 1 - golden.score))
    return signed(directory, "bad")


def other_features(directory: Path) -> Path:
    """It reads a feature that the use case calls otherwise."""
    path = directory / FEATURES
    path.write_bytes(path.read_bytes().replace(b'"spend"', b'"spent"'))
    return signed(directory, "bad")


def unknown_format(directory: Path) -> Path:
    """It is of a format to come."""
    path = directory / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"format": %d' % FORMAT, b'"format": 99'))
    return directory


def missing_file(directory: Path) -> Path:
    """A file that the manifest names is gone."""
    (directory / "reference.npz").unlink()
    return directory


def all_nan(directory: Path) -> Path:
    """Every score is not a number."""
    made = variant(directory, directory.parent / "nan", "bad", float("nan"))
    shutil.rmtree(directory)
    return Path(shutil.move(made, directory))


def torn_manifest(directory: Path) -> Path:
    """Half of the manifest is there."""
    path = directory / MANIFEST
    path.write_bytes(path.read_bytes()[:200])
    return directory


def gone(directory: Path) -> Path:
    """The version was deleted."""
    shutil.rmtree(directory)
    return directory


BAD: dict[Callable[[Path], Path], Fault] = {
    damaged: Fault.DIGEST,
    missing_file: Fault.DIGEST,
    no_model: Fault.CORRUPT,
    torn_manifest: Fault.CORRUPT,
    unknown_format: Fault.FORMAT,
    other_scores: Fault.GOLDEN,
    other_features: Fault.FEATURES,
    all_nan: Fault.NOT_FINITE,
}


def released(registry: Registry, good: Path, spoil: Callable[[Path], Path], tmp_path: Path) -> Placed:
    """A version in the registry that is ``good`` but for what ``spoil`` does, released as it then is."""
    directory = spoil(variant(good, tmp_path / "spoilt", "bad"))
    target = Path(registry.url, "versions", "bad", "bundle")
    shutil.copytree(directory, target)
    try:
        return Placed("bad", read(target).digest)
    except Exception:  # noqa: BLE001 — its manifest cannot be read: any digest will do
        return Placed("bad", "0" * 64)


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_a_bad_version_never_goes_live(
    spoil: Callable[[Path], Path], registry: Registry, versions: list[Path], trained: Path, tmp_path: Path
) -> None:
    """It is refused once, with its reason, and what is live scores on; the next good release goes live."""
    swapper = Swapper(registry, CASE)
    promoted(registry, versions[0])
    swapper.look()
    before = swapper.current
    publish(registry, transitions.promote, released(registry, trained, spoil, tmp_path), share=0.1)
    found = swapper.look()
    assert [(each.version, each.fault, each.release) for each in found.refusals] == [("bad", BAD[spoil], 2)]
    assert not found.swapped
    assert swapper.current is before
    assert swapper.look().refusals == ()
    promoted(registry, versions[1])
    assert swapper.look().swapped
    assert names(swapper.current)[0] == ("b", "live")


def test_another_bundle_in_a_version_s_place_is_refused(
    registry: Registry, versions: list[Path], trained: Path, tmp_path: Path
) -> None:
    """A whole, good bundle that is not the one released does not score."""
    swapper = Swapper(registry, CASE)
    promoted(registry, versions[0])
    swapper.look()
    placed = planted(registry, variant(trained, tmp_path, "e", 3))
    publish(registry, transitions.promote, placed, share=0.1)
    shutil.rmtree(Path(registry.url, "versions", "e"))
    shutil.copytree(variant(trained, tmp_path / "2", "e", 4), Path(registry.url, "versions", "e", "bundle"))
    assert [each.fault for each in swapper.look().refusals] == [Fault.DIGEST]
    assert names(swapper.current) == [("a", "live")]


def test_a_version_that_fails_on_what_comes_here_is_refused(
    registry: Registry, versions: list[Path], trained: Path, tmp_path: Path
) -> None:
    """The last rows scored here must get scores: golden rows that are fine say nothing of a category that they lack."""
    golden = set(read_golden(read(trained)).categorical[:, 0].tolist())
    absent = next(each for each in range(1, 64) if each not in golden)
    bad = planted(registry, poisoned(trained, tmp_path, "p", absent))
    swapper = Swapper(registry, CASE)
    promoted(registry, versions[0])
    swapper.look()
    numeric, categorical = rows(ROWS * 2)
    categorical[:, 0] = 1
    categorical[-1, 0] = absent
    swapper.scored(numeric, categorical)
    publish(registry, transitions.promote, bad, share=0.1)
    assert [(each.version, each.fault) for each in swapper.look().refusals] == [("p", Fault.NOT_FINITE)]
    assert names(swapper.current) == [("a", "live")]


def test_a_bad_version_beside_is_left_out_alone(
    registry: Registry, versions: list[Path], trained: Path, tmp_path: Path
) -> None:
    """The rest of the release holds; the reason names the place that the version was for."""
    swapper = Swapper(registry, CASE)
    promoted(registry, versions[0])
    publish(registry, transitions.shadow, released(registry, trained, damaged, tmp_path), share=0.1)
    found = swapper.look()
    assert found.swapped
    assert [(each.version, each.beside) for each in found.refusals] == [("bad", True)]
    assert (names(swapper.current), swapper.current.share) == ([("a", "live")], 0.0)


def test_a_start_at_a_bad_release_takes_the_newest_good_one(
    registry: Registry, versions: list[Path], trained: Path, tmp_path: Path
) -> None:
    """A worker that starts scores as those do that have been running, not with priors."""
    promoted(registry, versions[0])
    promoted(registry, versions[1])
    publish(registry, transitions.promote, released(registry, trained, damaged, tmp_path), share=0.1)
    swapper = Swapper(registry, CASE)
    found = swapper.look()
    assert (found.newest, found.swapped, [each.version for each in found.refusals]) == (3, True, ["bad"])
    assert names(swapper.current) == [("b", "live"), ("a", "previous")]
    assert not swapper.look().swapped


def test_what_cannot_be_read_is_tried_again(registry: Registry, versions: list[Path], tmp_path: Path) -> None:
    """A version that is not there is no refusal: when it can be read, it goes live."""
    swapper = Swapper(registry, CASE)
    promoted(registry, versions[0])
    swapper.look()
    promoted(registry, versions[1])
    place = Path(registry.url, "versions", "b")
    place.rename(tmp_path / "away")
    for _ in range(2):
        found = swapper.look()
        assert [each.fault for each in found.failures] == [Fault.UNREADABLE]
        assert (found.refusals, found.swapped) == ((), False)
    (tmp_path / "away").rename(place)
    assert swapper.look().swapped
    assert names(swapper.current)[0] == ("b", "live")


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()], ids=repr)
def test_what_this_machine_cannot_do_now_is_tried_again(
    error: Exception, registry: Registry, versions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the system while a version is loaded says nothing of the version."""
    swapper = Swapper(registry, CASE)
    promoted(registry, versions[0])

    def fail(_: Path) -> LiteRTScorer:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(LiteRTScorer, "load", fail)
        found = swapper.look()
    assert ([each.fault for each in found.failures], found.refusals) == ([Fault.UNREADABLE], ())
    assert swapper.look().swapped


def test_an_archive_that_the_disk_does_not_give_is_not_damaged(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error's number tells a disk from a file that is no archive."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(np, "load", fail)
    with pytest.raises(BundleError, match="Input/output error") as caught:
        read_arrays(trained / GOLDEN, "golden rows", ["score"])
    assert caught.value.fault is Fault.UNREADABLE


@pytest.mark.parametrize("beside", [False, True])
def test_files_that_are_put_back_are_found_without_another_release(
    registry: Registry, versions: list[Path], *, beside: bool
) -> None:
    """A damaged version is tried again once a minute, told once, and scores when it is mended."""
    now = 0.0
    swapper = Swapper(registry, CASE, lambda: now)
    promoted(registry, versions[0])
    swapper.look()
    placed = registry.add(versions[1])
    publish(registry, transitions.shadow if beside else transitions.promote, placed, share=0.1)
    model = Path(registry.url, "versions", "b", "bundle", MODEL)
    good = model.read_bytes()
    damaged(model.parent)
    assert [each.fault for each in swapper.look().refusals] == [Fault.DIGEST]
    now = 3 * MENDING_S
    assert swapper.look().refusals == ()
    model.write_bytes(good)
    now += MENDING_S - 1
    assert not swapper.look().swapped
    now += 1
    assert swapper.look().swapped
    assert ("b", "shadow" if beside else "live") in names(swapper.current)
    assert not swapper.look().swapped


def test_a_release_that_changes_no_score_is_no_swap(registry: Registry, versions: list[Path]) -> None:
    """A pin or a claim is followed, and nothing was swapped."""
    swapper = Swapper(registry, CASE)
    promoted(registry, versions[0])
    swapper.look()
    for number, change in enumerate((transitions.pin, transitions.unpin, transitions.claim), 2):
        publish(registry, change)
        assert not swapper.look().swapped
        assert swapper.current.release.number == number


def test_an_emptied_registry_changes_nothing(registry: Registry, versions: list[Path]) -> None:
    """A registry that is away, or whose files are gone, leaves what is live where it is."""
    swapper = Swapper(registry, CASE)
    promoted(registry, versions[0])
    swapper.look()
    shutil.rmtree(registry.url)
    assert not swapper.look().swapped
    assert names(swapper.current) == [("a", "live")]


def test_another_use_case_s_model_is_refused(registry: Registry, versions: list[Path]) -> None:
    """A model that reads other features than the worker computes does not score."""
    promoted(registry, versions[0])
    swapper = Swapper(registry, parse(USECASE.replace("buckets = 64", "buckets = 32")))
    assert [each.fault for each in swapper.look().refusals] == [Fault.FEATURES]
    assert swapper.current.model is None


def test_the_share_is_the_same_users_everywhere() -> None:
    """Who is chosen depends on the user alone; larger shares have all users of smaller ones."""
    users = [f"user-{number}" for number in range(20_000)]
    tenth = positions(users, 0.1)
    assert [users[at] for at in tenth[:5]] == ["user-9", "user-30", "user-32", "user-33", "user-44"]
    assert len(tenth) / len(users) == pytest.approx(0.1, abs=0.007)
    assert set(tenth) < set(positions(users, 0.3)) < set(positions(users, 1.0)) == set(range(20_000))
    assert [chosen(user, 0.1) for user in users[:50]] == [at in tenth for at in range(50)]


def test_the_rows_kept_are_the_last_ones() -> None:
    """However they come, at most so many of the latest rows are there for a new version to be checked on."""
    source = Source(Live())
    assert source.rows() is None
    numeric, categorical = rows(3 * ROWS)
    for begin in range(0, 3 * ROWS, 100):
        source.scored(numeric[begin : begin + 100], categorical[begin : begin + 100])
    found = source.rows()
    assert found is not None
    np.testing.assert_array_equal(found[0], numeric[-ROWS:])
    np.testing.assert_array_equal(found[1], categorical[-ROWS:])
    assert found[0].shape == (ROWS, len(SPEC.numeric))
