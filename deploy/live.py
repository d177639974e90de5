"""What scores: the live model, the one beside it, and whom that concerns. Values; no I/O, no clock.

:mod:`deploy.hotswap` makes a :class:`Live` of a release, ``stream/scoring.py`` reads one from a :class:`Source` once a batch.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from deploy.release import NOTHING, Correction, Release, Role
from model.features import Float32, Int32
from model.prior import corrected

PRIOR = "prior"  # the model version of a score that no model gave
ROWS = 256  # feature rows that a new version is warmed and checked on
BATCHES = 16  # that they are taken from
_SALT = np.uint64(0x9E3779B97F4A7C15)
_POINTS = 1 << 32


class Scorer(Protocol):
    """A model, ready to score: :class:`model.scorer.LiteRTScorer`."""

    version: str

    def score(self, numeric: Float32, categorical: Int32) -> Float32:
        """Scores [n] of ``numeric`` [n, F] and ``categorical`` [n, C]."""
        ...


class Model(msgspec.Struct, frozen=True):
    """A version that scores here, and the correction that its scores are served with."""

    scorer: Scorer
    correction: Correction | None = None

    @property
    def version(self) -> str:
        """The version that scores name."""
        return self.scorer.version

    def score(self, numeric: Float32, categorical: Int32) -> Float32:
        """The model's own scores [n]; raises :class:`ValueError` if one is not finite."""
        scores = self.scorer.score(numeric, categorical)
        finite = np.isfinite(scores)
        if not finite.all():
            raise ValueError(f"{int((~finite).sum())} of {len(scores)} scores are not finite")
        return scores

    def served(self, scores: Float32) -> Float32:
        """Its own ``scores`` [n] as they are served: corrected, if there is a correction."""
        if self.correction is None:
            return scores
        return corrected(scores, self.correction.before, self.correction.now)


class Live(msgspec.Struct, frozen=True):
    """What a release says, brought to life: never changed, replaced whole.

    ``model`` is None while scores are the declared priors. ``beside`` is None, too, if the release names one that is
    no good: that is no reason not to go on with the rest.
    """

    release: Release = NOTHING
    model: Model | None = None
    beside: Model | None = None

    @property
    def role(self) -> Role | None:
        """What the model beside is there for."""
        return None if self.beside is None or self.release.beside is None else self.release.beside.role

    @property
    def share(self) -> float:
        """The share of users whom it scores."""
        return 0.0 if self.beside is None or self.release.beside is None else self.release.beside.share

    def same(self, other: Live) -> bool:
        """Whether every decision is scored as by ``other``: a claim or a pin changes nothing of that."""
        return (self.model, self.beside, self.role, self.share) == (
            other.model,
            other.beside,
            other.role,
            other.share,
        )

    @property
    def models(self) -> list[tuple[Model, str]]:
        """The models that score, each with its role."""
        found = [] if self.model is None else [(self.model, "live")]
        if self.beside is not None and self.role is not None:
            found.append((self.beside, self.role.value))
        return found


class Source:
    """Where scoring reads what scores, and leaves the rows that it scored last. Threads share it without a lock.

    ``current`` is one attribute, replaced whole: whoever reads it once a batch never sees half of a change.
    """

    def __init__(self, current: Live) -> None:
        self.current = current
        self._rows: deque[tuple[Float32, Int32]] = deque(maxlen=BATCHES)

    def scored(self, numeric: Float32, categorical: Int32) -> None:
        """Keep the last rows of a batch, ``numeric`` [n, F] and ``categorical`` [n, C], to check new versions on."""
        if len(numeric) > ROWS:  # a view would keep the whole batch
            numeric, categorical = numeric[-ROWS:].copy(), categorical[-ROWS:].copy()
        self._rows.append((numeric, categorical))

    def rows(self) -> tuple[Float32, Int32] | None:
        """The last rows scored, at most :data:`ROWS`; None before the first."""
        batches = list(self._rows)
        if not batches:
            return None
        numeric, categorical = zip(*batches, strict=True)
        return np.concatenate(numeric)[-ROWS:], np.concatenate(categorical)[-ROWS:]


def fixed(scorer: Scorer | None) -> Source:
    """A source of ``scorer`` and no other, or of priors; it follows no registry."""
    return Source(Live(model=None if scorer is None else Model(scorer)))


def chosen(user: str, share: float) -> bool:
    """Whether ``user`` is among the ``share`` of users that the model beside scores; the same everywhere, always.

    A larger share has all users of a smaller one. It has nothing to do with a user's partition (murmur2), nor with
    whether the drift monitor samples them, so that the share is of the same kind of people as the rest.
    """
    return bool(positions([user], share))


def positions(users: Sequence[str], share: float) -> list[int]:
    """The positions of those ``users`` [n] who are chosen."""
    crcs = np.fromiter(map(zlib.crc32, map(str.encode, users)), np.uint64, len(users))
    found: list[int] = np.flatnonzero(_mixed(crcs) < share * _POINTS).tolist()
    return found


def _mixed(crcs: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """32 bits [n] of each CRC-32 that look drawn at random: SplitMix64's mixer (Steele, Lea and Flood 2014).

    A CRC is linear: its own bits tell users with consecutive numbers apart in patterns, and the monitor's sample uses them.
    """
    bits = crcs + _SALT
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (bits ^ (bits >> np.uint64(31))) >> np.uint64(32)
