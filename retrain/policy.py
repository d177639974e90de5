"""The policy: what a verdict or the calendar asks for, and whether to train now, later or not. Pure: values in, values out.

Called by :mod:`retrain.controller` with what it knows; each answer is recorded with its reasons (:mod:`retrain.request`).
All times are ms of the trainer's clock, but for ``since``, which is event time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from deploy.release import Release, Role
from model.usecase import Retrain, UseCase
from retrain.request import PEOPLE, Record, RetrainRequest, State, Trigger, Weighting
from retrain.verdicts import SINGLE, Action, Kind, Verdict

# Times the drift policy's `labels` that must be known since a drift under which the model was kept, before it is worth
# training: as in the backtest, whose policy `refit` did best (docs/backtest.md).
ENOUGH = 10
DAY = 86_400_000  # ms
TEXT = 120  # characters of an id, at most

TIMES = 4  # that a verdict asks in all, each time with twice the labels of the time before

PENDING = frozenset({State.WAITING, State.BLOCKED})  # decided on again
OPEN = PENDING | {State.RUNNING}


class Called(msgspec.Struct, frozen=True):
    """What a verdict asks for. With a ``standing`` it asks for no training: then that is what its record says."""

    request: RetrainRequest
    standing: State | None = None
    reason: str = ""


class Decision(msgspec.Struct, frozen=True):
    """What is to become of a request; ``RUNNING``: train now."""

    state: State
    reasons: tuple[str, ...]


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision depends on.

    ``records`` are the last ones of all requests, ``labels`` what is known since the request's ``since`` (None: it could
    not be counted), ``faults`` the open data faults of the live model, ``scale`` what a second of training costs in
    seconds of the budget: devices at work.
    """

    now: int
    release: Release
    records: Sequence[Record] = ()
    labels: int | None = None
    faults: Sequence[str] = ()
    scale: float = 1.0


# --- what is asked for


def called(verdict: Verdict, case: UseCase) -> Called:
    """What ``verdict``, the newest revision of its episode, asks for, and with which data.

    P(Y|X) has changed unless a covariate drift is possible: then what was learned before misleads, and only examples
    since count. Otherwise older ones still tell the truth, and are weighted to look like the new ones.
    """
    since, action = verdict.response.since, verdict.response.action
    request = RetrainRequest(
        id=f"verdict-{_plain(verdict.id)}",
        trigger=Trigger.VERDICT,
        reason=verdict.response.reason,
        by="monitor",
        asked=verdict.alarmed,
        weighting=Weighting.ROLLING,
        since=since,
        verdict=verdict.id,
        revision=verdict.revision,
        model=verdict.model,
        slice=verdict.slice,
        value=verdict.value,
    )
    if action is Action.RETRAIN:
        weighting = Weighting.IMPORTANCE if Kind.COVARIATE in verdict.kinds else Weighting.SINCE
        return Called(msgspec.structs.replace(request, weighting=weighting))
    if _kept(verdict):
        labels = ENOUGH * case.drift.labels
        return Called(msgspec.structs.replace(request, labels=labels))
    if action is Action.BLOCK:
        return Called(request, State.REFUSED if verdict.final else State.BLOCKED, verdict.response.reason)
    if action is Action.CORRECT_PRIOR:
        return Called(request, State.REFUSED, f"no training: {verdict.response.reason}")
    state = State.REFUSED if verdict.final else State.WAITING
    return Called(request, state, f"{action.value}: {verdict.response.reason}")


def _kept(verdict: Verdict) -> bool:
    """Whether it is the last word on a drift under which the model was kept: neither a false alarm nor a fault."""
    told = verdict.final and verdict.kind is not Kind.FAULT and len(verdict.kinds) < SINGLE
    return told and verdict.response.action is Action.KEEP


def scheduled(
    now: int, live: str, promoted: int, records: Iterable[Record], policy: Retrain
) -> RetrainRequest | None:
    """The calendar's request, once the model ``live``, since ``promoted``, is as old as ``every``; one a period at most."""
    if policy.every is None:
        return None
    every = round(policy.every * 1000)
    wanted = f"schedule-{now // every}"
    if now - promoted < every or any(each.request.id == wanted for each in records):
        return None
    return RetrainRequest(
        id=wanted,
        trigger=Trigger.SCHEDULE,
        reason=f"every {lasting(policy.every)}",
        by="schedule",
        asked=now,
        model=live,
    )


