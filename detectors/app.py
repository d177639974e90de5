"""The monitor's process: from the ``samples`` topic to the ``drift`` topic. ``eddyline monitor`` runs it.

The group gives the first partition of the samples, the only one that is written, to one member; the others stand by.
Whoever gets it reads the state from the monitor's changelog and goes on where that ends. A checkpoint is, in this order: verdicts and dead letters are
acknowledged, the group's offset is committed, the changes are written to the changelog. So a crash at any moment
repeats verdicts, equal in ``id`` and ``revision``, and never loses one; and who has lost the partition without knowing
is refused the commit and writes no state over that of its successor. The group's offset itself only shows the lag.

When other models are to be watched the monitor is made anew after a checkpoint, and goes on from the changelog as after
a restart: so the models that stay keep their state, and samples of a new one that came before it was known are read again.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from deploy import metrics, topics
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
from deploy.outlet import Outlet, OutletError
from deploy.settings import Settings
from detectors import telemetry
from detectors.monitor import Monitor
from detectors.releases import Models
from detectors.samples import SampleRecord, models_of
from detectors.verdict import Verdict
from model.reference import Reference

FETCHED = 500  # records watched at once: few enough that a signal is heard soon
CHECKPOINT_RECORDS = (
    1000  # records after which a checkpoint is due: a panel may gather them all in one record of its state
)
NAMED = 100  # unknown models that are told in the log
PASSED = 100  # that are known to have been looked for: of more the oldest are looked for again
REASON = "not-a-sample"
MS_DIGITS = 15  # of a time until the year 33658: a longer one would not fit where times are kept

log = logging.getLogger(__name__)


class MonitorError(RuntimeError):
    """The monitor cannot go on; its state is that of the last checkpoint. What came, and what to do."""


class MonitorProcess:
    """Feeds a monitor of ``models``, made anew by ``make`` whenever the partition comes here or others are to be watched.

    One thread, from :meth:`run`.
    """

    def __init__(
        self,
        settings: Settings,
        models: Models,
        make: Callable[[Mapping[str, Reference]], Monitor],
        say: Callable[[str], None],
    ) -> None:
        self._settings, self._models, self._make, self._say = settings, models, make, say
        self._topic = settings.topics.samples
        self._changelog = topics.monitor_changelog(settings.engine.id)
        self._monitor: Monitor | None = None  # None: the partition is another's
        self._fetched: list[Message] = []
        self._verdicts: list[Verdict] = []  # of the next checkpoint
        self._unsaved = 0  # records since the last one
        self._saved_at = 0.0
        self._unknown: set[str] = set()  # models that are not watched, and that the log has told of
        self._passed: dict[str, None] = {}  # those that were looked for, or are retired, the oldest first
        self._stopped = False
        self._refusals = Refusals(settings, self._topic, "topics.samples", REASON)
        self._outlet = Outlet(settings.kafka)
        self._reachability = Reachability(settings.kafka, self._topic)
        self._consumer = Consumer(standby(settings.kafka, group(settings), self._reachability.on_error))

    def stop(self, *_: object) -> None:
        """Let :meth:`run` return after a last checkpoint. A signal handler."""
        self._stopped = True

    def run(self) -> None:
        """Run until :meth:`stop`; raises :class:`MonitorError`."""
        self._consumer.subscribe(
            [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )
        try:
            while not self._stopped:
                self._follow()
                self._fetch()
                self._watch()
                due = self._unsaved >= CHECKPOINT_RECORDS or (
                    time.monotonic() - self._saved_at > self._settings.monitor.commit_interval_s
                )
                if self._verdicts or due:
                    self._checkpoint()
                self._reachability.check(self._consumer)
            self._checkpoint()
        except (DeadLetterError, OutletError, KafkaException) as error:
            raise MonitorError(
                f"{error}. Start again: it goes on from the last checkpoint, and nothing is lost"
            ) from error
        except (ConsumerError, topics.TopicError) as error:
            raise MonitorError(str(error)) from error
        finally:
            self._drop()
            self._consumer.close()

    def _fetch(self) -> None:
        """Wait for a record and take what is there. One by one: what a rebalance makes void never gets here."""
        timeout = POLL_S
        while len(self._fetched) < FETCHED and (message := self._consumer.poll(timeout)) is not None:
            timeout = 0.0
            if (error := message.error()) is None:
                self._fetched.append(message)
            elif error.code() not in PASSING:
                raise MonitorError(f"{self._topic} cannot be read: {error}; correct that and start again")
            else:
                log.warning("%s", error)

    def _watch(self) -> None:
        messages, self._fetched = self._fetched, []
        monitor = self._monitor
        if monitor is None or not messages:
            return
        self._reachability.heard()
        if self._missed(monitor, messages):
            return
        before = monitor.next
        by_offset = {offset: each for each in messages if (offset := each.offset()) is not None}
        observed = monitor.observe(
            [SampleRecord(offset, sent(each), _value(each)) for offset, each in by_offset.items()]
        )
        self._unsaved += sum(offset >= before for offset in by_offset)
        self._verdicts += observed.verdicts
        details = {bad.offset: bad.detail for bad in observed.bad}
        for offset, message in by_offset.items():
            self._refusals.count()
            if offset in details:
                self._refusals.refuse(message, details[offset])
        telemetry.observed(observed)
        new = sorted(observed.unknown.keys() - self._unknown)[: max(0, NAMED - len(self._unknown))]
        if new:
            self._unknown.update(new)
            log.warning("samples of models that are not watched: %s; %s", ", ".join(new), self._models.advice)

    def _missed(self, monitor: Monitor, messages: list[Message]) -> bool:
        """Whether ``messages`` have samples of a model that is to be watched from now on, and are read again therefore."""
        new = models_of(map(_value, messages)) - monitor.models - self._passed.keys()
        if not new:
            return False
        self._models.look()
        self._pass(new)
        return self._follow()

    def _pass(self, models: Iterable[str]) -> None:
        """Look for ``models`` no more, as long as there are not too many others."""
        self._passed |= dict.fromkeys(sorted(models))
        for oldest in list(self._passed)[:-PASSED]:
            del self._passed[oldest]

    def _follow(self) -> bool:
        """Make the monitor anew if other models are to be watched; whether that was so."""
        before = self._monitor
        if before is None or self._models.watched.references.keys() == before.models:
            return False
        self._checkpoint()
        if self._monitor is None:  # it is another's now
            return True
        gone = before.models - self._models.watched.references.keys()  # whose labels may come still
        self._pass(gone)
        self._unknown |= gone
        start = self._begin(self._consumer)
        here = TopicPartition(self._topic, 0, start)
        self._consumer.incremental_unassign([here])
        self._consumer.incremental_assign([here])
        return True

    def _checkpoint(self) -> None:
        monitor = self._monitor
        self._saved_at = time.monotonic()
        if monitor is None or not (self._unsaved or self._verdicts):
            return
        for verdict in self._verdicts:
            self._outlet.send(
                self._settings.topics.drift, verdict.model.encode(), msgspec.json.encode(verdict)
            )
        self._outlet.flush()
        self._refusals.flush()
        lost = commit(self._consumer, self._topic, {0: monitor.next}, self._settings.kafka.delivery_timeout_s)
        if lost is not None:
            log.warning("the samples are another monitor's now: %s", lost)
            self._drop()
            return
        for key, value in monitor.changes().items():
            self._outlet.send(self._changelog, key, value)
        self._outlet.flush()
        telemetry.written(self._verdicts)
        telemetry.standing(monitor.status())
        self._verdicts, self._unsaved = [], 0

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if has_first(partitions):
            consumer.incremental_assign([TopicPartition(self._topic, 0, self._begin(consumer))])

    def _begin(self, consumer: Consumer) -> int:
        """Make a monitor that goes on from the changelog; the offset from which on it is to read."""
        watched = self._models.watched
        monitor = self._make(watched.references)
        begin, state = time.monotonic(), dict[bytes, bytes]()
        for message in read_to_end(self._settings.kafka, self._changelog):
            key, value = message.key(), message.value()
            assert isinstance(key, bytes)
            state.pop(key, None)
            if isinstance(value, bytes):
                state[key] = value
        ended = monitor.restore(state, watched.left_out)
        low, high = consumer.get_watermark_offsets(TopicPartition(self._topic, 0), timeout=topics.TIMEOUT_S)
        if monitor.next > high:
            raise MonitorError(
                f"{self._changelog} goes on at offset {monitor.next} of {self._topic}, which ends at {high}: it is not the topic "
                "that was watched. Delete the changelog and create it again with `eddyline topics`, or use another engine.id"
            )
        if monitor.next > 0 and monitor.waiting < low:
            log.warning(
                "samples %d to %d were deleted before their block was watched; go on with what is there. Keep them longer: "
                "topics.retention_h",
                monitor.waiting,
                low - 1,
            )
        self._monitor, self._fetched = monitor, []
        self._passed = {model: None for model in self._passed if model not in monitor.models}
        self._unknown -= monitor.models
        self._verdicts, self._unsaved, self._saved_at = ended, 0, time.monotonic()
        metrics.MONITOR_WATCHING.set(1)
        telemetry.clear()
        telemetry.standing(monitor.status())
        place = f"{self._topic} from offset {max(low, monitor.next)}"
        if monitor.models:
            self._say(
                f"watching {place} for drift of {', '.join(sorted(monitor.models))}: {len(monitor.status())} panels, "
                f"{len(state)} records restored in {time.monotonic() - begin:.1f} s"
            )
        else:
            self._say(
                f"watching {place} for nothing yet: no model is released that can be watched; waiting for one"
            )
        return max(low, monitor.resume)

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        if has_first(partitions):
            self._checkpoint()
            self._drop()

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        if not has_first(partitions):
            return
        if self._monitor is not None:
            log.warning(
                "the group gave the samples to another monitor, which goes on from the last checkpoint"
            )
        self._drop()

    def _drop(self) -> None:
        self._monitor, self._fetched, self._verdicts, self._unsaved = None, [], [], 0
        metrics.MONITOR_WATCHING.set(0)
        telemetry.clear()


def group(settings: Settings) -> str:
    """The monitor's consumer group."""
    return f"{settings.engine.id}-monitor"


