"""What is watched: the bundles that were given, or whatever the newest release names. The monitor's process asks.

The versions of the newest release, the live one and the one beside it, change while the monitor runs. A thread looks
for a newer release now and then, and at once when asked to, since a registry may be slow or away for minutes, and what
is watched already is watched on meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Protocol, Self

import msgspec

from deploy.registry import Registry, RegistryError
from deploy.release import Placed, Release
from detectors.models import opened
from model.bundle import BundleError
from model.bundle import read as read_bundle
from model.reference import Reference
from model.usecase import UseCase

ASKED_S = (
    10.0  # longest wait for a look that samples of an unknown model make worth it; then they are passed over
)

log = logging.getLogger(__name__)


class Watched(msgspec.Struct, frozen=True):
    """The references of what is watched, by version; ``left_out`` has those that should be and cannot, and why."""

    references: Mapping[str, Reference]
    left_out: Mapping[str, str] = {}


class Models(Protocol):
    """Where a monitor's models come from."""

    advice: str  # what to do about samples of a model that is not watched

    @property
    def watched(self) -> Watched:
        """What is to be watched now; cheap."""

    def look(self) -> None:
        """See at once whether that has changed, because there are samples of another model."""


class Given:
    """The models that somebody named, and no others."""

    advice = "start the monitor with --model for them too"

    def __init__(self, references: Mapping[str, Reference]) -> None:
        self.watched = Watched(references)

    def look(self) -> None:
        """It never changes."""


class Released:
    """The versions of the newest release of ``registry``; a context manager, in which it looks every ``poll_s``.

    A version whose bundle cannot be had, or is not whole, or is of other features than ``usecase`` is left out, and
    tried again. Raises :class:`~deploy.registry.RegistryError` if the registry cannot be read to begin with.
    """

    advice = "they are not of the newest release"

    def __init__(self, registry: Registry, usecase: UseCase, poll_s: float) -> None:
        self._registry, self._usecase, self._poll_s = registry, usecase, poll_s
        self._opened: dict[Placed, Reference] = {}
        self._away = False  # whether the registry could not be read the last time
        self._turn = threading.Condition()
        self._begun = self._done = 0  # looks
        self._asked = self._closed = False
        self.watched = Watched({})
        self._see(registry.latest())
        self._thread = threading.Thread(target=self._run, name="releases", daemon=True)

    def look(self) -> None:
        """Wait for a look that begins now, but no longer than ``ASKED_S``."""
        with self._turn:
            wanted = self._begun + 1
            self._asked = True
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._done >= wanted or self._closed, ASKED_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._turn:
            self._closed = True
            self._turn.notify_all()

    def _run(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._asked or self._closed, self._poll_s)
                if self._closed:
                    return
                self._asked = False
                self._begun += 1
            try:
                self._see(self._registry.latest())
                self._told(None)
            except RegistryError as error:
                self._told(error)
            with self._turn:
                self._done = self._begun
                self._turn.notify_all()

    def _told(self, error: RegistryError | None) -> None:
        """Say once that the registry cannot be read, and once that it can again."""
        if error is not None and not self._away:
            log.warning("%s; what is watched already is watched on", error)
        elif error is None and self._away:
            log.warning("the registry can be read again")
        self._away = error is not None

    def _see(self, release: Release) -> None:
        """Watch what ``release`` names."""
        beside = () if release.beside is None else (release.beside.model,)
        # A correction makes no other model.
        named = [Placed(each.version, each.digest) for each in (release.live, *beside) if each is not None]
        before, left_out, kept = self._opened, dict[str, str](), dict[Placed, Reference]()
        for placed in named:
            try:
                kept[placed] = before[placed] if placed in before else self._open(placed)
            except (RegistryError, BundleError) as error:
                left_out[placed.version] = reason = str(error)
                if self.watched.left_out.get(placed.version) != reason:
                    log.warning(
                        "model %s of release %d is not watched: %s", placed.version, release.number, reason
                    )
        self._opened = kept
        self.watched = Watched({placed.version: reference for placed, reference in kept.items()}, left_out)

    def _open(self, placed: Placed) -> Reference:
        directory = self._registry.fetch(placed)
        found = read_bundle(directory)
        if (found.manifest.version, found.digest) != (placed.version, placed.digest):
            raise BundleError(
                f"{directory}: the release names version {placed.version} with digest {placed.digest[:12]}…, got "
                f"{found.manifest.version} with {found.digest[:12]}…; add that version to the registry again"
            )
        return opened(self._usecase, found)
