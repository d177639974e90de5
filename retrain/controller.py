"""The controller: what the trainer does next, by what it knows. No I/O and no clock of its own.

:mod:`retrain.app` asks it for the next :mod:`retrain.actions` about once a second. All that it knows stands in topics and in
the release log, so another trainer that reads the same comes to the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec

from deploy.release import Change
from deploy.settings import Settings
from model.usecase import UseCase
from retrain import changes, policy
from retrain.actions import Action, Publish, Start, Stop, Write
from retrain.knowledge import TRIED, Knowledge, milliseconds
from retrain.policy import Called, Situation
from retrain.request import Record, RetrainRequest, State
from retrain.spec import JobResult, JobSpec
from retrain.supervision import GiveUp

replace = msgspec.structs.replace


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where jobs find what they need: the use case's text, and URLs that they can reach."""

    usecase: str
    examples: str
    registry: str


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen ``now``, ms.

    ``base`` is the share of positives in the live model's reference (None: not known), ``labels`` counts those known since
    a moment (None: it cannot), ``growth`` tells what the live model does not know yet (None: not known), ``job`` is what became of the running one, if anything.
    """

    now: int
    labels: Callable[[int | None], int | None]
    base: float | None = None
    growth: policy.Growth | None = None
    job: JobResult | GiveUp | None = None


class Controller:
    """Decides by ``known``, for the trainer that holds ``generation``."""

    def __init__(
        self, case: UseCase, settings: Settings, place: Place, known: Knowledge, generation: int
    ) -> None:
        self._case, self._policy, self._trainer = case, case.retrain, settings.trainer
        self._place, self.known, self.generation = place, known, generation
        self._vain: set[tuple[int, Change]] = set()  # changes that this release does not let

    def turn(self, view: View) -> list[Action]:
        """What to do now. A change of what is live comes alone: everything else is decided on what it leads to."""
        publish = next((each for each in self._changes(view) if self._may(each)), None)
        if publish is not None:
            return [publish]
        return [*self._supervise(view), *self._settle(view.now), *self._answer(view)]

    def refused(self, publish: Publish) -> None:
        """Take in that the rules do not let ``publish``: it is not tried again before the next release."""
        self._vain.add((self.known.release.number, publish.change))

    def spent(self, now: int) -> float:
        """Seconds of the budget that were spent in the 24 h before ``now``."""
        return policy.spent(self.known.records.values(), now, self._scale)

    def spec(self, record: Record) -> JobSpec:
        """The order of the attempt that ``record`` tells."""
        return JobSpec(
            request=record.request,
            attempt=record.attempt,
            version=record.version,
            generation=record.generation,
            usecase=self._place.usecase,
            examples=self._place.examples,
            registry=self._place.registry,
            champion=self.known.release.live,
            workers=self._trainer.workers,
            gpus=self._trainer.gpus,
        )

    # --- what is live

    def _changes(self, view: View) -> Iterator[Publish]:
        """The most pressing first."""
        known = self.known
        yield from changes.watched(known, self._policy, view.now)
        yield from changes.harmful(known)
        yield from changes.corrected(known, view.base)
        if isinstance(view.job, JobResult):
            yield from changes.brought(known, self._policy, view.job, view.now)

    def _may(self, publish: Publish) -> bool:
        return publish.refused is not None or (self.known.release.number, publish.change) not in self._vain

    # --- the job

    def _supervise(self, view: View) -> Iterator[Action]:
        """What becomes of the running job, but for what it publishes."""
        known, now = self.known, view.now
        record, live = known.running, known.live
        if record is None:
            return
        if isinstance(view.job, JobResult):
            yield from self._end(record, view.job, now)
        elif record.request.model and record.request.model != live and not known.published(record.request.id):
            reason = policy.overtaken(record.request.model, live)
            yield Stop(record.job, changes.stopped(record, State.REFUSED, reason, now))
        elif isinstance(view.job, GiveUp):
            if view.job.retry:
                yield Stop(record.job)
                yield self._start(changes.stopped(record, State.RUNNING, view.job.reason, now), now)
            else:
                yield Stop(record.job, changes.stopped(record, State.FAILED, view.job.reason, now))

    def _end(self, record: Record, result: JobResult, now: int) -> Iterator[Write]:
        version = record.version if result.placed is None else result.placed.version
        ended = replace(record, version=version, gate=result.gate)
        reasons = () if result.gate is None else result.gate.reasons
        if result.error:
            yield Write(changes.finished(ended, State.FAILED, (result.error,), result, now))
        elif not changes.passed(result):
            yield Write(changes.finished(ended, State.KEPT, reasons, result, now))
        elif self.known.published(record.request.id):  # and who did was killed before it could say so
            yield Write(changes.finished(ended, State.STAGED, reasons, result, now))

    def _start(self, record: Record, now: int) -> Start:
        started = replace(
            record,
            attempt=record.attempt + 1,
            version=record.version
            or self._version(now),  # one for all attempts: each goes on with what is stored
            generation=self.generation,
            started=now,
            at=now,
        )
        spec = self.spec(started)
        return Start(replace(started, job=spec.id), spec)

    def _version(self, now: int) -> str:
        """A name that no other has, by the time."""
        taken = {each.version for each in self.known.records.values()}
        name = datetime.fromtimestamp(now / 1000, UTC).strftime("%Y%m%d-%H%M%S")
        names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(2)))
        return next(each for each in names if each not in taken)

    # --- requests

    def _settle(self, now: int) -> Iterator[Write]:
        """The records of challengers whose trial is over, and of models that were rolled back, by whomever."""
        release, back = self.known.release, self.known.rolled_back()
        tried = release.beside.model.version if release.beside and release.beside.role in TRIED else ""
        for record in self.known.records.values():
            if record.state is State.RELEASED and record.version in back:
                reason = back[record.version].reason
                yield Write(changes.concluded(record, State.ROLLED_BACK, reason, now))
            if record.state is not State.STAGED or record.version == tried:
                continue
            promotion = self.known.promotion(record.version)
            if promotion is not None:
                yield Write(changes.concluded(record, State.RELEASED, promotion.reason, now))
            else:
                reason = f"its trial was ended: {release.reason}"
                yield Write(changes.concluded(record, State.KEPT, reason, now))

    def _answer(self, view: View) -> Iterator[Action]:
        """Decide on every request that is open, people's urgent ones and then the oldest first."""
        records, faults = dict(self.known.records), self.known.faults()
        for each in sorted(self._open(view), key=lambda each: _rank(each.request)):
            request = each.request
            last = records.get(request.id)
            if each.standing is not None:
                record = Record(request=request, state=each.standing, reasons=(each.reason,), at=view.now)
            else:
                situation = Situation(
                    now=view.now,
                    release=self.known.release,
                    records=tuple(records.values()),
                    labels=view.labels(request.since),
                    faults=faults,
                    scale=self._scale,
                )
                decision = policy.decide(request, situation, self._case)
                record = Record(
                    request=request,
                    state=decision.state,
                    reasons=decision.reasons,
                    at=view.now,
                    labels=situation.labels,
                )
                if last is not None:  # one that is opened again may have been trained for
                    record = replace(record, attempt=last.attempt, seconds=last.seconds, ended=last.ended)
            records[request.id] = record
            if record.state is State.RUNNING:
                start = self._start(record, view.now)
                records[request.id] = start.record
                yield start
            elif policy.tells_more(record, last):
                yield Write(record)

    def _open(self, view: View) -> Iterator[Called]:
        """The requests to decide on."""
        records, live, seen = self.known.records, self.known.live, set()
        for verdict in self.known.newest.values():
            if verdict.model != live:
                continue
            asked = policy.called(verdict, self._case)
            seen.add(asked.request.id)
            last = records.get(asked.request.id)
            renewed = last is not None and last.request.revision < verdict.revision
            if (
                last is None
                or last.state in policy.PENDING
                or (last.state is State.REFUSED and renewed)
                or policy.returned(last, live)
            ):
                yield asked
        for request in self._new(view):
            seen.add(request.id)
            yield Called(request)
        for record in records.values():
            waits = record.state in policy.PENDING or policy.returned(record, live)
            if waits and record.request.id not in seen:
                yield self._left(record.request)

    def _new(self, view: View) -> Iterator[RetrainRequest]:
        """Requests of others, of the calendar, of growth, and of verdicts that came to nothing, which have no record yet."""
        known, now = self.known, view.now
        yield from known.asked.values()
        promotion = known.promotion(known.live)
        promoted = 0 if promotion is None else milliseconds(promotion.created)
        due = policy.scheduled(now, known.live, promoted, known.records.values(), self._policy)
        if due is not None:
            yield due
        more = policy.grown(now, known.live, view.growth, known.records.values(), self._policy)
        if more is not None:
            yield more
        for record in known.records.values():
            following = policy.again(record)
            if following is not None and following.id not in known.records and following.model == known.live:
                yield following

    def _left(self, request: RetrainRequest) -> Called:
        """A request that waits, and of which nothing new is known."""
        first = bool(request.verdict) and policy.first_id(request) == request.id
        if first and request.verdict not in self.known.newest and request.model == self.known.live:
            return Called(
                request, State.REFUSED, f"verdict {request.verdict} is not in the drift topic any more"
            )
        return Called(request)

    @property
    def _scale(self) -> float:
        """What a second of training costs of the budget: the devices at work."""
        return float(max(1, self._trainer.gpus) * self._trainer.workers)


def _rank(request: RetrainRequest) -> tuple[bool, int, str]:
    return (not request.urgent, request.asked, request.id)
