"""Facts about detectors/releases.py: what is watched is what the newest release names, as far as it can be read."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from deploy import transitions
from deploy.registry import Registry, RegistryError
from deploy.release import Correction, Placed, Release
from deploy.transitions import Why
from detectors.releases import Given, Released
from model.bundle import MODEL
from tests.drifting import USECASE, bundle, reference, usecase

NEVER_S = 3600.0  # between looks: only when asked to
WHY = Why(reason="a test", by="somebody", created="2023-11-14T00:00:00Z")


class Versions:
    """A registry in a folder, whose versions are made as they are named."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.registry = Registry(str(folder / "registry"))

    def placed(self, version: str) -> Placed:
        """The version, with a reference of its own."""
        made = self._folder / version
        return self.registry.add(
            made if made.exists() else bundle(made, version, seed=int(version.removeprefix("v")))
        )

    def promote(self, version: str) -> Release:
        """Make it live."""
        placed = self.placed(version)
        return self.registry.publish(lambda now: transitions.promote(now, placed, share=0.2, **WHY))


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    """An empty registry."""
    return Versions(tmp_path)


def released(versions: Versions) -> Released:
    """What watches it, through an object of its own, as another process does."""
    return Released(Registry(versions.registry.url), usecase(), NEVER_S)


def test_nothing_is_watched_before_the_first_release(versions: Versions) -> None:
    """A version that is only there is not released."""
    versions.placed("v1")
    assert released(versions).watched.references == {}


def test_the_live_version_and_the_one_beside_it_are_watched(versions: Versions) -> None:
    """After each promotion a look finds both; with the next one the oldest is gone."""
    versions.promote("v1")
    with released(versions) as models:
        assert set(models.watched.references) == {"v1"}
        for version, both in (("v2", {"v1", "v2"}), ("v3", {"v2", "v3"})):
            versions.promote(version)
            models.look()
            assert set(models.watched.references) == both
        kept = models.watched.references["v3"]
        versions.registry.publish(lambda now: transitions.drop(now, **WHY))
        models.look()
        assert set(models.watched.references) == {"v3"}
        assert models.watched.references["v3"] is kept, "what is known is not read again"


def test_a_correction_makes_no_other_model(versions: Versions) -> None:
    """The reference is that of the model's own scores."""
    versions.promote("v1")
    with released(versions) as models:
        before = models.watched.references["v1"]
        correction = Correction(before=0.4, now=0.6, low=0.55, high=0.65, verdict="v1/3")
        versions.registry.publish(lambda now: transitions.correct(now, correction, model="v1", **WHY))
        models.look()
        assert models.watched.references["v1"] is before


def test_a_version_that_cannot_be_used_is_left_out_and_tried_again(
    versions: Versions, caplog: pytest.LogCaptureFixture
) -> None:
    """The other one is watched; why is said once; and once it is whole again it is watched, too."""
    versions.promote("v1")
    versions.promote("v2")
    file = Path(versions.registry.url) / "versions" / "v2" / "bundle" / MODEL
    whole = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(b"broken")
    with caplog.at_level(logging.WARNING), released(versions) as models:
        models.look()
        assert set(models.watched.references) == {"v1"}
        assert "the manifest says" in models.watched.left_out["v2"]
        assert len([each for each in caplog.messages if "model v2 of release 2 is not watched" in each]) == 1
        file.write_bytes(whole)
        models.look()
        assert set(models.watched.references) == {"v1", "v2"}
        assert models.watched.left_out == {}


def test_a_model_of_other_features_is_left_out(versions: Versions) -> None:
    """It reads columns that samples of this use case do not have."""
    versions.promote("v1")
    other = usecase(USECASE.replace('age = { kind = "context", field = "age" }\n', ""))
    models = Released(versions.registry, other, NEVER_S)
    assert "`age` is numeric in the model and absent in the use case" in models.watched.left_out["v1"]


class Away(Registry):
    """A registry that cannot be read while ``away``; reading it again is as ever."""

    away = False

    def latest(self) -> Release:
        """As the registry's, if it is there."""
        if self.away:
            raise RegistryError("s3://models: no answer")
        return super().latest()


def test_a_registry_that_is_away_is_told_once_and_what_is_watched_stays(
    versions: Versions, caplog: pytest.LogCaptureFixture
) -> None:
    """Only to begin with must it be there."""
    versions.promote("v1")
    registry = Away(versions.registry.url)
    with caplog.at_level(logging.WARNING), Released(registry, usecase(), NEVER_S) as models:
        registry.away = True
        versions.promote("v2")
        models.look()
        models.look()
        assert set(models.watched.references) == {"v1"}
        assert caplog.messages == ["s3://models: no answer; what is watched already is watched on"]
        registry.away = False
        models.look()
        assert set(models.watched.references) == {"v1", "v2"}
        assert caplog.messages[1:] == ["the registry can be read again"]
    registry.away = True
    with pytest.raises(RegistryError, match="no answer"):
        Released(registry, usecase(), NEVER_S)


def test_given_models_stay() -> None:
    """Whoever names bundles watches those."""
    models = Given({"v1": reference()})
    models.look()
    assert set(models.watched.references) == {"v1"}
