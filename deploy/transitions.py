"""The rules of how one release follows another. Pure; :meth:`deploy.registry.Registry.publish` applies them to the newest.

Each function takes the release that holds and returns the one that is to follow, or raises :class:`Refused`. What a
change was decided on is an argument: ``model`` is the version that has to be live (empty: none; None: whichever),
``beside`` the one that has to score beside it. Publishing tries again when another was quicker, and then the
change is judged anew: so a decision on a state that is gone is refused, and of two trainers the later one wins.
"""

from __future__ import annotations

from typing import Any, NotRequired, Required, TypedDict, Unpack

from msgspec.structs import replace

from deploy.release import Beside, Change, Correction, Placed, Release, Role


class Refused(RuntimeError):  # noqa: N818 (no error: an answer)
    """A release may not follow the one that holds: the rule, what holds, what to do."""


class Why(TypedDict, total=False):
    """What every change takes.

    ``generation`` is what a trainer claimed; None for a person and the watch of what is live, whom no trainer takes over
    from. ``forced`` is a person who changes what is pinned. ``created`` is ISO 8601.
    """

    generation: NotRequired[int | None]
    forced: NotRequired[bool]
    reason: Required[str]
    by: Required[str]
    created: Required[str]
    verdict: NotRequired[str]
    request: NotRequired[str]


def promote(
    now: Release,
    placed: Placed,
    *,
    share: float,
    model: str | None = None,
    beside: str | None = None,
    **why: Unpack[Why],
) -> Release:
    """``placed`` goes live, without a correction; what was live goes on scoring the ``share`` beside it."""
    _expect(now, model, beside)
    _not_live(now, placed)
    previous = None if now.live is None else Beside(model=now.live, role=Role.PREVIOUS, share=share)
    return _next(now, Change.PROMOTE, why, live=replace(placed, correction=None), beside=previous)


def shadow(
    now: Release, placed: Placed, *, share: float, model: str | None = None, **why: Unpack[Why]
) -> Release:
    """``placed`` scores the ``share`` of the users beside the live model, and nobody sees it."""
    return _challenge(now, Change.SHADOW, Beside(placed, Role.SHADOW, share), model, why)


def canary(
    now: Release,
    placed: Placed,
    *,
    share: float,
    model: str | None = None,
    beside: str | None = None,
    **why: Unpack[Why],
) -> Release:
    """``placed`` serves the ``share`` of the users."""
    _expect(now, None, beside)
    return _challenge(now, Change.CANARY, Beside(placed, Role.CANARY, share), model, why)


def drop(now: Release, *, model: str | None = None, beside: str | None = None, **why: Unpack[Why]) -> Release:
    """What scores beside the live model is let go."""
    _expect(now, model, beside)
    if now.beside is None:
        raise Refused(f"nothing scores beside {_name(now)}, so there is nothing to drop")
    return _next(now, Change.DROP, why, beside=None)


def rollback(
    now: Release, *, model: str | None = None, beside: str | None = None, **why: Unpack[Why]
) -> Release:
    """What was live before goes live again, with the correction that it had; what is live is let go."""
    _expect(now, model, beside)
    if now.beside is None or now.beside.role != Role.PREVIOUS:
        kept = f"beside it scores {_beside(now)}" if now.beside else "nothing scores beside it"
        raise Refused(
            f"a rollback goes back to what was live before, which scores on beside what is live; {_name(now)} is live "
            f"and {kept}; promote the version that you want (`eddyline models list`)"
        )
    return _next(now, Change.ROLLBACK, why, live=now.beside.model, beside=None)


def correct(now: Release, correction: Correction, *, model: str, **why: Unpack[Why]) -> Release:
    """The live version ``model``, whose scores the correction was estimated from, is corrected from now on."""
    _expect(now, model, None)
    if now.live is None:
        raise Refused(
            "a correction is one of a live model's scores, and none is live; promote a version first"
        )
    if now.live.correction == correction:
        raise Refused(f"{_name(now)} has this very correction already")
    return _next(now, Change.CORRECT, why, live=replace(now.live, correction=correction))


def withdraw(now: Release, *, model: str | None = None, of: str | None = None, **why: Unpack[Why]) -> Release:
    """The correction of the live model ends; ``of`` is the verdict that it has to be of (None: whichever)."""
    _expect(now, model, None)
    correction = now.live.correction if now.live else None
    if now.live is None or correction is None:
        raise Refused(f"{_name(now)} has no correction to withdraw")
    if of is not None and correction.verdict != of:
        raise Refused(f"the correction of {_name(now)} is of verdict {correction.verdict}, not of {of}")
    return _next(now, Change.WITHDRAW, why, live=replace(now.live, correction=None))


def pin(now: Release, **why: Unpack[Why]) -> Release:
    """Only people change what is served from now on."""
    if now.pinned:
        raise Refused(f"{_name(now)} is pinned already")
    return _next(now, Change.PIN, why, pinned=True)


def unpin(now: Release, **why: Unpack[Why]) -> Release:
    """The trainer and the watch may change what is served again."""
    if not now.pinned:
        raise Refused(f"{_name(now)} is not pinned")
    return _next(now, Change.UNPIN, why, pinned=False)


def claim(now: Release, *, reason: str, by: str, created: str) -> Release:
    """A trainer takes over: those with a lower generation publish no more."""
    return _next(now, Change.CLAIM, Why(reason=reason, by=by, created=created), generation=now.generation + 1)


def _challenge(now: Release, change: Change, beside: Beside, model: str | None, why: Why) -> Release:
    _expect(now, model, None)
    _not_live(now, beside.model)
    if now.live is None:
        raise Refused(
            f"{beside.model.version} is to score beside the live model, and none is live; promote it instead"
        )
    if now.beside == beside:
        raise Refused(
            f"{beside.model.version} is the {beside.role} of {beside.share:.0%} of the users already"
        )
    return _next(now, change, why, beside=beside)


def _next(now: Release, change: Change, why: Why, **changed: Any) -> Release:
    generation = why.get("generation")
    if generation is not None and generation < now.generation:
        raise Refused(
            f"a trainer publishes with the generation that it claimed, {generation}, while none has claimed a later one; "
            f"generation {now.generation} holds, by another trainer; stop this one"
        )
    free = change in {Change.PIN, Change.UNPIN, Change.CLAIM}
    if now.pinned and not free and not why.get("forced", False):
        raise Refused(
            f"{_name(now)} is pinned, so only people change what is served; `eddyline models unpin` ends that"
        )
    told = {name: why.get(name, "") for name in ("reason", "by", "created", "verdict", "request")}
    fenced = {"generation": max(now.generation, generation or 0)}
    return replace(now, number=now.number + 1, change=change, **fenced | told | changed)


def _expect(now: Release, model: str | None, beside: str | None) -> None:
    live = now.live.version if now.live else ""
    if model is not None and live != model:
        raise Refused(
            f"this was decided with {model or 'no version'} live, and {live or 'none'} is live now; decide again"
        )
    other = now.beside.model.version if now.beside else ""
    if beside is not None and other != beside:
        raise Refused(
            f"this was decided with {beside or 'nothing'} scoring beside the live model, and {other or 'nothing'} does "
            "now; decide again"
        )


def _not_live(now: Release, placed: Placed) -> None:
    if now.live is not None and now.live.version == placed.version:
        raise Refused(f"{placed.version} is live already")


def _name(now: Release) -> str:
    return now.live.version if now.live else "nothing"


def _beside(now: Release) -> str:
    assert now.beside is not None
    return f"{now.beside.model.version}, the {now.beside.role}"
