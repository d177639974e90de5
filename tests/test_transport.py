"""Facts about stream/transport.py that a real broker shows too rarely: what a seek makes of records under way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple, cast

import pytest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from deploy.live import fixed
from deploy.settings import Settings
from stream.app import create_app
from stream.transport import Consumer
from tests.events import usecase

EVENTS = TP("events", 0)


class Fetched(NamedTuple):
    """A record as far as the transport looks."""

    offset: int
    timestamp: int = 0
    timestamp_type: int = 0
    headers: tuple[()] = ()


class Fetches:
    """Stands in for the driver below the transport: each fetch answers, when it is let, with the records given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: asyncio.Queue[list[int]] = asyncio.Queue()
        self.asked = asyncio.Event()

        async def fetch(_: Any, *__: Any) -> Mapping[TP, list[Any]]:
            self.asked.set()
            return {EVENTS: [Fetched(offset) for offset in await self.answers.get()]}

        async def nothing(*_: Any) -> None:
            pass

        async def committed(*_: Any) -> dict[TP, int]:
            return {EVENTS: 5}

        monkeypatch.setattr(driver.Consumer, "_getmany", fetch)
        monkeypatch.setattr(driver.Consumer, "seek_to_committed", committed)
        monkeypatch.setattr(driver.Consumer, "on_partitions_revoked", nothing)
        monkeypatch.setattr(driver.Consumer, "highwater", lambda *_: 0)
        monkeypatch.setattr(driver.Consumer, "assignment", lambda *_: {EVENTS})
        monkeypatch.setattr(driver.Consumer, "_get_active_partitions", lambda *_: {EVENTS})


async def offsets(consumer: Consumer) -> list[int]:
    """The offsets that one fetch hands over."""
    return [
        record.offset
        async for _, message in consumer.getmany(1.0)
        for record in cast(list[Fetched], message.value)
    ]


@contextlib.asynccontextmanager
async def made(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Consumer, Fetches]]:
    """A consumer of the worker's app over :class:`Fetches`, its flow running."""
    settings = Settings()
    app = create_app(settings, usecase(), fixed(None), 1)
    # It subscribes only when it starts.
    app.topics.acks_enabled_for = lambda _: True  # type: ignore[assignment,method-assign]
    app.run_wait_s = 0.0

    async def callback(*_: Any) -> None:
        pass

    consumer = Consumer(
        app.transport,
        callback=callback,
        on_partitions_revoked=callback,
        on_partitions_assigned=callback,
        loop=asyncio.get_running_loop(),
    )
    consumer.resume_flow()
    yield consumer, Fetches(monkeypatch)
    consumer._thread.thread_loop.close()


def test_nothing_is_handed_over_before_its_partitions_are_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was fetched while partitions were being assigned is dropped; the seek brings it back."""

    async def run() -> None:
        async with made(monkeypatch) as (consumer, fetches):
            fetches.answers.put_nowait([7, 8])
            assert [] == await offsets(consumer)
            await consumer.perform_seek()
            fetches.answers.put_nowait([5, 6])
            assert [5, 6] == await offsets(consumer)
            await consumer.on_partitions_revoked(set())
            fetches.answers.put_nowait([7])
            assert [] == await offsets(consumer)

    asyncio.run(run())


def test_records_under_way_while_partitions_are_sought_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch that began before a seek and ends after it would hand over what stands behind the records sought."""

    async def run() -> None:
        async with made(monkeypatch) as (consumer, fetches):
            await consumer.perform_seek()
            under_way = asyncio.ensure_future(offsets(consumer))
            await fetches.asked.wait()
            seek = asyncio.ensure_future(consumer.perform_seek())
            await asyncio.sleep(0)
            assert not seek.done()  # it waits for the fetch
            fetches.answers.put_nowait([20, 21])
            await seek
            await under_way
            fetches.answers.put_nowait([5, 6])
            assert [5, 6] == await offsets(consumer)
            assert consumer._new_offset(EVENTS) is None  # nothing dropped is waited for, nor committed

    asyncio.run(run())