class Growth(msgspec.Struct, frozen=True):
    """What became known of since the live model was trained: labels, and the ``rows`` that it was trained on."""

    labels: int
    rows: int


def grown(
    now: int, live: str, growth: Growth | None, records: Iterable[Record], policy: Retrain
) -> RetrainRequest | None:
    """The request for a model of more data than ``live`` had; where the gate kept that, again at twice as much, ``TIMES`` in all."""
    if growth is None or not policy.growth:
        return None
    records = list(records)
    # The calendar asks for the same.
    alike = {Trigger.GROWTH, Trigger.SCHEDULE}
    if any(each.state in OPEN and each.request.trigger in alike for each in records):
        return None
    asked = [
        each for each in records if each.request.trigger is Trigger.GROWTH and each.request.model == live
    ]
    trained = sum(each.state is not State.REFUSED for each in asked)
    if trained >= TIMES or growth.labels < policy.growth * 2**trained * growth.rows:
        return None
    return RetrainRequest(
        id=f"growth-{_plain(live)}-{len(asked) + 1}",
        trigger=Trigger.GROWTH,
        reason=f"{growth.labels:,} labels became known since {live} was trained on {growth.rows:,} rows",
        by="growth",
        asked=now,
        model=live,
    )


def again(record: Record) -> RetrainRequest | None:
    """The next request of a verdict that led to no new model: what few labels do not tell, twice as many may.

    The monitor does not ask again: it compares with the new data from then on.
    """
    request = record.request
    if request.trigger is not Trigger.VERDICT or record.state not in _VAIN:
        return None
    first, time = first_id(request), _time(request) + 1
    if time > TIMES:
        return None
    return msgspec.structs.replace(request, id=f"{first}{_AGAIN}{time}", labels=2 * (record.labels or 0))


_AGAIN = ".again-"
_VAIN = {State.KEPT, State.FAILED, State.ROLLED_BACK}


def overtaken(model: str, live: str) -> str:
    """Why there is no training for a request about ``model`` while another is ``live``."""
    return f"{_OVERTAKEN} {model}, and {live or 'no model'} is live now"


def returned(record: Record, live: str) -> bool:
    """Whether a verdict's request was refused because another model was live, and its own one is again, by a rollback."""
    refused = record.request.trigger is Trigger.VERDICT and record.state is State.REFUSED
    told = any(each.startswith(_OVERTAKEN) for each in record.reasons)
    return refused and told and record.request.model == live


_OVERTAKEN = "overtaken: it is about"


def first_id(request: RetrainRequest) -> str:
    """The id of the request that ``request`` is or repeats."""
    return request.id.partition(_AGAIN)[0]


def _time(request: RetrainRequest) -> int:
    return int(request.id.partition(_AGAIN)[2] or 1)


def _plain(text: str) -> str:
    """``text`` as a part of an id: what may not stand there is replaced, and a digest keeps different ones apart."""
    plain = re.sub(r"[^a-zA-Z0-9._-]", "-", text)
    if plain == text and len(text) <= TEXT - 16:
        return text
    return f"{plain[: TEXT - 32]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


# --- whether to


def decide(request: RetrainRequest, situation: Situation, case: UseCase) -> Decision:
    """What is to become of ``request``, which runs and has run nowhere yet."""
    never = list(_against(request, situation))
    if never:
        return Decision(State.REFUSED, tuple(never))
    if situation.faults:
        named = ", ".join(situation.faults)
        return Decision(
            State.BLOCKED,
            (
                f"the data is at fault ({named}): a model would learn that; correct the producer, then it goes on",
            ),
        )
    later = list(_later(request, situation, case.retrain))
    if later:
        return Decision(State.WAITING, tuple(later))
    return Decision(State.RUNNING, (f"{_known(request, situation)}, and nothing speaks against it",))


def _against(request: RetrainRequest, situation: Situation) -> Iterable[str]:
    """Why there will be no training for ``request``."""
    release = situation.release
    live = "" if release.live is None else release.live.version
    if release.pinned and request.trigger in PEOPLE:
        yield f"{_pinned(release)}; unpin it and ask again"
    if request.model and request.model != live:
        yield overtaken(request.model, live)
    for each in situation.records:
        other = each.request
        if other.id == request.id or each.state not in OPEN:
            continue
        if _same(request, other) and (other.asked, other.id) < (request.asked, request.id):
            yield f"asked already: {other.id} is {each.state.value}"
        elif _renewed(request, other) and each.state is not State.BLOCKED:
            yield f"overtaken by {other.id}, on a later change of the same decisions"


