"""When to give up a running job: a pure decision on what the trainer has seen of it.

Two clocks that disagree must do no harm, so the job's is not used: a heartbeat counts from when *we* saw it change. And
no backend's word is enough: a killed node leaves its job RUNNING for ever, and an orphan may go on writing heartbeats.
"""

from __future__ import annotations

import msgspec

from deploy.settings import Trainer
from retrain.job import JobState
from retrain.spec import Heartbeat, Phase


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of a job so far; times are s of one clock of ours. Begin with ``Seen(submitted=now)``.

    ``began`` is when it was first seen at work, ``changed`` when it last gave a new sign of life.
    """

    submitted: float
    began: float | None = None
    changed: float | None = None
    beat: Heartbeat | None = None


class Continue(msgspec.Struct, frozen=True):
    """Look again later."""


class GiveUp(msgspec.Struct, frozen=True):
    """Stop the job and say why; with ``retry``, start the next attempt, which goes on from the checkpoint."""

    reason: str
    retry: bool


def look(seen: Seen, state: JobState | None, beat: Heartbeat | None, now: float) -> Seen:
    """``seen`` after another look, at ``now``. ``state`` is None while the backend does not answer."""
    works = beat is not None and beat.phase is not Phase.STARTING
    first = state is JobState.RUNNING and seen.changed is None  # that it runs is a sign of life, once
    fresh = first or (beat is not None and beat != seen.beat)
    return Seen(
        submitted=seen.submitted,
        began=now if seen.began is None and works else seen.began,
        changed=now if fresh else seen.changed,
        beat=beat or seen.beat,
    )


def decide(
    seen: Seen, state: JobState | None, attempt: int, now: float, trainer: Trainer
) -> Continue | GiveUp:
    """Whether to go on with a job that has left no result; look for that after ``state`` was asked for, not before.

    A job waits while it is pending, or up and waiting for its ranks, and that may take ``queue_s``; from then on it has
    ``deadline_s``. What a new attempt would only repeat is not tried again, nor anything after ``attempts`` of them.
    """
    found = _ended(state) or _overdue(seen, now, trainer) or _silent(seen, state, now, trainer)
    if found is None:
        return Continue()
    return GiveUp(found.reason, found.retry and attempt < trainer.attempts)


def _ended(state: JobState | None) -> GiveUp | None:
    match state:
        case JobState.STOPPED:
            return GiveUp("somebody stopped the job", retry=False)
        case JobState.SUCCEEDED:
            return GiveUp("the job ended and left no result; its log says more", retry=True)
        case JobState.FAILED:
            return GiveUp("the job's process failed or was killed; its log says more", retry=True)
        case JobState.LOST:
            return GiveUp("the job is lost: its backend does not know it", retry=True)
    return None


def _overdue(seen: Seen, now: float, trainer: Trainer) -> GiveUp | None:
    if seen.began is None:
        if now - seen.submitted < trainer.queue_s:
            return None
        return GiveUp(
            f"the job waited for {trainer.queue_s:g} s, which is trainer.queue_s; has the cluster what it asks for?",
            retry=False,
        )
    if now - seen.began < trainer.deadline_s:
        return None
    return GiveUp(f"the job ran for {trainer.deadline_s:g} s, which is trainer.deadline_s", retry=False)


def _silent(seen: Seen, state: JobState | None, now: float, trainer: Trainer) -> GiveUp | None:
    if seen.changed is None or now - seen.changed < trainer.heartbeat_s:
        return None
    word = "its backend does not answer" if state is None else f"its backend calls it {state}"
    return GiveUp(
        f"the job is lost: no sign of life for {now - seen.changed:.0f} s, while {word}", retry=True
    )
