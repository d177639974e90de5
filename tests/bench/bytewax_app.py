"""The bench's job in Bytewax, as its documentation teaches: Kafka in, a stateful step by user, Kafka out.

Run by ``tests/bench/contestants.py`` as ``python -m bytewax.run tests.bench.bytewax_app``, in an environment of its own,
with recovery on as in its guide's example, a snapshot of the state in memory to SQLite every 30 s: it has no changelog, so a
run shorter than that pays nothing for durability. The model scores a batch at a time in ``flat_map_batch``, which the documentation gives for this.
"""

from __future__ import annotations

from typing import Any

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow

from tests.bench.job import Job
from tests.bench.plain_fold import Profile, features, fold, logged, new_profile
from tests.bench.plain_model import PlainModel

job = Job.read()
model = PlainModel(job.bundle)

Row = tuple[dict[str, Any], list[float], list[int]]


def decode(message: KafkaSourceMessage) -> tuple[str, dict[str, Any]]:
    """Return an event under its user."""
    event = orjson.loads(message.value)
    return event["user"], event


def update(profile: Profile | None, event: dict[str, Any]) -> tuple[Profile, list[Row]]:
    """Fold one event into its user's profile; emit a decision with its features, as they stood before it."""
    if profile is None:
        profile = new_profile()
    rows = [(event, *features(profile, event["time"], event["context"]))] if event["type"] == "due" else []
    fold(profile, event["type"], event["time"], event.get("value"), event["item"])
    return profile, rows


def score(batch: list[tuple[str, Row]]) -> list[KafkaSinkMessage]:
    """Return the score records of a batch of decisions."""
    rows = [row for _, row in batch]
    values = model([numeric for _, numeric, _ in rows], [ids for _, _, ids in rows])
    return [
        KafkaSinkMessage(
            key=event["user"].encode(),
            value=orjson.dumps(
                {
                    "id": event["id"],
                    "type": event["type"],
                    "user": event["user"],
                    "item": event["item"],
                    "time": event["time"],
                    "score": value,
                    "model": model.version,
                    "features": logged(numeric, event["context"]),
                }
            ),
        )
        for (event, numeric, _), value in zip(rows, values, strict=True)
    ]


flow = Dataflow("bench")
messages = kop.input("events", flow, brokers=[job.broker], topics=[job.events])
decoded = op.map("decode", messages.oks, decode)
decisions = op.stateful_flat_map("profiles", decoded, update)
scored = op.flat_map_batch("score", decisions, score)
kop.output("scores", scored, brokers=[job.broker], topic=job.scores)
