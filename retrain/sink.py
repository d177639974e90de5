"""The sink: matured examples from the ``examples`` topic into the example log. ``eddyline sink`` runs it.

What is read is written to the log, then what is bad is acknowledged as dead letters, then the offsets are committed, and
in no other order: a crash at any moment repeats examples, which readers of the log recognise by their ``id``, and
never loses one. When to write is decided by :mod:`retrain.buffer`.
"""

from __future__ import annotations

import datetime as dt
import logging
import signal
import time
from collections.abc import Iterable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from deploy import metrics, topics
from deploy.consumer import PASSING, POLL_S, ConsumerError, Reachability, commit, member
from deploy.dead_letters import DeadLetterError, Refusals
from deploy.settings import Settings
from model.example_log import ExampleLog, ExampleLogError
from model.examples import Example, ExamplesError, decode, table_of
from model.features import FeatureSpec
from retrain.buffer import Buffer

FETCHED = 1000  # records of one call: few enough that a signal is heard soon
REASON = "not-an-example"

log = logging.getLogger(__name__)


class SinkError(RuntimeError):
    """The sink cannot go on; nothing is committed that is not in the log. What came, and what to do."""


class Sink:
    """Reads the topic as one of its group, and writes to the log. One thread, from :meth:`run`."""

    def __init__(self, settings: Settings, spec: FeatureSpec, example_log: ExampleLog) -> None:
        self._settings, self._spec, self._log = settings, spec, example_log
        self._topic = settings.topics.examples
        self._buffer = Buffer(self._topic, settings.sink.flush_rows, settings.sink.flush_s)
        self._refusals = Refusals(settings, self._topic, "topics.examples", REASON)
        self._mine: set[int] = set()
        self._unknown: set[str] = set()
        self._stopped = False
        self._reachability = Reachability(settings.kafka, self._topic)
        self._consumer = Consumer(member(settings.kafka, group(settings), self._reachability.on_error))

    def stop(self, *_: object) -> None:
        """Let :meth:`run` return once what was read is written and committed. A signal handler."""
        self._stopped = True

    def run(self) -> None:
        """Run until :meth:`stop`; raises :class:`SinkError`, and then nothing more is written or committed."""
        self._consumer.subscribe(
            [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )
        try:
            while not self._stopped:
                self._add(self._consumer.consume(FETCHED, POLL_S))
                if self._buffer.due(time.monotonic()):
                    self._compact(self._flush())
                metrics.LOG_BUFFERED.set(len(self._buffer))
                self._reachability.check(self._consumer)
            self._flush()
        except (ExampleLogError, DeadLetterError, KafkaException) as error:
            raise SinkError(
                f"{error}. Nothing of this was committed: start again, and it is read again"
            ) from error
        except ConsumerError as error:
            raise SinkError(str(error)) from error
        finally:
            self._buffer.drop(set(self._mine))
            self._consumer.close()

    def _add(self, messages: Sequence[Message]) -> None:
        now = time.monotonic()
        for message in messages:
            if (error := message.error()) is not None:
                if error.code() not in PASSING:
                    raise SinkError(f"{self._topic} cannot be read: {error}; correct that and start again")
                log.warning("%s", error)
                continue
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            if partition not in self._mine:  # fetched before a rebalance that came in the same call
                continue
            self._refusals.count()
            try:
                example = decode(message.value())
            except ExamplesError as error:
                example = None
                self._refusals.refuse(message, str(error))
            self._buffer.add(partition, offset, example, now)
        if messages:
            self._reachability.heard()

    def _flush(self) -> list[dt.date]:
        """Write, acknowledge, commit; returns the dates that got a file."""
        begin = time.perf_counter()
        batch = self._buffer.take()
        if not batch.offsets:
            return []
        self._warn_of_unknown(batch.examples)
        dates = self._log.append(table_of(batch.examples, self._spec), batch.name)
        self._refusals.flush()
        self._commit(batch.offsets)
        metrics.LOG_ROWS.inc(len(batch.examples))
        metrics.LOG_FILES.inc(len(dates))
        metrics.LOG_FLUSH_SECONDS.observe(time.perf_counter() - begin)
        metrics.LOG_LAST_FLUSH.set(time.time())
        return dates

    def _commit(self, offsets: Mapping[int, int]) -> None:
        lost = commit(self._consumer, self._topic, offsets, self._settings.kafka.delivery_timeout_s)
        if lost is not None:
            log.warning(
                "offsets %s belong to another now, who writes these examples again: %s", offsets, lost
            )

    def _compact(self, dates: Iterable[dt.date]) -> None:
        """Merge the small files of dates that have too many; what goes wrong here costs nothing but time."""
        for date in dates:
            try:
                merged = self._log.compact(date, self._settings.sink.compact_files)
            except ExampleLogError:
                metrics.LOG_COMPACTION_FAILURES.inc()
                log.exception("the files of %s stay as they are", date)
            else:
                metrics.LOG_MERGED.inc(merged)

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._mine = {each.partition for each in partitions}

    def _revoked(self, _: Consumer, __: list[TopicPartition]) -> None:
        # All of them, by the eager protocol. Whoever gets them starts at what is committed: that is everything now.
        self._flush()
        self._mine = set()

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        log.warning(
            "the group gave this sink's partitions away; what was read since the last commit is read again"
        )
        self._buffer.drop(each.partition for each in partitions)
        self._mine = set()

    def _warn_of_unknown(self, examples: Sequence[Example]) -> None:
        known = {*self._spec.numeric, *(category.name for category in self._spec.categorical)}
        unknown = {name for example in examples for name in example.features} - known - self._unknown
        if unknown:
            self._unknown |= unknown
            log.warning(
                "examples have features that this use case does not declare: %s; the log does not get them. Start the sink "
                "with the worker's use case",
                ", ".join(sorted(unknown)),
            )


def group(settings: Settings) -> str:
    """The sink's consumer group."""
    return f"{settings.engine.id}-example-log"


def open_log(settings: Settings) -> ExampleLog:
    """The log, with all that the sink needs; raises :class:`SinkError` if it or a topic is not there."""
    try:
        present = topics.partition_counts(settings)
        needed = (settings.topics.examples, settings.topics.dead_letters)
        if missing := [name for name in needed if name not in present]:
            raise SinkError(f"there is no topic {', '.join(missing)}; create it with `eddyline topics`")
        example_log = ExampleLog(settings.sink.log)
        example_log.check()
    except (topics.TopicError, ExampleLogError) as error:
        raise SinkError(str(error)) from error
    return example_log


def run(sink: Sink) -> None:
    """Run ``sink`` until SIGTERM or SIGINT."""
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_, sink.stop)
    sink.run()