def check(settings: Settings, block_s: float) -> None:
    """Raise :class:`MonitorError` unless the topics that the monitor needs are there, and keep samples long enough.

    ``block_s`` is the length of a block: until it is over its samples are in the topic only.
    """
    if 2 * block_s > settings.topics.retention_h * 3600:
        raise MonitorError(
            f"drift.block is {block_s / 3600:g} h and topics.retention_h {settings.topics.retention_h:g}: samples must be kept "
            "for two blocks at least; keep them longer, or make blocks shorter"
        )
    try:
        present = topics.partition_counts(settings)
    except topics.TopicError as error:
        raise MonitorError(str(error)) from error
    named = settings.topics
    needed = (named.samples, named.drift, topics.monitor_changelog(settings.engine.id), named.dead_letters)
    if missing := [name for name in needed if name not in present]:
        raise MonitorError(f"there is no topic {', '.join(missing)}; create it with `eddyline topics`")


def run(process: MonitorProcess) -> None:
    """Run ``process`` until SIGTERM or SIGINT."""
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_, process.stop)
    process.run()


def sent(message: Message) -> int:
    """When the event of the sample was sent, ms; 0 where its worker did not say.

    Not when the sample was written: a worker that catches up after a stop would look like clocks that are wrong.
    """
    header = dict(message.headers() or []).get(topics.SENT) or b""
    return int(header) if header.isdigit() and len(header) <= MS_DIGITS else 0


def _value(message: Message) -> bytes | None:
    value = message.value()
    return value.encode() if isinstance(value, str) else value
