"""The bench's job in plain Faust, as its user guide teaches: records, a table with a default, an agent.

Run by ``tests/bench/contestants.py`` as ``faust -A tests.bench.plain_faust worker``, in an environment with
``faust-streaming[fast]``, the documented bundle of C speed-ups. The table is kept in memory, the quickest store, and
each change goes to its changelog topic. ``BENCH_TAKE`` > 1 has the agent ``take`` so many events at once, which
lets the model score a batch; the table then needs ``use_partitioner``, since Faust would otherwise write the whole
batch's changes to the changelog partition of its last event.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import faust

from tests.bench.job import Job
from tests.bench.plain_fold import Profile, features, fold, logged, new_profile
from tests.bench.plain_model import PlainModel

WITHIN_S = 0.05  # that `take` waits for a full batch

job = Job.read()
take = int(os.environ["BENCH_TAKE"])
model = PlainModel(job.bundle)


class Event(faust.Record):
    """What a producer sends."""

    id: str
    type: str
    user: str
    time: int
    item: str
    value: float | None = None
    context: dict[str, Any] | None = None


class Score(faust.Record):
    """What is written for each decision."""

    id: str
    type: str
    user: str
    item: str
    time: int
    score: float
    model: str
    features: dict[str, Any]


app = faust.App(
    job.name,
    broker=f"kafka://{job.broker}",
    topic_partitions=int(job.partitions),
    consumer_auto_offset_reset="earliest",
    # With the leader topic, which nobody writes to, a fetch from the one broker can wait its full 1.5 s for it.
    topic_disable_leader=True,
    datadir=job.state,
)
events_topic = app.topic(job.events, key_type=str, value_type=Event)
scores_topic = app.topic(job.scores, key_type=str, value_type=Score)
profiles: Any = app.Table("profiles", default=new_profile, key_type=str, use_partitioner=take > 1)

Row = tuple[Event, list[float], list[int]]


def update(event: Event) -> Row | None:
    """Fold one event into its user's profile; return a decision with its features, as they stood before it."""
    profile: Profile = profiles[event.user]
    row = (event, *features(profile, event.time, event.context or {})) if event.type == "due" else None
    fold(profile, event.type, event.time, event.value, event.item)
    profiles[event.user] = profile
    return row


async def write(rows: Sequence[Row]) -> None:
    """Score decisions and send the scores."""
    if not rows:
        return
    values = model([numeric for _, numeric, _ in rows], [ids for _, _, ids in rows])
    for (event, numeric, _), value in zip(rows, values, strict=True):
        await scores_topic.send(
            key=event.user,
            value=Score(
                id=event.id,
                type=event.type,
                user=event.user,
                item=event.item,
                time=event.time,
                score=value,
                model=model.version,
                features=logged(numeric, event.context or {}),
            ),
        )


async def one_by_one(stream: Any) -> None:
    """Process one event at a time."""
    async for event in stream:
        row = update(event)
        if row is not None:
            await write([row])


async def batches(stream: Any) -> None:
    """Process what ``take`` gathers."""
    async for events in stream.take(take, within=WITHIN_S):
        await write([row for row in map(update, events) if row is not None])


app.agent(events_topic, name="events")(batches if take > 1 else one_by_one)
