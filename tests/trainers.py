"""What the trainer's tests are made of: verdicts, requests, records and releases, and a backend that does as it is told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from deploy import transitions
from deploy.release import NOTHING, Placed, Release
from deploy.settings import Settings
from model.usecase import UseCase, parse
from retrain.actions import Action as Act
from retrain.actions import Publish, Start, Stop, Write, transition
from retrain.controller import Controller, Place, View
from retrain.gate import GateDecision
from retrain.job import JobState
from retrain.knowledge import Knowledge
from retrain.request import Record, RetrainRequest, State, Trigger
from retrain.spec import JobResult, JobSpec
from retrain.supervision import GiveUp
from retrain.verdicts import Action, Estimate, Kind, Response, Verdict
from tests.drifting import USECASE

NOW = 1_700_000_000_000  # ms of the trainer's clock
HOUR, DAY = 3_600_000, 86_400_000
CHANGED = NOW - 2 * DAY  # when the world changed, event time
V1, V2, V3 = (Placed(f"v{n}", str(n) * 64) for n in (1, 2, 3))
SINGLE = (Kind.COVARIATE, Kind.LABEL, Kind.CONCEPT)


def case(retrain: str = "") -> UseCase:
    """The use case of :mod:`tests.drifting` with these lines in ``[retrain]``."""
    return parse(f"{USECASE}\n[retrain]\n{retrain}")


def verdict(action: Action, number: int = 1, **changed: Any) -> Verdict:
    """The last word on an episode of v1 that calls for ``action``."""
    usual: dict[str, Any] = {
        "id": f"v1/{number}",
        "revision": 2,
        "final": True,
        "usecase": "shop",
        "model": "v1",
        "slice": "",
        "value": "",
        "alarmed": CHANGED + HOUR,
        "changed": CHANGED,
        "kind": Kind.CONCEPT,
        "kinds": (Kind.CONCEPT,),
        "response": Response(action, "so it is", CHANGED),
        "prior_before": 0.3,
        "prior_fitted": None,
        "prior_counted": Estimate(0.5, 0.45, 0.55),
    }
    return Verdict(**(usual | changed))


def request(**changed: Any) -> RetrainRequest:
    """A person's request."""
    usual: dict[str, Any] = {
        "id": "hand-1",
        "trigger": Trigger.HAND,
        "reason": "why not",
        "by": "ada",
        "asked": NOW - HOUR,
    }
    return RetrainRequest(**(usual | changed))


def record(state: State = State.WAITING, of: RetrainRequest | None = None, **changed: Any) -> Record:
    """A record of a person's request."""
    usual: dict[str, Any] = {
        "request": of or request(),
        "state": state,
        "reasons": ("so it is",),
        "at": NOW - HOUR,
    }
    return Record(**(usual | changed))


def iso(ms: int) -> str:
    """``ms`` as a release has it."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def why(at: int = NOW - 10 * DAY, **changed: Any) -> transitions.Why:
    """Arguments that every change takes."""
    usual: Any = {"reason": "so it is", "by": "ada", "created": iso(at)}
    return cast(transitions.Why, usual | changed)


def first(at: int = NOW - 10 * DAY) -> Release:
    """v1 is live, and a trainer has claimed generation 1."""
    claimed = transitions.claim(NOTHING, reason="a trainer", by="trainer", created=iso(at))
    return transitions.promote(claimed, V1, share=0.2, **why(at))


def gate(*, passed: bool = True, challenger: str = "v2", champion: str = "v1") -> GateDecision:
    """What the gate says of ``challenger``."""
    return GateDecision(
        passed=passed,
        reasons=("it is better" if passed else "it is worse",),
        champion=champion,
        challenger=challenger,
        margin=0.005,
        begin="2023-11-01T00:00:00+00:00",
        end="2023-11-14T00:00:00+00:00",
        compared=(),
    )


def result(**changed: Any) -> JobResult:
    """A job that made v2, which passed the gate."""
    usual: dict[str, Any] = {"placed": V2, "gate": gate(), "rows": 1000, "seconds": 60.0}
    return JobResult(**(usual | changed))


class Backend:
    """Runs nothing: ``states`` says where each job is, and a test changes that."""

    def __init__(self) -> None:
        self.submitted: list[JobSpec] = []
        self.states: dict[str, JobState] = {}
        self.stopped: list[str] = []

    def submit(self, spec: JobSpec) -> None:
        """Note it; it runs."""
        if spec.id not in self.states:
            self.submitted.append(spec)
            self.states[spec.id] = JobState.RUNNING

    def state(self, job: str) -> JobState:
        """What the test says."""
        return self.states.get(job, JobState.LOST)

    def stop(self, job: str) -> None:
        """Note it."""
        self.stopped.append(job)
        if job in self.states:
            self.states[job] = JobState.STOPPED

    def log(self, job: str) -> str:
        """Where the job is."""
        return self.state(job)


class World:
    """A controller whose actions are carried out at once, without Kafka, registry or job."""

    def __init__(self, retrain: str = "", releases: list[Release] | None = None) -> None:
        self.known = Knowledge("shop")
        self.releases = [first()] if releases is None else releases
        self.known.released(self.releases)
        place = Place(usecase="...", examples="/log", registry="/registry")
        self.controller = Controller(case(retrain), Settings(), place, self.known, 1)
        self.now, self.labels = NOW, 5000
        self.base: float | None = 0.3
        self.specs: list[JobSpec] = []
        self.stopped: list[str] = []

    def turn(self, job: JobResult | GiveUp | None = None, turns: int = 1) -> None:
        """Let the controller act on what it knows; ``job`` is what became of the running one."""
        for _ in range(turns):
            view = View(now=self.now, labels=lambda _: self.labels, base=self.base, job=job)
            for action in self.controller.turn(view):
                self._perform(action)
            self.now += 1000

    def _perform(self, action: Act) -> None:
        match action:
            case Write(written):
                self.known.recall(written)
            case Start(written, spec):
                self.known.recall(written)
                self.specs.append(spec)
            case Stop(name, last):
                self.stopped.append(name)
                self._recall(last)
            case Publish():
                self._publish(action)

    def _publish(self, publish: Publish) -> None:
        follow = transition(publish, share=0.2, generation=1, created=iso(self.now))
        try:
            self.release(follow(self.releases[-1]))
        except transitions.Refused as error:
            self.controller.refused(publish)
            if publish.refused is not None:
                reasons = (*publish.refused.reasons, str(error))
                self.known.recall(msgspec.structs.replace(publish.refused, reasons=reasons))
        else:
            self._recall(publish.done)

    def _recall(self, record: Record | None) -> None:
        if record is not None:
            self.known.recall(record)

    def release(self, release: Release) -> None:
        """Another release holds."""
        self.releases.append(release)
        self.known.released(self.releases)

    def states(self) -> dict[str, State]:
        """What became of each request."""
        return {name: each.state for name, each in self.known.records.items()}
