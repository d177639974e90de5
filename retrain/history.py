"""Requests by hand, and the history: what became of every request to retrain. ``eddyline retrain`` calls."""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Iterable, Iterator

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy import metrics
from deploy.consumer import PASSING, POLL_S, ConsumerError, read_to_end
from deploy.outlet import Outlet
from deploy.settings import Settings, kafka_client
from deploy.topics import TopicError, partition_counts
from retrain.policy import lasting, moment
from retrain.request import Record, RequestError, RetrainRequest, State, check, recalled

SILENT_S = 10.0  # after which a request without an answer is worth a word
WIDTH = 110  # characters, where there is no terminal to ask

_COLOURS = {
    State.WAITING: "yellow",
    State.BLOCKED: "bold red",
    State.REFUSED: "white",
    State.RUNNING: "cyan",
    State.FAILED: "red",
    State.KEPT: "magenta",
    State.STAGED: "cyan",
    State.RELEASED: "green",
    State.ROLLED_BACK: "red",
}

log = logging.getLogger(__name__)


class HistoryError(RuntimeError):
    """The history cannot be read: why, and what to do."""


def records_in(settings: Settings) -> Iterator[Record]:
    """Every record of the ``retrains`` topic, the oldest first; raises :class:`HistoryError`."""
    topic = settings.topics.retrains
    try:
        if topic not in partition_counts(settings):
            raise HistoryError(f"there is no topic {topic}; create it with `eddyline topics`")
        for message in read_to_end(settings.kafka, topic):
            try:
                yield recalled(message.value())
            except RequestError as error:
                metrics.TRAINER_FAILURES.labels("retrains").inc()
                log.warning("%s, offset %s: %s; it is passed over", topic, message.offset(), error)
    except (TopicError, ConsumerError) as error:
        raise HistoryError(str(error)) from error


def send(settings: Settings, request: RetrainRequest) -> None:
    """Ask for ``request``; returns when the topic has it. Raises what :class:`~deploy.outlet.Outlet` and :func:`check` do."""
    check(request)
    topic = settings.topics.requests
    if topic not in partition_counts(settings):
        raise HistoryError(f"there is no topic {topic}; create it with `eddyline topics`")
    outlet = Outlet(settings.kafka)
    outlet.send(topic, request.id.encode(), msgspec.json.encode(request))
    outlet.flush()


def follow(settings: Settings, request: str) -> Iterator[Record]:
    """Each record of the request with that id, until nothing more comes of it; raises :class:`HistoryError`.

    That no trainer answers is said, and it goes on: one may be started.
    """
    began: float | None = time.monotonic()  # None: a trainer has answered
    consumer = Consumer(
        kafka_client(settings.kafka) | {"group.id": "none", "enable.auto.commit": False, "log_level": 0}
    )
    try:
        consumer.assign([TopicPartition(settings.topics.retrains, 0, OFFSET_BEGINNING)])
        while True:
            message = consumer.poll(POLL_S)
            if began is not None and time.monotonic() - began > SILENT_S:
                began = None
                log.warning("no trainer has answered for %g s; does `eddyline trainer` run?", SILENT_S)
            if message is None:
                continue
            if (error := message.error()) is not None:
                if error.code() not in PASSING:
                    raise HistoryError(f"{settings.topics.retrains} cannot be read: {error}; correct that")
                continue
            if message.key() != request.encode():
                continue
            record, began = recalled(message.value()), None
            yield record
            if record.state.final:
                return
    finally:
        consumer.close()


def new_id(kind: str) -> str:
    """An id that no other request has."""
    return f"{kind}-{uuid.uuid4().hex[:12]}"


def now() -> int:
    """Ms since the epoch."""
    return time.time_ns() // 1_000_000


def newest(records: Iterable[Record]) -> list[Record]:
    """Of each request the last record, in the order in which they came to be so."""
    found: dict[str, Record] = {}
    for record in records:
        found.pop(record.request.id, None)
        found[record.request.id] = record
    return list(found.values())


def show(records: Iterable[Record], *, as_json: bool = False, to: Console | None = None) -> None:
    """Print the last record of each request, with its reasons."""
    found = newest(records)
    if as_json:
        for each in found:
            sys.stdout.write(msgspec.json.encode(each).decode() + "\n")
        return
    to = to or Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    if not found:
        to.print("Nobody has asked for a new model.")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("when (UTC)", "request", "state", "why"):
        table.add_column(name, overflow="fold")
    for each in found:
        colour = _COLOURS[each.state]
        state = f"[{colour}]{each.state.value}[/]"
        table.add_row(moment(each.at), escape(each.request.id), state, escape(_why(each)))
    to.print(table)


def _why(record: Record) -> str:
    told = list(record.reasons)
    if record.attempt and record.state is State.RUNNING:
        told.append(f"attempt {record.attempt}, job {record.job}")
    if record.gate is not None:
        told.append(f"made {record.version}")
    if record.seconds:
        told.append(f"{lasting(record.seconds)} of training")
    return f"{record.request.reason}. " + "; ".join(told)
