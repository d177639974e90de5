"""Changes of what is live that the trainer and the watch call for now. Pure: :class:`~retrain.knowledge.Knowledge` in, actions out.

:mod:`retrain.controller` takes the first: whatever else there is to do is decided on the release that it leads to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from deploy import watch
from deploy.release import Change, Role
from deploy.watch import Finding, Step
from model.usecase import Retrain
from retrain import corrections
from retrain import policy as policies
from retrain.actions import WATCH, Publish
from retrain.knowledge import TRIED, Knowledge
from retrain.request import Record, State
from retrain.spec import JobResult

replace = msgspec.structs.replace

TRIAL_MS = 14 * 86_400_000  # that a challenger stays in a stage at most: every other request waits for it

_STAGES = {"shadow": Change.SHADOW, "canary": Change.CANARY}


def watched(known: Knowledge, policy: Retrain, now: int) -> Iterator[Publish]:
    """What the comparison with the model beside the live one calls for."""
    release, of = known.release, known.beside.of
    if of is None or release.live is None or release.beside is None:
        return
    beside = release.beside
    found = watch.judged(beside.role, of[0], of[1], known.beside.evidence, policy)
    if found is None and beside.role in TRIED and now - known.beside.since > TRIAL_MS:
        pairs = known.beside.evidence.pairs
        found = Finding(
            Step.DROP,
            f"{of[0]} was tried as {beside.role.value} for {policies.lasting(TRIAL_MS / 1000)} without an answer, with "
            f"{pairs:,} labelled decisions that both scored; do the workers load it?",
        )
    if found is None:
        return
    record = known.of(of[0])
    change, state = _step(found.step, beside.role, policy)
    yield Publish(
        change=change,
        model=release.live.version,
        beside=beside.model.version,
        placed=beside.model if found.step is Step.ADVANCE else None,
        reason=found.reason,
        by=WATCH,
        request="" if record is None else record.request.id,
        done=None if record is None or state is None else concluded(record, state, found.reason, now),
    )


def _step(step: Step, role: Role, policy: Retrain) -> tuple[Change, State | None]:
    """How ``step`` is published, and what becomes of the request, if that changes."""
    match step:
        case Step.ROLLBACK:
            return Change.ROLLBACK, State.ROLLED_BACK
        case Step.DROP:
            return Change.DROP, State.KEPT
        case Step.ADVANCE:
            after = stage(policy, role)
            return (Change.PROMOTE, State.RELEASED) if after is None else (after, None)
    return Change.DROP, None


def stage(policy: Retrain, role: Role | None = None) -> Change | None:
    """The stage after ``role``, the first one if that is None; None: going live."""
    stages = list(policy.stages)
    if role is not None:
        stages = stages[stages.index(role.value) + 1 :] if role.value in stages else []
    return _STAGES[stages[0]] if stages else None


def harmful(known: Knowledge) -> Iterator[Publish]:
    """The end of a correction that does harm."""
    live, of = known.release.live, known.correction.of
    if of is None or live is None or live.correction is None:
        return
    found = watch.judged_correction(live.version, known.correction.evidence)
    if found is not None:
        yield Publish(
            change=Change.WITHDRAW,
            model=live.version,
            reason=found.reason,
            by=WATCH,
            verdict=live.correction.verdict,
        )


def corrected(known: Knowledge, base: float | None) -> Iterator[Publish]:
    """The correction that the verdicts on the live model call for, or the end of the one in force.

    ``base`` is the share of positives that the live model was calibrated with; nothing is done while it is not known.
    """
    live = known.release.live
    if live is None or base is None:
        return
    heard, now = known.heard(live.version), live.correction
    wanted = corrections.wanted(heard, base, known.withdrawn())
    if not corrections.differs(wanted, now):
        return
    if wanted is not None:
        yield Publish(
            change=Change.CORRECT,
            model=live.version,
            correction=wanted,
            reason=(
                f"the share of positive outcomes went from {wanted.before:.3f}, which {live.version} is calibrated to, to "
                f"{wanted.now:.3f} ({wanted.low:.3f} to {wanted.high:.3f})"
            ),
            verdict=wanted.verdict,
        )
    # A verdict that the topic keeps no more says nothing against its correction.
    elif now is not None and any(each.id == now.verdict for each in heard):
        yield Publish(
            change=Change.WITHDRAW,
            model=live.version,
            reason=f"no verdict on {live.version} calls for a correction any more: {heard[-1].response.reason}",
            verdict=heard[-1].id,
        )


def brought(known: Knowledge, policy: Retrain, result: JobResult, now: int) -> Iterator[Publish]:
    """What the gate let through, on its way to what is live; once, whoever was killed after it was published."""
    record, placed, gate = known.running, result.placed, result.gate
    if record is None or placed is None or gate is None or not passed(result):
        return
    if known.published(record.request.id):
        return
    first = stage(policy) if known.live else None
    ended = replace(record, version=placed.version, gate=gate)
    reasons = (*gate.reasons, *_corrected_since(record, known))
    state = State.RELEASED if first is None else State.STAGED
    yield Publish(
        change=first or Change.PROMOTE,
        model=gate.champion,
        placed=placed,
        reason="; ".join((f"{placed.version} passed the gate", *reasons)),
        verdict=record.request.verdict,
        request=record.request.id,
        done=finished(ended, state, reasons, result, now),
        refused=finished(ended, State.KEPT, (*reasons, "it was not released"), result, now),
    )


def _corrected_since(record: Record, known: Knowledge) -> Iterator[str]:
    """That the gate's champion is not quite what is live, if a correction came or went while the job ran."""
    live, then = known.release.live, known.live_at(record.started or 0)
    if live and then and live.version == then.version and live.correction != then.correction:
        yield f"the correction of {live.version} changed meanwhile: the gate compared with its scores as they were before"


def passed(result: JobResult) -> bool:
    """Whether the job made something that may be released."""
    return not result.error and result.gate is not None and result.gate.passed


# --- records of ends


def finished(record: Record, state: State, reasons: Iterable[str], result: JobResult, now: int) -> Record:
    """``record`` at the end of its job, which took as long as it says, or as we saw."""
    seconds = record.seconds + (result.seconds or elapsed(record, now))
    return replace(record, state=state, reasons=tuple(reasons), at=now, ended=now, seconds=seconds)


def stopped(record: Record, state: State, reason: str, now: int) -> Record:
    """``record`` at the end of an attempt that left no result."""
    ended = None if state is State.RUNNING else now
    seconds = record.seconds + elapsed(record, now)
    return replace(record, state=state, reasons=(reason,), at=now, ended=ended, seconds=seconds)


def concluded(record: Record, state: State, reason: str, now: int) -> Record:
    """``record`` at the end of a trial or a watch."""
    return replace(record, state=state, reasons=(*record.reasons, reason), at=now)


def elapsed(record: Record, now: int) -> float:
    """Seconds that the attempt has taken so far."""
    return 0.0 if record.started is None else (now - record.started) / 1000
