"""Facts about deploy/transitions.py: what may follow what, as tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from deploy.release import NOTHING, Beside, Change, Correction, Placed, Release, Role
from deploy.transitions import (
    Refused,
    canary,
    claim,
    correct,
    drop,
    pin,
    promote,
    rollback,
    shadow,
    unpin,
    withdraw,
)

WHY: dict[str, Any] = {"reason": "a test", "by": "tests", "created": "2024-01-01T00:00:00Z"}
A, B, C = (Placed(name, name * 64) for name in "abc")
CORRECTION = Correction(0.3, 0.2, 0.18, 0.22, "drift-1")
CORRECTED = replace(A, correction=CORRECTION)
LIVE = replace(NOTHING, number=4, change=Change.PROMOTE, generation=2, live=A, reason="", by="", created="")


def beside(role: Role, model: Placed = B) -> Release:
    """A live, and ``model`` beside it."""
    return replace(LIVE, beside=Beside(model, role, 0.2))


SHADOWED, CANARIED, WATCHED = beside(Role.SHADOW), beside(Role.CANARY), beside(Role.PREVIOUS)
PINNED = replace(WATCHED, pinned=True)

Step = Callable[[Release], Release]

FOLLOWS: list[tuple[Release, Step, Change, dict[str, Any]]] = [
    (NOTHING, lambda now: promote(now, A, share=0.2, model="", **WHY), Change.PROMOTE, {"live": A}),
    (
        LIVE,
        lambda now: promote(now, B, share=0.3, model="a", beside="", **WHY),
        Change.PROMOTE,
        {"live": B, "beside": Beside(A, Role.PREVIOUS, 0.3)},
    ),
    (
        CANARIED,
        lambda now: promote(now, B, share=0.3, beside="b", **WHY),
        Change.PROMOTE,
        {"live": B, "beside": Beside(A, Role.PREVIOUS, 0.3)},
    ),
    # what was corrected keeps that while it is compared with; a correction of the scores of one model is none of another's
    (
        replace(LIVE, live=CORRECTED),
        lambda now: promote(now, replace(B, correction=CORRECTION), share=0.2, **WHY),
        Change.PROMOTE,
        {"live": B, "beside": Beside(CORRECTED, Role.PREVIOUS, 0.2)},
    ),
    (
        LIVE,
        lambda now: shadow(now, B, share=0.2, model="a", **WHY),
        Change.SHADOW,
        {"beside": SHADOWED.beside},
    ),
    (
        SHADOWED,
        lambda now: canary(now, B, share=0.2, beside="b", **WHY),
        Change.CANARY,
        {"beside": CANARIED.beside},
    ),
    (
        WATCHED,
        lambda now: canary(now, C, share=0.2, **WHY),
        Change.CANARY,
        {"beside": Beside(C, Role.CANARY, 0.2)},
    ),
    (
        SHADOWED,
        lambda now: shadow(now, B, share=0.5, **WHY),
        Change.SHADOW,
        {"beside": Beside(B, Role.SHADOW, 0.5)},
    ),
    (CANARIED, lambda now: drop(now, model="a", beside="b", **WHY), Change.DROP, {"beside": None}),
    (WATCHED, lambda now: drop(now, **WHY), Change.DROP, {"beside": None}),
    (
        WATCHED,
        lambda now: rollback(now, model="a", beside="b", **WHY),
        Change.ROLLBACK,
        {"live": B, "beside": None},
    ),
    (
        beside(Role.PREVIOUS, replace(B, correction=CORRECTION)),
        lambda now: rollback(now, **WHY),
        Change.ROLLBACK,
        {"live": replace(B, correction=CORRECTION), "beside": None},
    ),
    (WATCHED, lambda now: correct(now, CORRECTION, model="a", **WHY), Change.CORRECT, {"live": CORRECTED}),
    (
        replace(LIVE, live=CORRECTED),
        lambda now: correct(now, replace(CORRECTION, now=0.1), model="a", **WHY),
        Change.CORRECT,
        {"live": replace(A, correction=replace(CORRECTION, now=0.1))},
    ),
    (
        replace(LIVE, live=CORRECTED),
        lambda now: withdraw(now, model="a", of="drift-1", **WHY),
        Change.WITHDRAW,
        {"live": A},
    ),
    (replace(LIVE, live=CORRECTED), lambda now: withdraw(now, **WHY), Change.WITHDRAW, {"live": A}),
    (LIVE, lambda now: pin(now, **WHY), Change.PIN, {"pinned": True}),
    (PINNED, lambda now: unpin(now, **WHY), Change.UNPIN, {"pinned": False}),
    (PINNED, lambda now: claim(now, **WHY), Change.CLAIM, {"generation": 3}),
    (NOTHING, lambda now: claim(now, **WHY), Change.CLAIM, {"generation": 1}),
    (
        PINNED,
        lambda now: rollback(now, forced=True, **WHY),
        Change.ROLLBACK,
        {"live": B, "beside": None, "pinned": True},
    ),
]

REFUSED: list[tuple[Release, Step, str]] = [
    (LIVE, lambda now: promote(now, A, share=0.2, **WHY), "a is live already"),
    (LIVE, lambda now: promote(now, B, share=0.2, model="c", **WHY), "with c live, and a is live now"),
    (LIVE, lambda now: promote(now, B, share=0.2, model="", **WHY), "with no version live, and a is live"),
    (NOTHING, lambda now: promote(now, B, share=0.2, model="a", **WHY), "with a live, and none is live now"),
    (LIVE, lambda now: promote(now, B, share=0.2, beside="b", **WHY), "with b scoring .*, and nothing does"),
    (SHADOWED, lambda now: promote(now, B, share=0.2, beside="", **WHY), "with nothing scoring .*, and b"),
    (NOTHING, lambda now: shadow(now, A, share=0.2, **WHY), "none is live; promote it instead"),
    (LIVE, lambda now: shadow(now, A, share=0.2, **WHY), "a is live already"),
    (LIVE, lambda now: canary(now, B, share=0.2, model="c", **WHY), "with c live"),
    (CANARIED, lambda now: canary(now, C, share=0.2, beside="c", **WHY), "with c scoring .*, and b does"),
    (SHADOWED, lambda now: shadow(now, B, share=0.2, **WHY), "b is the shadow of 20% of the users already"),
    (LIVE, lambda now: drop(now, **WHY), "nothing scores beside a"),
    (CANARIED, lambda now: drop(now, beside="c", **WHY), "with c scoring"),
    (NOTHING, lambda now: rollback(now, **WHY), "nothing is live and nothing scores beside it; promote"),
    (CANARIED, lambda now: rollback(now, **WHY), "beside it scores b, the canary; promote"),
    (WATCHED, lambda now: rollback(now, model="c", **WHY), "with c live"),
    (WATCHED, lambda now: rollback(now, beside="c", **WHY), "with c scoring"),
    (NOTHING, lambda now: correct(now, CORRECTION, model="", **WHY), "none is live; promote"),
    (LIVE, lambda now: correct(now, CORRECTION, model="b", **WHY), "with b live, and a is live now"),
    (
        replace(LIVE, live=CORRECTED),
        lambda now: correct(now, CORRECTION, model="a", **WHY),
        "this very correction",
    ),
    (LIVE, lambda now: withdraw(now, **WHY), "a has no correction"),
    (NOTHING, lambda now: withdraw(now, **WHY), "nothing has no correction"),
    (
        replace(LIVE, live=CORRECTED),
        lambda now: withdraw(now, of="drift-2", **WHY),
        "drift-1, not of drift-2",
    ),
    (replace(LIVE, live=CORRECTED), lambda now: withdraw(now, model="b", **WHY), "with b live"),
    (PINNED, lambda now: pin(now, **WHY), "a is pinned already"),
    (LIVE, lambda now: unpin(now, **WHY), "a is not pinned"),
]

# Every change that serves other scores, as what may follow a release where all of them are possible.
READY = replace(WATCHED, live=CORRECTED)
SERVES: list[Callable[..., Release]] = [
    lambda now, **why: promote(now, C, share=0.2, **WHY, **why),
    lambda now, **why: shadow(now, C, share=0.2, **WHY, **why),
    lambda now, **why: canary(now, C, share=0.2, **WHY, **why),
    lambda now, **why: drop(now, **WHY, **why),
    lambda now, **why: rollback(now, **WHY, **why),
    lambda now, **why: correct(now, replace(CORRECTION, now=0.4), model="a", **WHY, **why),
    lambda now, **why: withdraw(now, **WHY, **why),
]


@pytest.mark.parametrize(("now", "step", "change", "differs"), FOLLOWS)
def test_a_release_follows(now: Release, step: Step, change: Change, differs: dict[str, Any]) -> None:
    """Each change changes what it says and nothing else, and counts on."""
    expected = replace(now, number=now.number + 1, change=change, **(WHY | differs))
    assert expected == step(now)


@pytest.mark.parametrize(("now", "step", "rule"), REFUSED)
def test_a_release_is_refused(now: Release, step: Step, rule: str) -> None:
    """What may not follow says by which rule, and what holds."""
    with pytest.raises(Refused, match=rule):
        step(now)


@pytest.mark.parametrize("step", SERVES)
def test_pinned_only_people_change_what_is_served(step: Callable[..., Release]) -> None:
    """While pinned, each of them is refused but to a person who forces it; the pin stays."""
    pinned = replace(READY, pinned=True)
    with pytest.raises(Refused, match="a is pinned, so only people"):
        step(pinned)
    assert replace(step(READY), pinned=True) == step(pinned, forced=True)


@pytest.mark.parametrize("step", SERVES)
def test_a_generation_fences(step: Callable[..., Release]) -> None:
    """A trainer with a lower generation than the log's is refused; the watch and people, who have none, are not."""
    with pytest.raises(Refused, match=r"it claimed, 1, .* generation 2 holds, by another trainer"):
        step(READY, generation=1)
    assert step(READY) == step(READY, generation=2)
    assert 2 == step(READY).generation


def test_forcing_passes_no_fence() -> None:
    """A forced change of an orphan is refused as any."""
    with pytest.raises(Refused, match="generation 2 holds"):
        drop(PINNED, generation=1, forced=True, **WHY)


def test_a_claim_leads_to_a_refusal_of_the_one_before() -> None:
    """After a second claim only the second trainer publishes."""
    first = claim(NOTHING, **WHY)
    second = claim(first, **WHY)
    with pytest.raises(Refused):
        promote(second, A, share=0.2, generation=first.generation, **WHY)
    assert A == promote(second, A, share=0.2, generation=second.generation, **WHY).live


def test_what_led_to_a_release_stands_in_it_and_in_no_later_one() -> None:
    """Verdict and request are those of the change itself."""
    corrected = correct(LIVE, CORRECTION, model="a", verdict="drift-1", request="request-1", **WHY)
    assert ("drift-1", "request-1") == (corrected.verdict, corrected.request)
    later = pin(corrected, **WHY)
    assert ("", "") == (later.verdict, later.request)