def _same(request: RetrainRequest, other: RetrainRequest) -> bool:
    """Whether both ask for the same training; verdicts on different episodes never do, nor who cannot wait."""
    if request.trigger is Trigger.VERDICT or other.trigger is Trigger.VERDICT:
        return False
    if request.urgent and not other.urgent:
        return False
    mine, its = request.trigger in PEOPLE, other.trigger in PEOPLE
    return (mine, request.weighting, request.since) == (its, other.weighting, other.since)


def _renewed(request: RetrainRequest, other: RetrainRequest) -> bool:
    """Whether ``other`` asks for training on data since a later change in the same decisions.

    One that waits for very many labels is left alone: alarms may come more often than so many labels.
    """
    alike = (request.model, request.slice, request.value) == (other.model, other.slice, other.value)
    both = request.trigger is Trigger.VERDICT and other.trigger is Trigger.VERDICT
    asked = Weighting.ROLLING not in {request.weighting, other.weighting}
    return both and alike and asked and (other.since or 0) > (request.since or 0)


def _later(request: RetrainRequest, situation: Situation, policy: Retrain) -> Iterable[str]:
    """Why not yet."""
    if situation.release.pinned:
        yield f"{_pinned(situation.release)}; it waits until that is unpinned"
    running = [each for each in situation.records if each.state is State.RUNNING]
    for each in running:
        yield f"{each.request.id} is being trained for"
    beside = situation.release.beside
    if beside is not None and beside.role in {Role.SHADOW, Role.CANARY}:
        yield f"{beside.model.version} is being tried as {beside.role.value}"
    if not request.urgent:
        over = last_end(situation.records) + round(policy.cooldown * 1000)
        if situation.now < over and not running:
            yield f"cooling down until {moment(over)}, {lasting(policy.cooldown)} after the last training"
        used = spent(situation.records, situation.now, situation.scale)
        if used >= policy.budget:
            yield f"{lasting(used)} of training in the last 24 h; the budget is {lasting(policy.budget)}"
    if situation.labels is None or situation.labels < needed(request, policy):
        yield _known(request, situation, needed(request, policy))


def _pinned(release: Release) -> str:
    return f"release {release.number} is pinned ({release.reason}): only people change what is live"


def needed(request: RetrainRequest, policy: Retrain) -> int:
    """Labels that must be known since the request's ``since``."""
    return request.labels or policy.labels


def _known(request: RetrainRequest, situation: Situation, of: int | None = None) -> str:
    since = "in the example log" if request.since is None else f"since {moment(request.since)}"
    if situation.labels is None:
        return f"the labels known {since} could not be counted yet"
    wanted = "" if of is None else f" of the {of:,} needed"
    return f"{situation.labels:,}{wanted} labels are known {since}"


# --- what it cost


def last_end(records: Iterable[Record]) -> int:
    """When training ended last; 0 if it never did."""
    return max((each.ended for each in records if each.ended is not None), default=0)


def spent(records: Iterable[Record], now: int, scale: float) -> float:
    """Seconds of the budget that training took in the last 24 h; what runs counts so far."""
    seconds = 0.0
    for each in records:
        if each.state is State.RUNNING and each.started is not None:
            seconds += each.seconds + (now - each.started) / 1000
        elif each.ended is not None and each.ended > now - DAY:
            seconds += each.seconds
    return seconds * scale


# --- records


def tells_more(record: Record, last: Record | None) -> bool:
    """Whether ``record`` is worth writing after ``last``: another state, other words, or twice as many labels.

    Numbers alone are no news: who waits is decided on again every second.
    """
    if last is None or (record.state, record.request) != (last.state, last.request):
        return True
    if [_words(each) for each in record.reasons] != [_words(each) for each in last.reasons]:
        return True
    return (record.labels or 0) >= 2 * max(1, last.labels or 0)


def _words(reason: str) -> str:
    return re.sub(r"[\d.,]+", "#", reason)


def moment(ms: int) -> str:
    """``ms`` since the epoch as people read it, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def lasting(seconds: float) -> str:
    """A length of time as people read it.

    >>> lasting(5400), lasting(86400), lasting(12)
    ('1.5 h', '1 d', '12 s')
    """
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
