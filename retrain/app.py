"""The trainer's process: from verdicts and requests to released models. ``eddyline trainer`` runs it.

The group gives the first partition of the requests, the only one that is read, to one member, which decides; the
others stand by. Whoever gets it claims a generation in the release log, so that an earlier one publishes no more, and reads what became of all requests,
all verdicts, and the pairs of scores since what is compared now began. A request's offset is committed when its record
is acknowledged, and a job's record is before the job starts: a crash at any moment repeats a decision, and loses none.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from deploy import metrics, topics, transitions
from deploy.consumer import (
    PASSING,
    POLL_S,
    ConsumerError,
    Reachability,
    commit,
    has_first,
    read_to_end,
    standby,
)
from deploy.dead_letters import DeadLetterError, Refusals
from deploy.outlet import OutletError
from deploy.registry import Registry, RegistryError
from deploy.settings import Settings
from model.example_log import ExampleLog
from model.usecase import UseCase
from retrain import telemetry
from retrain.actions import TRAINER
from retrain.controller import Controller, Place
from retrain.history import HistoryError, records_in
from retrain.inlet import Inlet, verdict_of
from retrain.job import Backend
from retrain.knowledge import Knowledge
from retrain.labels import Labels
from retrain.performer import Performer
from retrain.request import RequestError, decode
from retrain.verdicts import Verdict

FETCHED = 100  # requests taken at once
ROUNDS = 20  # of verdicts and pairs before the next decision: few enough that a signal is heard soon
REASON = "not-a-request"

log = logging.getLogger(__name__)


class TrainerError(RuntimeError):
    """The trainer cannot go on; nothing is lost. What came, and what to do."""


class TrainerProcess:
    """Decides as long as the partition of the requests is here. One thread, from :meth:`run`."""

    def __init__(
        self,
        settings: Settings,
        case: UseCase,
        usecase: str,
        backend: Backend,
        say: Callable[[str], None],
    ) -> None:
        """``usecase`` is the text that ``case`` was made of: jobs get it."""
        self._settings, self._case, self._say = settings, case, say
        self._topic = settings.topics.requests
        self._registry = Registry.of(settings.registry)
        self._place = Place(
            usecase=usecase, examples=reachable(settings.sink.log), registry=reachable(settings.registry.url)
        )
        self._labels = Labels(
            ExampleLog(settings.sink.log),
            case.training,
            time.monotonic,
            longest_s=max(each.window + each.lateness for each in case.decisions.values()),
        )
        self._performer = Performer(settings, case, self._registry, backend, say)
        self._refusals = Refusals(settings, self._topic, "topics.requests", REASON)
        self._mine = False  # whether the partition is here
        self._controller: Controller | None = None  # there when all is read and claimed
        self._inlet: Inlet | None = None
        self._since: int | None = None  # the moment from which on it has read samples
        self._next: int | None = None  # offset to commit once what is before it is recorded
        self._again_at = 0.0  # when to try to take over again
        self._failed = ""
        self._stopped = False
        self._reachability = Reachability(settings.kafka, self._topic)
        self._consumer = Consumer(standby(settings.kafka, group(settings), self._reachability.on_error))

    def stop(self, *_: object) -> None:
        """Let :meth:`run` return. A signal handler."""
        self._stopped = True

    def run(self) -> None:
        """Run until :meth:`stop`; raises :class:`TrainerError`."""
        self._consumer.subscribe(
            [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )
        try:
            while not self._stopped:
                self._fetch()
                self._step()
                self._reachability.check(self._consumer)
        except (DeadLetterError, OutletError, KafkaException) as error:
            raise TrainerError(f"{error}. Start again: it goes on from what is recorded") from error
        except (ConsumerError, topics.TopicError, HistoryError) as error:
            raise TrainerError(str(error)) from error
        finally:
            self._drop()
            self._consumer.close()

    def _fetch(self) -> None:
        """Wait for a request and take what is there."""
        timeout, taken = POLL_S, 0
        while taken < FETCHED and (message := self._consumer.poll(timeout)) is not None:
            timeout, taken = 0.0, taken + 1
            if (error := message.error()) is None:
                self._reachability.heard()
                self._take(message)
            elif error.code() not in PASSING:
                raise TrainerError(f"{self._topic} cannot be read: {error}; correct that and start again")
            else:
                log.warning("%s", error)

    def _take(self, message: Message) -> None:
        controller, offset = self._controller, message.offset()
        if controller is None or offset is None:
            return  # fetched before the partition went; whoever has it next reads it
        self._refusals.count()
        try:
            controller.known.ask(decode(message.value()))
        except RequestError as error:
            self._refusals.refuse(message, str(error))
        self._next = offset + 1

    def _step(self) -> None:
        """Take over if that is due; else take in what has come, and do what it calls for."""
        if not self._mine:
            return
        try:
            if self._controller is None:
                self._take_over()
                return
            self._follow(self._controller.known)
            if not self._performer.turn(self._controller, self._labels):
                self._say(
                    "another trainer has claimed this registry: this one decides no more. Give every engine a registry of its own"
                )
                self._drop()
                self._again_at = float("inf")  # until the partition is given away and comes back
                return
            self._failed = ""
        except RegistryError as error:
            metrics.TRAINER_FAILURES.labels("registry").inc()
            self._again_at = time.monotonic() + self._settings.registry.poll_s
            if str(error) != self._failed:  # once
                log.warning("the registry cannot be used, and is tried again: %s", error)
            self._failed = str(error)
            return
        self._commit(self._controller)

    def _follow(self, known: Knowledge) -> None:
        assert self._inlet is not None
        # What is compared now began before its release was seen here, and pairs of it may have been passed over.
        if known.since != self._since and (known.since is None or self._inlet.again(known.since)):
            self._since = known.since
        for _ in range(ROUNDS):
            more = False
            for each in self._inlet.take():
                more = True
                if isinstance(each, Verdict):
                    known.hear(each)
                else:
                    known.pair(each.pair, each.at)
            if not more:
                return

    def _commit(self, controller: Controller) -> None:
        if self._next is None or controller.known.asked:
            return
        self._refusals.flush()
        offsets, self._next = {0: self._next}, None
        lost = commit(self._consumer, self._topic, offsets, self._settings.kafka.delivery_timeout_s)
        if lost is not None:
            log.warning("the requests are another trainer's now: %s", lost)
            self._drop()
            self._mine = False

    # --- whose turn it is

    def _take_over(self) -> None:
        """Claim, read everything, and go on; raises :class:`RegistryError` to try again."""
        if time.monotonic() < self._again_at:
            return
        settings, begin = self._settings, time.monotonic()
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        claimed = self._registry.publish(
            lambda now: transitions.claim(now, reason="a trainer takes over", by=TRAINER, created=created)
        )
        known = Knowledge(self._case.name)
        for record in records_in(settings):
            known.recall(record)
        after = 0
        for message in read_to_end(settings.kafka, settings.topics.drift):
            after = (message.offset() or 0) + 1
            verdict = verdict_of(message.value())
            if verdict is not None:
                known.hear(verdict)
        known.released(self._registry.releases())
        self._inlet, self._since = Inlet(settings, after, known.since), known.since
        self._controller = Controller(self._case, settings, self._place, known, claimed.generation)
        self._consumer.resume([TopicPartition(self._topic, 0)])
        metrics.TRAINER_ACTIVE.set(1)
        self._performer.tell(claimed)
        self._say(
            f"deciding as generation {claimed.generation}, {known.live or 'no model'} is live: {len(known.records)} requests, "
            f"{len(known.newest)} verdicts read in {time.monotonic() - begin:.1f} s"
        )

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if not has_first(partitions):
            return
        first = [TopicPartition(self._topic, 0)]
        consumer.incremental_assign([each for each in partitions if each.partition == 0])
        consumer.pause(first)  # until what was before is known
        self._mine, self._again_at = True, 0.0

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        if has_first(partitions):
            self._drop()
            self._mine = False

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        if not has_first(partitions):
            return
        if self._controller is not None:
            log.warning("the group gave the requests to another trainer, which goes on from what is recorded")
        self._drop()
        self._mine = False

    def _drop(self) -> None:
        if self._inlet is not None:
            self._inlet.close()
        self._controller, self._inlet, self._next = None, None, None
        self._performer.drop()
        telemetry.clear()


def group(settings: Settings) -> str:
    """The trainer's consumer group."""
    return f"{settings.engine.id}-trainer"


