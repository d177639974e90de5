"""The bench's job in Quix Streams, as its documentation teaches: a stateful function of a StreamingDataFrame.

Run by ``tests/bench/contestants.py`` in an environment of its own. State is its default, RocksDB with a changelog topic,
committed every 5 s; keys and values are JSON. The model scores one decision at a time, since a StreamingDataFrame
hands its functions one message at a time.
"""

from __future__ import annotations

from typing import Any

from quixstreams import Application, State

from tests.bench.job import Job
from tests.bench.plain_fold import features, fold, logged, new_profile
from tests.bench.plain_model import PlainModel

job = Job.read()
model = PlainModel(job.bundle)

Row = tuple[dict[str, Any], list[float], list[int]]


def update(event: dict[str, Any], state: State) -> Row | None:
    """Fold one event into its user's profile; return a decision with its features, as they stood before it."""
    profile = state.get("profile")
    if profile is None:
        profile = new_profile()
    row = (event, *features(profile, event["time"], event["context"])) if event["type"] == "due" else None
    fold(profile, event["type"], event["time"], event.get("value"), event["item"])
    state.set("profile", profile)
    return row


def score(row: Row) -> dict[str, Any]:
    """Return the score record of a decision."""
    event, numeric, ids = row
    return {
        "id": event["id"],
        "type": event["type"],
        "user": event["user"],
        "item": event["item"],
        "time": event["time"],
        "score": model([numeric], [ids])[0],
        "model": model.version,
        "features": logged(numeric, event["context"]),
    }


def main() -> None:
    """Run the application."""
    app = Application(
        broker_address=job.broker,
        consumer_group=job.name,
        auto_offset_reset="earliest",
        state_dir=job.state,
        loglevel="WARNING",
    )
    events = app.topic(job.events, value_deserializer="json")
    scores = app.topic(job.scores, value_serializer="json")
    sdf = app.dataframe(events)
    sdf = sdf.apply(update, stateful=True)
    sdf = sdf.filter(lambda row: row is not None)
    sdf = sdf.apply(score)
    sdf.to_topic(scores)
    app.run()


if __name__ == "__main__":
    main()
