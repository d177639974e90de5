"""The worker: Faust feeds the engine from Kafka, and what comes out is written in an order that loses nothing.

For each run of a partition: scores, examples, samples and dead letters are written and acknowledged first, then the
changelog, then the source offset may be committed. A crash at any moment repeats a decision, an example or a sample at
most; it never skips one, because what says that an event is folded and joined is only ever written after that event's
score, examples and samples.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, cast

import faust
from faust.types import TP, Message
from faust.types.auth import CredentialsT

from deploy import metrics
from deploy.dead_letters import Headers, dead_letter
from deploy.live import Source
from deploy.settings import Settings, password, ssl_context
from deploy.topics import SENT, state_changelog
from model.usecase import UseCase
from stream import transport
from stream.engine import Engine, Processed
from stream.events import BadRecord, Record
from stream.table import StateStore, StateTable, raw_schema
from stream.telemetry import Telemetry

BATCH_BYTES = 1024 * 1024  # of one produce request a partition, Kafka's default limit
SWEEP_S = 60.0  # seconds between evictions

NO_HEADERS: Headers = []
log = logging.getLogger(__name__)


class App(faust.App):
    """A Faust app whose high-rate topics come in runs (:mod:`stream.transport`)."""

    run_topics: frozenset[str] = frozenset()
    run_records: int = 8192
    run_wait_s: float = 0.0


def create_app(settings: Settings, usecase: UseCase, source: Source, partitions: int) -> App:
    """The worker's app for ``usecase``; ``source`` has what scores, ``partitions`` is what the events topic has.

    Every topic exists.
    """
    transport.register()
    kafka, topics, engine = settings.kafka, settings.topics, settings.engine
    brokers = ";".join(
        f"{transport.SCHEME}://{server.strip()}" for server in kafka.bootstrap_servers.split(",")
    )
    app = App(
        engine.id,
        broker=brokers,
        broker_credentials=_credentials(settings),
        store="memory://",
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=partitions,
        topic_replication_factor=topics.replication,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=4 * 1024 * 1024,
        broker_max_poll_records=engine.batch_records,
        broker_commit_interval=engine.commit_interval_s,
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.session_timeout_s / 3,
        broker_rebalance_timeout=max(60.0, kafka.session_timeout_s),
        broker_request_timeout=max(kafka.delivery_timeout_s, kafka.session_timeout_s + 1),
        producer_request_timeout=kafka.delivery_timeout_s,
        producer_max_batch_size=BATCH_BYTES,
        producer_max_request_size=8 * BATCH_BYTES,
        # On revocation and on stop, what is being processed is finished and committed.
        stream_wait_empty=True,
        # A standby would hold every profile a second time; restoring reads several 100 000 a second.
        table_standby_replicas=0,
    )
    changelog = state_changelog(engine.id)
    app.run_topics = frozenset({topics.events, changelog})
    app.run_records, app.run_wait_s = engine.batch_records, engine.batch_wait_ms / 1000
    table = StateTable(
        app, usecase, partitions, events=topics.events, changelog=changelog, max_open=engine.max_open
    )
    worker = Worker(app, table, Engine(usecase, settings.events, source), Telemetry(usecase), settings)
    app.agent(app.topic(topics.events, schema=raw_schema()), name="events")(worker.consume)
    app.timer(interval=1.0)(worker.report)
    app.timer(interval=SWEEP_S)(worker.evict)
    return app


class Worker:
    """Processes runs in order and writes their results, with several runs' writes under way at once."""

    def __init__(
        self, app: App, table: StateTable, engine: Engine, telemetry: Telemetry, settings: Settings
    ) -> None:
        self._app, self._table, self._engine, self._topics = app, table, engine, settings.topics
        self._telemetry = telemetry
        self._changelog = state_changelog(settings.engine.id)
        self._rows_sent: dict[int, asyncio.Task[None]] = {}  # by partition, the last run's
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)  # by partition

    @property
    def _store(self) -> StateStore:
        store = self._table.data
        assert isinstance(store, StateStore)
        return store

    async def consume(self, stream: Any) -> None:
        """Faust's agent on the events topic."""
        async for event in stream.noack().events():
            try:
                await self._run(event.message)
            except Exception as error:
                # Faust would restart the agent after the run; only a stop leaves it uncommitted.
                log.exception("the worker stops")
                await self._app.crash(error)
                raise

    async def _run(self, message: Message) -> None:
        partition, records = message.partition, cast(Sequence[Record], message.value)
        processed = self._engine.process(self._store.at(partition), records, int(time.time() * 1000))
        self._telemetry.processed(processed)
        before = self._rows_sent.get(partition)
        task = asyncio.ensure_future(self._write(message, processed, records, before))
        self._rows_sent[partition] = task
        task.add_done_callback(self._written)

    def _written(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a write failed, the worker stops: %r", error)
            asyncio.ensure_future(self._app.crash(error))  # noqa: RUF006 — crash ends the app

    async def _write(
        self,
        message: Message,
        processed: Processed,
        records: Sequence[Record],
        before: asyncio.Task[None] | None,
    ) -> None:
        """Write one run's results; ``before`` is the previous run's of the same partition."""
        partition, joined = message.partition, processed.joined
        users = [score.user.encode() for score in processed.scores]
        # Runs take turns until the producer has their records, which then keep their order: the first run, for one,
        # waits for the topics' metadata, and the second would overtake it.
        async with self._turns[partition]:
            first = await self._send(self._topics.scores, partition, users, processed.values)
            first += await self._send(self._topics.examples, partition, joined.users, joined.examples)
            # Whatever partition the run is of: the monitor needs one order.
            no_keys = [None] * len(joined.samples)
            arrived = [_arrived(sent) for sent in joined.sent]
            first += await self._send(self._topics.samples, 0, no_keys, joined.samples, arrived)
            first += await self._send(
                self._topics.dead_letters, partition, *_dead_letters(message.tp, records, processed.bad)
            )
        await asyncio.gather(*first)
        self._telemetry.written(processed, time.time())
        if before is not None:
            await before
        acks = await asyncio.gather(
            *await self._send(self._changelog, partition, processed.keys, processed.rows)
        )
        if acks:
            self._store.set_persisted_offset(TP(self._changelog, partition), acks[-1].offset)
        self._app.consumer.ack(message)

    async def _send(
        self,
        topic: str,
        partition: int,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Headers] | None = None,
    ) -> list[Any]:
        """Send records to one partition in as few requests as they fit; returns the pending acknowledgements."""
        producer = cast(transport.Producer, self._app.producer).batches()
        pending: list[Any] = []
        if not keys:
            return pending
        begin = time.perf_counter()
        now = int(time.time() * 1000)
        batch = producer.create_batch()
        append = batch.append
        for key, value, header in zip(keys, values, headers or itertools.repeat(NO_HEADERS), strict=False):
            if append(key=key, value=value, timestamp=now, headers=header) is None:
                pending.append(await producer.send_batch(batch, topic, partition=partition))
                batch = producer.create_batch()
                append = batch.append
                append(key=key, value=value, timestamp=now, headers=header)
        metrics.STAGE_SECONDS.labels("write").inc(time.perf_counter() - begin)
        pending.append(await producer.send_batch(batch, topic, partition=partition))
        return pending

    async def report(self) -> None:
        """Show what is held here."""
        store = self._store
        self._telemetry.held(store.partitions.values())
        metrics.RESTORED.set(store.restored)
        self._telemetry.scored(self._engine.scoring)

    async def evict(self) -> None:
        """Forget idle profiles, with a tombstone each."""
        consumer = cast(transport.Consumer, self._app.consumer)
        for partition, state in list(self._store.partitions.items()):
            gone = state.profiles.evict(consumer.committed(TP(self._topics.events, partition)))
            if gone:
                # A link in the partition's chain of writes: no row of someone who comes back may overtake it.
                task = asyncio.ensure_future(self._bury(partition, gone, self._rows_sent.get(partition)))
                self._rows_sent[partition] = task
                task.add_done_callback(self._written)

    async def _bury(self, partition: int, gone: list[bytes], before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        await asyncio.gather(*await self._send(self._changelog, partition, gone, [None] * len(gone)))
        metrics.EVICTED.inc(len(gone))


def _arrived(sent: int) -> Headers:
    """The header of a sample whose event was ``sent`` then, ms; none where that is not known."""
    return [(SENT, b"%d" % sent)] if sent > 0 else NO_HEADERS


def _dead_letters(
    tp: TP, records: Sequence[Record], bad: Sequence[BadRecord]
) -> tuple[list[bytes | None], list[bytes], list[Headers]]:
    """Keys, values and headers of the dead letters of a run."""
    letters = [
        dead_letter(
            *(tp.topic, tp.partition, record.offset, record.key, record.value),
            reason=each.reason.value,
            detail=each.detail,
        )
        for each, record in ((each, records[each.position]) for each in bad)
    ]
    return (
        [letter.key for letter in letters],
        [letter.value for letter in letters],
        [letter.headers for letter in letters],
    )


def _credentials(settings: Settings) -> CredentialsT | None:
    kafka = settings.kafka
    context = ssl_context(kafka)
    if kafka.security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=kafka.sasl_username,
            password=password(kafka),
            mechanism=kafka.sasl_mechanism,
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)


def settle() -> None:
    """Keep Python's garbage collector off what lives here now, and let it run seldom.

    A batch makes tens of thousands of objects and drops them all, without cycles: the collector, at its default of every
    700, would walk everything that lives here (14 % of the worker's time as measured).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)


def run(app: App) -> None:
    """Run the worker until a signal or an error; exits with 1 after an error."""
    settle()
    faust.Worker(app, loglevel="WARNING", quiet=True).execute_from_commandline()
