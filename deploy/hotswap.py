"""Hot swap: a release of the registry becomes what scores here, off the scoring path. :mod:`deploy.follower` calls.

A version is loaded whole, its digests are verified, its golden rows and the rows that were scored here last get scores, and
only then one attribute is replaced, between two batches. A version that fails any of it never scores: what is live
stays, and the reason is returned. TensorFlow is never imported.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from deploy.live import Live, Model, Source, chosen, fixed
from deploy.release import NOTHING, Placed, Release
from deploy.store import RegistryError
from model.bundle import BundleError, Fault, check_spec
from model.features import FeatureSpec, feature_spec
from model.scorer import LiteRTScorer
from model.usecase import UseCase

__all__ = ["Live", "Look", "Model", "Refusal", "Source", "Swapper", "chosen", "fixed"]

SWITCH_S = 0.0005
MENDABLE = {Fault.DIGEST, Fault.CORRUPT}  # of files that someone may put back
MENDING_S = 60.0  # until such a version is tried again
TRIES = 5  # versions that a worker tries on its start, from the newest release down, until one is good


class Refusal(msgspec.Struct, frozen=True):
    """A version that a release names and that does not score here. ``beside``: the live one of that release may."""

    release: int
    version: str
    beside: bool
    fault: Fault
    detail: str


class Look(msgspec.Struct, frozen=True):
    """What a look at the registry found: its ``newest`` release, and what followed from it.

    ``swapped``: decisions are scored otherwise than before. ``refusals`` are those found now, not those known before;
    ``failures`` are versions that could not be read, which the next look tries again.
    """

    newest: int
    swapped: bool = False
    refusals: tuple[Refusal, ...] = ()
    failures: tuple[Refusal, ...] = ()


class Releases(Protocol):
    """What a swapper asks of the registry: :class:`deploy.registry.Registry`."""

    def latest(self) -> Release:
        """The release that holds."""
        ...

    def releases(self) -> list[Release]:
        """All of them, oldest first."""
        ...

    def fetch(self, placed: Placed) -> Path:
        """The folder on this machine of the bundle that ``placed`` names."""
        ...


class Swapper(Source):
    """Keeps what scores here at the newest release whose live model is good. One thread at a time may :meth:`look`."""

    def __init__(
        self, registry: Releases, usecase: UseCase, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(Live())
        self._clock = clock  # s
        self._registry = registry
        self._spec: FeatureSpec = feature_spec(usecase)
        self._scorers: dict[str, LiteRTScorer] = {}  # by digest, those that score
        self._newest = NOTHING
        self._bad: dict[str, Refusal] = {}  # by digest, since the newest release came
        self._settled = 0  # the number of the release that is live, or refused
        self._due = math.inf  # when what is refused and may have been mended is tried again, s of the clock

    def look(self) -> Look:
        """Read the newest release, and bring it to life if it is new; what is live changes at the end, or not at all.

        Raises :class:`~deploy.store.RegistryError` where the registry cannot be read; the next look may.
        """
        newest, before = self._registry.latest(), self.current
        mending = self._clock() >= self._due
        if newest.number == self._settled and not mending:
            return Look(newest.number)
        known = dict(self._bad)
        if newest.number != self._newest.number:
            self._newest, known, self._due = newest, {}, math.inf
            self._bad.clear()  # a release is a reason to try again
        elif mending:
            self._bad = {digest: bad for digest, bad in known.items() if bad.fault not in MENDABLE}
        live, failures = self._enlivened(newest)
        passing = bool(failures)
        if live is None and before.release is NOTHING:  # a start: the other workers score with an older one
            live, more = self._newest_good(newest)
            failures += more
        self._settled = 0 if passing else newest.number
        if not any(bad.fault in MENDABLE for bad in self._bad.values()):
            self._due = math.inf
        elif mending or self._due == math.inf:
            self._due = self._clock() + MENDING_S
        self._keep(live or before)
        return Look(
            newest.number,
            swapped=not self.current.same(before),
            refusals=tuple(bad for digest, bad in self._bad.items() if known.get(digest) != bad),
            failures=tuple(failures),
        )

    def _keep(self, live: Live) -> None:
        """Let ``live`` score from now on, and let go of what does not any more."""
        self.current = live
        kept = [model.scorer for model, _ in live.models]
        self._scorers = {digest: each for digest, each in self._scorers.items() if each in kept}

    def _newest_good(self, bad: Release) -> tuple[Live | None, list[Refusal]]:
        """What came before the release ``bad``, as far back as a live model is good."""
        failures: list[Refusal] = []
        tried = {_digest(bad.live)}
        for release in reversed(self._registry.releases()):
            if release.number >= bad.number or _digest(release.live) in tried:
                continue
            if len(tried) > TRIES:
                break
            tried.add(_digest(release.live))
            live, more = self._enlivened(release)
            failures += more
            if live is not None:
                return live, failures
        return None, failures

    def _enlivened(self, release: Release) -> tuple[Live | None, list[Refusal]]:
        """``release`` brought to life, None if its live model is no good; a bad one beside is left out.

        The refusals are those of versions that could not be read: that may pass. Others are in ``_bad``.
        """
        live, beside = release.live, release.beside
        model = None if live is None else self._made(release, live, beside=False)
        if isinstance(model, Refusal):
            return None, [model] if model.fault is Fault.UNREADABLE else []
        other = None if beside is None else self._made(release, beside.model, beside=True)
        if isinstance(other, Refusal):
            return Live(release, model), [other] if other.fault is Fault.UNREADABLE else []
        return Live(release, model, other), []

    def _made(self, release: Release, placed: Placed, *, beside: bool) -> Model | Refusal:
        """The model that ``placed`` names, the one that scores already where it is the same; or why it is refused."""
        if placed.digest in self._bad:
            return self._bad[placed.digest]
        try:
            scorer = self._scorers.get(placed.digest) or self._loaded(placed)
            return Model(scorer, placed.correction)
        except (BundleError, RegistryError) as error:
            fault, detail = error.fault, str(error)
        except (OSError, MemoryError) as error:  # says nothing of the version
            fault, detail = Fault.UNREADABLE, f"{placed.version}: {type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001 — whatever a version does, what is live goes on
            fault, detail = Fault.CORRUPT, f"{placed.version}: {type(error).__name__}: {error}"
        refusal = Refusal(release.number, placed.version, beside, fault, detail)
        if fault is not Fault.UNREADABLE:
            self._bad[placed.digest] = refusal
        return refusal

    def _loaded(self, placed: Placed) -> LiteRTScorer:
        directory = self._registry.fetch(placed)
        with _giving_way():
            return self._checked(LiteRTScorer.load(directory), placed, directory)

    def _checked(self, scorer: LiteRTScorer, placed: Placed, directory: Path) -> LiteRTScorer:
        if scorer.bundle.digest != placed.digest:
            raise BundleError(
                f"{directory}: the release names the bundle {placed.digest[:12]}…, got {scorer.bundle.digest[:12]}…; "
                "promote it again",
                Fault.DIGEST,
            )
        check_spec(scorer.bundle, self._spec)
        self._warm(scorer, directory)
        self._scorers[placed.digest] = scorer
        return scorer

    def _warm(self, scorer: LiteRTScorer, directory: Path) -> None:
        """Score the rows that were scored here last: whatever a model may choke on, these are about to come again."""
        rows = self.rows()
        if rows is None:
            return
        scores = scorer.score(*rows)
        bad = int((~np.isfinite(scores)).sum())
        if bad:
            raise BundleError(
                f"{directory}: scores are numbers, got {bad} of the last {len(scores)} decisions here without; train a new "
                "version",
                Fault.NOT_FINITE,
            )


@contextmanager
def _giving_way() -> Iterator[None]:
    """Let go of Python's lock every half millisecond rather than every five: whoever scores meanwhile waits for it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _digest(placed: Placed | None) -> str:
    return "" if placed is None else placed.digest