def reachable(url: str) -> str:
    """``url`` as a job finds it, wherever it starts: a folder by its whole path."""
    return url if "://" in url else str(Path(url).absolute())


def check(settings: Settings) -> None:
    """Raise :class:`TrainerError` unless the topics that the trainer needs are there, and the registry takes files."""
    try:
        present = topics.partition_counts(settings)
    except topics.TopicError as error:
        raise TrainerError(str(error)) from error
    named = settings.topics
    needed = (
        *(named.requests, named.retrains, named.drift),
        *(named.samples, named.models, named.dead_letters),
    )
    if missing := [name for name in needed if name not in present]:
        raise TrainerError(f"there is no topic {', '.join(missing)}; create it with `eddyline topics`")
    if present[named.requests] > 1:
        log.warning(
            "%s has %d partitions, of which the first alone is read; producers of requests have to write to that, or create the "
            "topic with one, as `eddyline topics` does",
            *(named.requests, present[named.requests]),
        )
    registry = Registry(settings.registry.url)
    try:
        registry.check()
        release = registry.latest()
    except RegistryError as error:
        raise TrainerError(str(error)) from error
    if release.live is None:
        log.warning(
            "%s: nothing is released, so there is no model to watch; is it the workers' registry? Release one with `eddyline "
            "models promote`, or ask for the first with `eddyline retrain`",
            registry.url,
        )


def run(process: TrainerProcess) -> None:
    """Run ``process`` until SIGTERM or SIGINT."""
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_, process.stop)
    process.run()
