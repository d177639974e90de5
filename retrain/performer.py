"""The performer: carries out what the controller decides, and looks at what that needs. The trainer's hands and eyes.

:mod:`retrain.app` calls it about once a second. What cannot be done now is done when it is decided again; only Kafka and
the registry's absence end a turn early.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from deploy import metrics
from deploy.announce import AnnounceError, announce
from deploy.outlet import Outlet
from deploy.registry import Registry, RegistryError
from deploy.release import Placed, Release
from deploy.settings import Settings
from deploy.transitions import Refused
from model import bundle, reference
from model.bundle import BundleError
from model.usecase import UseCase
from retrain import telemetry
from retrain.actions import Action, Publish, Start, Stop, Write, transition
from retrain.controller import Controller, View
from retrain.job import Backend, JobError, JobState, JobUnavailableError
from retrain.knowledge import Knowledge, milliseconds
from retrain.labels import Labels
from retrain.policy import Growth
from retrain.request import Record, State
from retrain.spec import Heartbeat, JobResult, JobSpec, checkpoints, folder
from retrain.supervision import GiveUp, Seen, decide, look

LOOK_S = 1.0  # between looks at a running job
LINE = 1000  # characters of a job's log that its request's record tells

log = logging.getLogger(__name__)
replace = msgspec.structs.replace


class Performer:
    """Acts by the registry, the backend and the ``retrains`` topic; knows only what it has seen of running jobs."""

    def __init__(
        self,
        settings: Settings,
        case: UseCase,
        registry: Registry,
        backend: Backend,
        say: Callable[[str], None],
    ) -> None:
        self._settings, self._case, self._registry, self._backend = settings, case, registry, backend
        self._say = say
        self._outlet = Outlet(settings.kafka)
        self._seen: dict[str, Seen] = {}  # by job
        self._looked_at = self._read_at = 0.0  # at the job, at the release log
        self._base: tuple[Placed, float] | None = None  # of the live version
        self._trained: tuple[str, int, int] | None = None  # the live version, its rows, and as of when, ms
        self._unread: dict[str, tuple[Placed, float]] = {}  # what could not be, of which version, and when
        self._accepted = ""  # the job that the backend took from us
        self._refused: dict[str, GiveUp] = {}  # why it did not take a job

    def turn(self, controller: Controller, labels: Labels) -> bool:
        """Look, and do what is to be done; False if another trainer has claimed the registry.

        Raises :class:`RegistryError`, and :class:`~deploy.outlet.OutletError`; the next turn does the rest.
        """
        known = controller.known
        self._read(known)
        if known.release.generation > controller.generation:
            return False
        view = View(
            now=_now(),
            labels=labels,
            base=self._base_of(known.release),
            growth=self._growth_of(known.release, labels),
            job=self._look(controller),
        )
        for action in controller.turn(view):
            self._perform(action, controller)
        telemetry.standing(known, controller.spent(view.now))
        return True

    def drop(self) -> None:
        """Another trainer decides: what runs here as a child of ours would be in its way."""
        if self._settings.trainer.backend == "local":
            for job in self._seen:
                self._backend.stop(job)
        self._seen, self._accepted, self._refused = {}, "", {}

    # --- looking

    def _read(self, known: Knowledge, *, now: bool = False) -> None:
        """Take in the release log, if it has grown."""
        if not now and time.monotonic() - self._read_at < self._settings.registry.poll_s:
            return
        self._follow(known, self._registry.latest())
        self._read_at = time.monotonic()

    def _follow(self, known: Knowledge, release: Release) -> None:
        """Take in ``release``, the newest; all of the log is read only if there are others between, which are others'."""
        if release.number == known.release.number + 1:
            known.released([*known.releases, release])
        elif release != known.release:
            known.released(self._registry.releases())

    def _base_of(self, release: Release) -> float | None:
        """The share of positives that the live version is calibrated to: that of its own reference."""
        if release.live is None:
            return None
        placed = replace(release.live, correction=None)
        if self._base is not None and self._base[0] == placed:
            return self._base[1]
        if self._is_unread("reference", placed):
            return None
        try:
            found = reference.read(bundle.read(self._registry.fetch(placed)))
        except (BundleError, RegistryError) as error:
            self._unreadable("reference", placed, "nothing is corrected", error)
            return None
        self._base = placed, float(found.label.mean())
        return self._base[1]

    def _growth_of(self, release: Release, labels: Labels) -> Growth | None:
        """What the live version, as its manifest tells what it was trained on, does not know yet."""
        if release.live is None or not self._case.retrain.growth:
            return None
        if self._trained is None or self._trained[0] != release.live.version:
            placed = replace(release.live, correction=None)
            if self._is_unread("manifest", placed):
                return None
            try:
                version = self._registry.version(placed.version)
            except RegistryError as error:
                self._unreadable("manifest", placed, "growth asks for nothing", error)
                return None
            if version is None or "as_of" not in version.manifest.window:
                return None
            rows = int(version.manifest.metrics.get("live_rows", 0))
            as_of = milliseconds(version.manifest.window["as_of"])
            self._trained = release.live.version, rows, as_of
        _, rows, as_of = self._trained
        known = labels.since_trained(as_of)
        return None if known is None or not rows else Growth(known, rows)

    def _is_unread(self, what: str, placed: Placed) -> bool:
        """Whether ``what`` of ``placed`` could not be read a moment ago."""
        of, at = self._unread.get(what, (None, 0.0))
        return of == placed and time.monotonic() - at < self._settings.registry.poll_s

    def _unreadable(self, what: str, placed: Placed, so: str, error: Exception) -> None:
        metrics.TRAINER_FAILURES.labels("registry").inc()
        if what not in self._unread or self._unread[what][0] != placed:  # once
            log.warning("the %s of %s cannot be read, so %s: %s", what, placed.version, so, error)
        self._unread[what] = placed, time.monotonic()

    def _look(self, controller: Controller) -> JobResult | GiveUp | None:
        """What became of the running job, if anything; one that nobody has started yet is."""
        record = controller.known.running
        if record is None or time.monotonic() - self._looked_at < LOOK_S:
            return None
        self._looked_at = now = time.monotonic()
        state = self._state(record.job)
        beat = self._beat(record.job)
        raw = self._registry.read(f"{folder(record.job)}/result.json")
        telemetry.progress(beat, record.attempt)
        if raw is not None:
            return _result(raw)
        # Of a trainer before us, or its start failed. Without a sign of life it may never have been started.
        if state is JobState.LOST and beat is None and record.job not in {self._accepted, *self._refused}:
            self._start(controller.spec(record))
            state = None  # since then
        if record.job in self._refused:
            return self._refused[record.job]
        seen = self._seen.get(record.job, Seen(submitted=now))
        self._seen = {record.job: look(seen, state, beat, now)}
        found = decide(self._seen[record.job], state, record.attempt, now, self._settings.trainer)
        return self._explained(found, record.job, state) if isinstance(found, GiveUp) else None

    def _explained(self, found: GiveUp, job: str, state: JobState | None) -> GiveUp:
        """``found`` with the last line of a job that ended by itself: it says what went wrong, and what to do."""
        if state not in {JobState.FAILED, JobState.SUCCEEDED}:
            return found
        try:
            lines = self._backend.log(job).splitlines()
        except JobError as error:
            log.warning("the log of job %s cannot be read: %s", job, error)
            return found
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return replace(found, reason=f"{found.reason}, at its end: {last[:LINE]}")

    def _state(self, job: str) -> JobState | None:
        try:
            return self._backend.state(job)
        except JobError as error:
            metrics.TRAINER_FAILURES.labels("jobs").inc()
            log.warning("nothing is known of job %s: %s", job, error)
            return None

    def _beat(self, job: str) -> Heartbeat | None:
        raw = self._registry.read(f"{folder(job)}/heartbeat.json")
        try:
            return None if raw is None else msgspec.json.decode(raw, type=Heartbeat)
        except msgspec.DecodeError:
            return None  # none that we understand

    # --- doing

    def _perform(self, action: Action, controller: Controller) -> None:
        match action:
            case Write(record):
                self._write(record, controller.known)
            case Start(record, spec):
                self._read(controller.known, now=True)
                if controller.known.release.generation > controller.generation:
                    return  # another trainer's business since a moment ago
                self._write(record, controller.known)
                self._say(f"training for {record.request.id}: {record.request.reason} (job {spec.id})")
                self._looked_at = 0.0
                self._start(spec)
            case Stop(job, record):
                self._stop(job)
                if record is not None:
                    self._write(record, controller.known)
            case Publish():
                self._publish(action, controller)

    def _write(self, record: Record, known: Knowledge) -> None:
        before = known.records.get(record.request.id)
        self._outlet.send(
            self._settings.topics.retrains, record.request.id.encode(), msgspec.json.encode(record)
        )
        self._outlet.flush()
        known.recall(record)
        telemetry.written(record, before)
        if before is None or before.state is not record.state:
            self._say(f"{record.request.id} is {record.state.value}: {'; '.join(record.reasons)}")
        if before is not None and before.state is State.RUNNING and record.state is not State.RUNNING:
            self._tidy(record)

    def _tidy(self, record: Record) -> None:
        """Delete what attempts at the request left each other: no more come."""
        try:
            self._registry.delete(checkpoints(record.request.id))
        except RegistryError as error:
            metrics.TRAINER_FAILURES.labels("registry").inc()
            log.warning("the checkpoints of %s stay: %s", record.request.id, error)

    def _start(self, spec: JobSpec) -> None:
        """Start the job; what does not pass by itself is told when it is looked at, and ends it."""
        self._seen = {spec.id: self._seen.get(spec.id, Seen(submitted=time.monotonic()))}
        self._registry.create(f"{spec.folder}/spec.json", msgspec.json.encode(spec))
        try:
            self._backend.submit(spec)
        except JobUnavailableError as error:
            metrics.TRAINER_FAILURES.labels("jobs").inc()
            log.warning("job %s is not started yet: %s", spec.id, error)
        except JobError as error:
            metrics.TRAINER_FAILURES.labels("jobs").inc()
            log.warning("job %s is not started: %s", spec.id, error)
            self._refused = {spec.id: GiveUp(str(error), retry=False)}
        else:
            self._accepted = spec.id

    def _stop(self, job: str) -> None:
        try:
            self._backend.stop(job)
        except JobError as error:  # it may go on, and what it leaves nobody takes
            metrics.TRAINER_FAILURES.labels("jobs").inc()
            log.warning("job %s was not stopped: %s", job, error)

    def _publish(self, publish: Publish, controller: Controller) -> None:
        known = controller.known
        change = transition(
            publish,
            share=self._case.retrain.share,
            generation=controller.generation,
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        try:
            release = self._registry.publish(change)
        except Refused as error:
            self._read(known, now=True)
            if known.release.generation > controller.generation:
                return  # not ours to say any more
            controller.refused(publish)
            log.warning("%s is refused: %s", publish.change.value, error)
            if publish.refused is not None:
                reasons = (*publish.refused.reasons, str(error))
                self._write(replace(publish.refused, reasons=reasons), known)
            return
        self._follow(known, release)
        if publish.done is not None:
            self._write(publish.done, known)
        metrics.RELEASES.labels(release.change).inc()
        self._say(f"release {release.number}, {release.change.value}: {release.reason}")
        self.tell(release)

    def tell(self, release: Release) -> None:
        """Announce ``release``; workers look by themselves, too, so that a failure costs ``registry.poll_s``."""
        settings = self._settings
        try:
            announce(settings.kafka, settings.topics.models, self._case.name, release)
        except AnnounceError as error:
            metrics.TRAINER_FAILURES.labels("announce").inc()
            log.warning("%s; workers find it by themselves", error)


def _result(raw: bytes) -> JobResult:
    try:
        return msgspec.json.decode(raw, type=JobResult)
    except msgspec.DecodeError as error:
        return JobResult(error=f"the job's result is none: {error}; run jobs with the trainer's own version")


def _now() -> int:
    return time.time_ns() // 1_000_000
