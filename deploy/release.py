"""A release: which model is live, what scores beside it, and by which correction. Values; no I/O, no clock.

Each release says all of it, so whoever reads the highest one knows how to score. :mod:`deploy.registry` keeps the log of
them, :mod:`deploy.transitions` has the rules of how one follows another, and :mod:`deploy.hotswap` brings one to life.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

FORMAT = 1  # of a release; raised when an older reader could not understand a newer one

Share = Annotated[float, Meta(gt=0, lt=1)]


class Correction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A prior correction (:mod:`model.prior`): scores calibrated ``before`` are corrected to the share of positives ``now``.

    ``low`` and ``high`` are the 95 % interval of ``now``, ``verdict`` the id of the verdict that called for it.
    """

    before: Share
    now: Share
    low: float
    high: float
    verdict: str


class Placed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version in its place: ``digest`` is the SHA-256 of the bundle's manifest, and so of all its files."""

    version: str
    digest: str
    correction: Correction | None = None


class Role(StrEnum):
    """What scores beside the live model, and why."""

    SHADOW = "shadow"  # a challenger that nobody sees yet: it scores the share too
    CANARY = "canary"  # a challenger whose scores the share is served; the live model scores them too
    PREVIOUS = "previous"  # what was live before: it scores the share too, and a rollback goes back to it


class Beside(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A second model that scores a ``share`` of the users, always the same ones (:func:`deploy.hotswap.chosen`)."""

    model: Placed
    role: Role
    share: Annotated[float, Meta(gt=0, le=1)]


class Change(StrEnum):
    """What a release changes."""

    CLAIM = "claim"  # nothing but the generation: a trainer took over, those before it may publish no more
    SHADOW = "shadow"  # a challenger begins to score beside
    CANARY = "canary"  # the challenger's scores are served to its share
    PROMOTE = "promote"  # a version goes live; what was live scores beside it from now on
    DROP = "drop"  # what scored beside is let go
    ROLLBACK = "rollback"  # what was live before goes live again
    CORRECT = "correct"  # the live model gets a prior correction, or another one
    WITHDRAW = "withdraw"  # its correction ends
    PIN = "pin"  # only people change what is live from now on
    UNPIN = "unpin"


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the release log; the one with the highest ``number`` holds.

    ``generation`` is the highest that any trainer has claimed: one that holds a lower one is an orphan and publishes
    no more. ``by`` is who published: ``trainer``, ``watch`` or the name of a person; ``verdict`` and ``request`` are ids
    of what led to it, or empty. ``created`` is ISO 8601. ``nonce`` is drawn by who publishes, to know its own release by.
    """

    format: int = FORMAT
    number: int
    change: Change
    generation: int
    live: Placed | None  # none: scores are the declared priors
    beside: Beside | None = None
    pinned: bool = False
    reason: str
    by: str
    created: str
    verdict: str = ""
    request: str = ""
    nonce: str = ""


#: Before the first release.
NOTHING = Release(
    number=0, change=Change.CLAIM, generation=0, live=None, reason="nothing is released", by="", created=""
)
