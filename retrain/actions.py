"""What the trainer does next, as values: :mod:`retrain.controller` decides them, :mod:`retrain.app` carries them out."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from deploy import transitions
from deploy.release import Change, Correction, Placed, Release
from retrain.request import Record
from retrain.spec import JobSpec

TRAINER, WATCH = "trainer", "watch"  # who publishes


class Write(msgspec.Struct, frozen=True):
    """A record for the ``retrains`` topic."""

    record: Record


class Start(msgspec.Struct, frozen=True):
    """A job. Its ``record`` is written first: who finds that, and no job, starts it."""

    record: Record
    spec: JobSpec


class Stop(msgspec.Struct, frozen=True):
    """The end of a job that is given up; then ``record`` is written, if there is one."""

    job: str
    record: Record | None = None


class Publish(msgspec.Struct, frozen=True, kw_only=True):
    """A change of what is live. ``model`` and ``beside`` were so when it was decided, and must be still.

    ``done`` is written when it is published; ``refused``, with the reason added, when the rules do not let it.
    """

    change: Change
    model: str
    beside: str | None = None
    placed: Placed | None = None
    correction: Correction | None = None
    reason: str
    by: str = TRAINER
    verdict: str = ""
    request: str = ""
    done: Record | None = None
    refused: Record | None = None


Action = Write | Start | Stop | Publish


def transition(
    publish: Publish, *, share: float, generation: int, created: str
) -> Callable[[Release], Release]:
    """What :meth:`deploy.registry.Registry.publish` takes. The watch is not fenced by ``generation``: it may always undo."""
    why = transitions.Why(
        generation=None if publish.by == WATCH else generation,
        reason=publish.reason,
        by=publish.by,
        created=created,
        verdict=publish.verdict,
        request=publish.request,
    )
    model, beside, placed, correction = publish.model, publish.beside, publish.placed, publish.correction

    def follow(now: Release) -> Release:  # noqa: PLR0911  # a change a return
        match publish.change:
            case Change.PROMOTE if placed is not None:
                return transitions.promote(now, placed, share=share, model=model, beside=beside, **why)
            case Change.SHADOW if placed is not None:
                return transitions.shadow(now, placed, share=share, model=model, **why)
            case Change.CANARY if placed is not None:
                return transitions.canary(now, placed, share=share, model=model, beside=beside, **why)
            case Change.DROP:
                return transitions.drop(now, model=model, beside=beside, **why)
            case Change.ROLLBACK:
                return transitions.rollback(now, model=model, beside=beside, **why)
            case Change.CORRECT if correction is not None:
                return transitions.correct(now, correction, model=model, **why)
            case Change.WITHDRAW:
                return transitions.withdraw(now, model=model, **why)
        raise AssertionError(publish)

    return follow
