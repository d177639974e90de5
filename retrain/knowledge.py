"""What the trainer knows: every request, verdict, release and comparison, as far as topics and the release log tell.

:mod:`retrain.app` fills it, :mod:`retrain.changes` and :mod:`retrain.controller` decide by it. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from deploy import watch
from deploy.release import NOTHING, Change, Placed, Release, Role
from deploy.watch import Pair
from retrain.actions import TRAINER
from retrain.request import Record, RetrainRequest, State
from retrain.verdicts import Verdict
from retrain.watching import Comparison

TRIED = (Role.SHADOW, Role.CANARY)


class Knowledge:
    """Begin with :meth:`recall`, :meth:`hear` and :meth:`released` of all that there is of the use case ``name``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.records: dict[str, Record] = {}  # the last one of each request
        self.asked: dict[str, RetrainRequest] = {}  # that have no record yet
        self.newest: dict[str, Verdict] = {}  # of each episode the last revision
        self._verdicts: dict[str, list[Verdict]] = {}  # by model, every revision once
        self.releases: Sequence[Release] = (NOTHING,)
        self.beside = Comparison()
        self.correction = Comparison()

    # --- what comes in

    def recall(self, record: Record) -> None:
        """Take in a record of the ``retrains`` topic."""
        self.records[record.request.id] = record
        self.asked.pop(record.request.id, None)

    def hear(self, verdict: Verdict) -> None:
        """Take in a verdict; one that a crash repeated is passed over."""
        last = self.newest.get(verdict.id)
        if verdict.usecase != self._name or (last is not None and last.revision >= verdict.revision):
            return
        self.newest[verdict.id] = verdict
        self._verdicts.setdefault(verdict.model, []).append(verdict)

    def ask(self, request: RetrainRequest) -> None:
        """Take in a request; one whose id is known is the same."""
        if request.id not in self.records:
            self.asked[request.id] = request

    def released(self, releases: Sequence[Release]) -> None:
        """Take in the release log, in order."""
        self.releases = releases = releases or (NOTHING,)
        release = releases[-1]
        live, beside = release.live, release.beside
        if live is None or beside is None:
            self.beside.begin(None, 0)
        else:
            model, other = live.version, beside.model.version
            if beside.role in TRIED:  # the one that has to prove itself comes first
                model, other = other, model
            self.beside.begin(
                (model, other, beside.role), milliseconds(releases[watch.begun(releases)].created)
            )
        if live is None or live.correction is None:
            self.correction.begin(None, 0)
        else:
            key = (live.version, live.correction.verdict, str(live.correction.now))
            self.correction.begin(key, milliseconds(releases[self._corrected_since()].created))

    def _corrected_since(self) -> int:
        live = self.releases[-1].live
        first = len(self.releases) - 1
        while first > 0 and self.releases[first - 1].live == live:
            first -= 1
        return first

    def pair(self, pair: Pair, at: int) -> None:
        """Take in a decision with a label, whose record was written at ``at``, ms."""
        beside, live = self.beside.of, self.release.live
        if beside is not None:
            self.beside.add(pair.id, pair.user, at, watch.compared(pair, beside[0], beside[1]))
        if live is not None and live.correction is not None:
            found = watch.of_correction(pair, live.version, live.correction)
            self.correction.add(pair.id, pair.user, at, found)

    # --- what it knows

    @property
    def release(self) -> Release:
        """The release that holds."""
        return self.releases[-1]

    @property
    def running(self) -> Record | None:
        """The record of the request whose job runs."""
        return next((each for each in self.records.values() if each.state is State.RUNNING), None)

    @property
    def since(self) -> int | None:
        """When the oldest of what is being compared began, ms; None if nothing is: pairs written before are not needed."""
        begun = [each.since for each in (self.beside, self.correction) if each.of is not None]
        return min(begun, default=None)

    @property
    def live(self) -> str:
        """The live version; empty if there is none."""
        return "" if self.release.live is None else self.release.live.version

    def heard(self, model: str) -> Sequence[Verdict]:
        """All revisions of the verdicts on ``model``, in the topic's order."""
        return self._verdicts.get(model, ())

    def published(self, request: str) -> bool:
        """Whether what came of ``request`` scores, or did."""
        brought = {Change.PROMOTE, Change.SHADOW, Change.CANARY}
        return any(each.request == request and each.change in brought for each in self.releases)

    def promotion(self, version: str) -> Release | None:
        """The release by which ``version`` went live last, None if it never did."""
        went = {Change.PROMOTE, Change.ROLLBACK}
        found = (
            each
            for each in reversed(self.releases)
            if each.change in went and each.live and each.live.version == version
        )
        return next(found, None)

    def rolled_back(self) -> dict[str, Release]:
        """The versions that a rollback let go and that did not go live again, each with that release."""
        found: dict[str, Release] = {}
        for before, each in zip(self.releases, self.releases[1:], strict=False):
            if each.change is Change.ROLLBACK and before.live is not None:
                found[before.live.version] = each
            if each.live is not None:
                found.pop(each.live.version, None)
        return found

    def live_at(self, moment: int) -> Placed | None:
        """What was live at the ``moment``, ms, with its correction."""
        before = (each for each in reversed(self.releases) if milliseconds(each.created) <= moment)
        return next((each.live for each in before), None)

    def withdrawn(self) -> set[str]:
        """Verdicts whose correction another than the trainer withdrew: the watch, or a person."""
        found = set()
        for before, each in zip(self.releases, self.releases[1:], strict=False):
            live = before.live
            if each.change is Change.WITHDRAW and each.by != TRAINER and live and live.correction:
                found.add(live.correction.verdict)
        return found

    def of(self, version: str) -> Record | None:
        """The record of the request that led to ``version``."""
        return next((each for each in self.records.values() if version and each.version == version), None)

    def faults(self) -> tuple[str, ...]:
        """The data faults of the live model that are open, each once."""
        named = (
            f"{fault.check} of {fault.column}" if fault.column else fault.check
            for verdict in self.newest.values()
            if verdict.model == self.live and verdict.blocking
            for fault in verdict.faults
        )
        return tuple(dict.fromkeys(named))


def milliseconds(created: str) -> int:
    """ISO 8601 in ms since the epoch; 0 for nothing."""
    if not created:
        return 0
    moment = datetime.fromisoformat(created)
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)
