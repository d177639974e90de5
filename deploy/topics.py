"""The topics an engine needs: what ``eddyline topics`` creates, and what a worker checks before it starts."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from deploy.settings import Settings, kafka_client

TIMEOUT_S = 10.0
SHOWN_S = 0.05  # between looks whether new topics show
# The header of a scored sample, ASCII ms: when its event was sent. Not the record's timestamp: by that Kafka deletes, and
# the samples of events that are older than `retention.ms`, as of a back-fill, would be gone at once.
SENT = "sent"


class TopicError(RuntimeError):
    """The topics are not as the engine needs them; the text says what to do."""


class Plan(msgspec.Struct, frozen=True):
    """A topic as it should be; those keyed by user have as many partitions as one another."""

    name: str
    partitions: int
    config: dict[str, str]
    by_user: bool = True


def state_changelog(engine_id: str) -> str:
    """The topic that profiles and open decisions are kept in, of the engine ``engine_id``."""
    return f"{engine_id}-state-changelog"


def monitor_changelog(engine_id: str) -> str:
    """The topic that the drift monitor's state is kept in, of the engine ``engine_id``."""
    return f"{engine_id}-monitor-changelog"


def plans(settings: Settings) -> list[Plan]:
    """The topics of one engine."""
    topics, engine = settings.topics, settings.engine
    kept = {"retention.ms": str(int(topics.retention_h * 3_600_000))}
    found = {"cleanup.policy": "delete", "retention.ms": str(int(topics.drift_retention_d * 86_400_000))}
    compacted = {
        "cleanup.policy": "compact",
        # Restoring reads what compaction has not yet removed: small segments keep that near one row a user.
        "segment.bytes": str(64 * 1024 * 1024),
        "min.cleanable.dirty.ratio": "0.3",
    }
    return [
        Plan(topics.events, topics.partitions, {}),
        Plan(topics.scores, topics.partitions, kept),
        Plan(topics.examples, topics.partitions, kept),
        Plan(topics.dead_letters, topics.partitions, kept),
        Plan(state_changelog(engine.id), topics.partitions, compacted),
        # The monitor compares what follows with what came before, over all users: it needs one order of all samples,
        # and only one partition has that. They are few: `samples` of the use case's [drift] a block.
        Plan(topics.samples, 1, kept, by_user=False),
        Plan(topics.drift, 1, found, by_user=False),
        Plan(monitor_changelog(engine.id), 1, compacted, by_user=False),
        # The newest release of each use case; the registry has them all.
        Plan(topics.models, 1, compacted, by_user=False),
        Plan(topics.requests, 1, kept, by_user=False),
        # What is known of a request is its last record, which must stay: by it a request is known that comes again.
        Plan(topics.retrains, 1, compacted, by_user=False),
    ]


def create(settings: Settings) -> list[str]:
    """Create what is missing and return its names; raises :class:`TopicError` when a broker refuses."""
    admin = AdminClient(kafka_client(settings.kafka))
    present = partition_counts(settings)
    # An events topic that is already there decides how many partitions the others that are keyed by user get.
    count = present.get(settings.topics.events)
    missing = [
        NewTopic(
            plan.name,
            num_partitions=count if count and plan.by_user else plan.partitions,
            replication_factor=settings.topics.replication,
            config=plan.config,
        )
        for plan in plans(settings)
        if plan.name not in present
    ]
    if not missing:
        return []
    created = []
    for name, future in admin.create_topics(missing, operation_timeout=TIMEOUT_S).items():
        try:
            future.result(TIMEOUT_S)
        except KafkaException as error:
            raise TopicError(f"topic {name} was not created: {error.args[0]}") from error
        created.append(name)
    # A broker answers before it shows them itself: whoever starts next would not find them.
    deadline = time.monotonic() + TIMEOUT_S
    while set(created) - partition_counts(settings).keys():
        if time.monotonic() > deadline:
            raise TopicError(f"topics {', '.join(created)} were created and do not show; run this again")
        time.sleep(SHOWN_S)
    return created


def partition_counts(settings: Settings) -> dict[str, int]:
    """Partitions of every topic of the cluster; raises :class:`TopicError` when no broker answers."""
    metadata = _metadata(settings)
    return {name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}


def check(settings: Settings) -> int:
    """The number of partitions that all topics keyed by user have; raises :class:`TopicError` if they have not.

    Of the others a worker needs the samples' alone, whose first partition it writes to.
    """
    present = partition_counts(settings)
    needed = [plan.name for plan in plans(settings) if plan.by_user]
    missing = [name for name in (*needed, settings.topics.samples) if name not in present]
    if missing:
        raise TopicError(f"there is no topic {', '.join(missing)}; create it with `eddyline topics`")
    count = present[settings.topics.events]
    wrong = {name: present[name] for name in needed if present[name] != count}
    if wrong:
        raise TopicError(
            f"{settings.topics.events} has {count} partitions, but {wrong}: a user must stand in the same partition "
            "of each; recreate those topics with as many"
        )
    return count


def _metadata(settings: Settings) -> Any:
    admin = AdminClient({**kafka_client(settings.kafka), "log_level": 0})
    try:
        return admin.list_topics(timeout=TIMEOUT_S)
    except KafkaException as error:
        raise TopicError(
            f"no broker of kafka.bootstrap_servers = {settings.kafka.bootstrap_servers} answered within "
            f"{TIMEOUT_S:.0f} s: {error.args[0]}"
        ) from error
