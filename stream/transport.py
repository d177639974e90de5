"""The micro-batch transport: Faust's Kafka consumer, handing over each fetched run of records as one message.

Faust's cost is per message. For the topics in :attr:`Consumer.run_topics` a message's value is the list of
records fetched together from one partition; every other topic keeps ordinary messages. ``stream/app.py``
registers :class:`Transport` under the URL scheme ``runs://``. A run is processed and acknowledged as a whole:
no commit ever passes a record of a run that is not done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, cast

from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from faust.transport import drivers
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage, Message

SCHEME = "runs"
# A broker answers a fetch as soon as there is a record; the embedded one only after this long. Faust says 1500.
FETCH_WAIT_MS = 50


class Run(NamedTuple):
    """Records fetched together from one partition, in offset order, at least one."""

    records: list[Any]


class _Pending:
    """A run handed to the stream: ``done`` once its ``message`` is acknowledged."""

    __slots__ = ("done", "message", "size")

    def __init__(self, message: Message, size: int) -> None:
        self.message, self.size, self.done = message, size, False


class LightRecords:
    """The records of one fetch of one partition, as aiokafka's Cython records instead of its ``ConsumerRecord``.

    Building that dataclass costs more than parsing the record; a run needs offset, timestamp, key and value only.
    Stands in for aiokafka's ``PartitionRecords``, of which it reads what has been fetched and not yet unpacked.
    """

    def __init__(self, fetched: PartitionRecords) -> None:
        self.next_fetch_offset: int = fetched.next_fetch_offset
        self._records = self._unpack(fetched)

    def __iter__(self) -> Iterator[Any]:
        return self._records

    def _unpack(self, fetched: PartitionRecords) -> Iterator[Any]:
        batches = fetched._records
        while batches.has_next():
            batch = batches.next_batch()
            if fetched._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(
                    f"the checksum of a batch of {fetched._tp} is wrong; it is fetched again"
                )
            if not batch.is_control_batch:
                for record in batch:
                    offset = record.offset
                    if offset >= self.next_fetch_offset:  # a batch may begin before the position asked for
                        self.next_fetch_offset = offset + 1
                        yield record
            # Past the whole batch, even if compaction has removed its last record.
            self.next_fetch_offset = batch.next_offset


class _Fetches(dict[Any, Any]):
    """aiokafka's fetched results by partition, light ones for the run topics."""

    def __init__(self, run_topics: frozenset[str]) -> None:
        super().__init__()
        self._run_topics = run_topics

    def __setitem__(self, tp: Any, result: Any) -> None:
        if tp.topic in self._run_topics and isinstance(result, FetchResult):
            result._partition_records = LightRecords(result._partition_records)
        super().__setitem__(tp, result)


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, whose fetches of run topics are light, and wait less long for a first record."""

    async def on_start(self) -> None:
        """Start the consumer."""
        await super().on_start()
        fetcher = self._ensure_consumer()._fetcher
        fetcher._fetch_max_wait_ms = FETCH_WAIT_MS
        fetcher._records = _Fetches(cast(RunSettings, self.app).run_topics)


class RunSettings(Protocol):
    """What the transport asks of its app."""

    run_topics: frozenset[str]
    run_records: int
    run_wait_s: float


class Consumer(driver.Consumer):
    """Faust's aiokafka consumer, with runs for the app's ``run_topics``.

    Bounded three ways: a fetch hands over at most ``run_records`` records, waits at most ``run_wait_s`` seconds
    for more once it has some, and waits while more than :attr:`IN_FLIGHT` fetches' worth are not acknowledged.
    """

    IN_FLIGHT: ClassVar[int] = 3

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = cast(RunSettings, self.app)
        self.run_topics = settings.run_topics
        self._run_records = settings.run_records
        self._run_wait_s = settings.run_wait_s
        self._pending: defaultdict[TP, deque[_Pending]] = defaultdict(deque)
        self._in_flight = 0  # records handed over and not acknowledged
        self._acknowledged = asyncio.Event()
        # Records fetched before their partitions were sought would stand before those sought, which would then look
        # as if they had been seen. So nothing is handed over until a seek, a fetch and a seek exclude each other,
        # and an epoch tells what was fetched before the seek.
        self._sought = False
        self._seeking = asyncio.Lock()
        self._epoch = 0
        self._fetched_in = 0

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:
        """Hand over what was fetched, of acknowledged topics only what was fetched since the last seek."""
        records = cast(AsyncGenerator[tuple[TP, Message], None], super().getmany(timeout))
        async with contextlib.aclosing(records) as fetched:
            async for tp, message in fetched:
                if self.app.topics.acks_enabled_for(tp.topic):
                    if not self._sought or self._fetched_in != self._epoch:
                        continue
                    if tp.topic in self.run_topics:
                        run = _Pending(message, len(cast(Sequence[Any], message.value)))
                        self._pending[tp].append(run)
                        self._in_flight += run.size
                yield tp, message

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, list[Any]]:
        if self._in_flight > self.IN_FLIGHT * self._run_records and not await self._room(timeout):
            return {}
        async with self._seeking:
            self._fetched_in = self._epoch
            records = await super()._getmany(active_partitions, timeout)
            records = await self._fuller(records, active_partitions)
        return {
            tp: [Run(found)] if tp.topic in self.run_topics else found
            for tp, found in records.items()
            if found
        }

    async def _room(self, timeout: float) -> bool:
        """Wait for acknowledgements; Faust's own way, taking full partitions out, sleeps a second at a time."""
        self._acknowledged.clear()
        try:
            await asyncio.wait_for(self._acknowledged.wait(), timeout)
        except TimeoutError:
            return False
        return self._in_flight <= self.IN_FLIGHT * self._run_records

    async def _fuller(self, records: Any, active_partitions: set[TP] | None) -> Any:
        """More of what is arriving, for at most ``run_wait_s``: at middling rates a batch costs less an event."""
        count = sum(map(len, records.values()))
        if not 0 < count < self._run_records or not self._run_wait_s or self.app.in_recovery:
            return records
        deadline = self.loop.time() + self._run_wait_s
        while count < self._run_records and (left := deadline - self.loop.time()) > 0 and self.flow_active:
            await asyncio.sleep(left)
            more = await super()._getmany(active_partitions, 0.0)
            for tp, found in more.items():
                records.setdefault(tp, []).extend(found)
            count = sum(map(len, records.values()))
        return records

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        if not isinstance(record, Run):
            return super()._to_message(tp, record)
        last = record.records[-1]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp / 1000.0,
            last.timestamp_type,
            last.headers,
            None,
            cast(Any, record.records),
            None,
            0,
            0,
            tp,
            # Without it the stream drops the message without a word.
            generation_id=self.app.consumer_generation_id,
        )

    def ack(self, message: Message) -> bool:
        """Mark a message, for a run topic its whole run, as processed."""
        if message.topic not in self.run_topics:
            return bool(super().ack(message))
        message.acked = True
        self._unacked_messages.discard(message)
        found = False
        for run in self._pending[message.tp]:
            if run.message is message and not run.done:
                run.done = found = True
                self._in_flight -= run.size
                break
        self._acknowledged.set()
        if self._waiting_for_ack is not None and not self._waiting_for_ack.done():
            self._waiting_for_ack.set_result(None)
        return found

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        yield from super()._filter_tps_with_pending_acks(topics)
        for tp in list(self._pending):
            if topics is None or tp in topics or tp.topic in topics:
                yield tp

    def _new_offset(self, tp: TP) -> int | None:
        if tp.topic not in self.run_topics:
            offset: int | None = super()._new_offset(tp)
            return offset
        pending, last = self._pending[tp], None
        while pending and pending[0].done:
            last = pending.popleft().message.offset
        return None if last is None else last + 1

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        # Offsets inside a run are no gap, and those between runs are passed with the run after them.
        if tp.topic not in self.run_topics:
            await super()._add_gap(tp, offset_from, offset_to)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish and commit what the stream has begun; the next owner starts at the commit."""
        await super().on_partitions_revoked(revoked)
        self._sought = False
        self._forget(begun=True)

    def committed(self, tp: TP) -> int:
        """The offset below which everything of ``tp`` is committed, as far as this process knows."""
        return self._committed_offset[tp] or 0

    async def perform_seek(self) -> None:
        """Start again at the committed offsets, or at the beginning of what was never committed.

        aiokafka leaves the latter where it is, which is past whatever was fetched, and dropped, while the
        partitions were being assigned.
        """
        async with self._seeking:
            self._epoch += 1
            self._forget(begun=False)
            await super().perform_seek()
            never = [
                tp
                for tp in self.assignment()
                if self.app.topics.acks_enabled_for(tp.topic) and not self._committed_offset[tp]
            ]
            if never:
                await self._thread.seek_to_beginning(*map(driver.ensure_aiokafka_TP, never))
            self._sought = True

    def _forget(self, *, begun: bool) -> None:
        """Forget the runs handed over that the stream never took, and with ``begun`` those that it did too."""
        for tp, runs in self._pending.items():
            kept = deque(run for run in runs if run.message.tracked and not begun)
            self._in_flight -= sum(run.size for run in runs if not run.done)
            self._in_flight += sum(run.size for run in kept if not run.done)
            self._pending[tp] = kept
        self._acknowledged.set()


class Producer(driver.Producer):
    """Faust's aiokafka producer, idempotent: a retry neither repeats nor reorders what is written."""

    def batches(self) -> Any:
        """The aiokafka producer itself, for writing many records at once; Faust's interface sends one at a time."""
        return self._ensure_producer()

    def _settings_extra(self) -> Mapping[str, Any]:
        return {**super()._settings_extra(), "acks": "all", "enable_idempotence": True}


class Transport(driver.Transport):
    """Faust's aiokafka transport with our consumer and producer."""

    Consumer: ClassVar[type[Consumer]] = Consumer
    Producer: ClassVar[type[Producer]] = Producer


def register() -> None:
    """Make ``runs://host:port`` a Faust broker URL."""
    drivers.TRANSPORTS.aliases[SCHEME] = f"{__name__}:Transport"
