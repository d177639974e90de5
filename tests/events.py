"""What the stream's tests are made of: a use case with every kind of feature, and seeded events of it."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from model.usecase import UseCase, parse
from stream.files import FileRecord
from stream.state import State

NOW_MS = 1_800_000_000_000
START_MS = 1_700_000_000_000
DAY_MS = 86_400_000

USECASE = """
name = "journey"
[events.page]
requires = ["item"]
[events.quiz]
requires = ["value"]
[events.offer]
requires = ["item"]
[events.done]
[decisions.offer]
outcome = "done"
window = "14d"
prior = 0.3
[context]
plan = "category"
price = "number"
[profile]
idle_after = "30d"
[features]
pages_1d = { kind = "decayed_count", events = ["page"], half_life = "1d" }
pages_7d = { kind = "decayed_count", events = ["page"], half_life = "7d" }
all_1d = { kind = "decayed_count", events = ["page", "quiz", "offer", "done"], half_life = "1d" }
quiz_7d = { kind = "decayed_sum", events = ["quiz"], half_life = "7d" }
quizzes_7d = { kind = "decayed_count", events = ["quiz"], half_life = "7d" }
mean_quiz = { kind = "ratio", numerator = "quiz_7d", denominator = "quizzes_7d" }
since_page = { kind = "recency", events = ["page"] }
last_quiz = { kind = "last_value", events = ["quiz"] }
items = { kind = "distinct_items", events = ["page", "offer"], bits = 64 }
tenure = { kind = "tenure" }
clock = { kind = "time_of_day" }
amount = { kind = "value" }
plan = { kind = "context", field = "plan", buckets = 16 }
price = { kind = "context", field = "price" }
item = { kind = "item", buckets = 32 }
[model]
embedding = 4
dense = [8]
"""


def usecase() -> UseCase:
    """The tests' use case."""
    return parse(USECASE)


def state() -> State:
    """The state of a partition that has seen nothing."""
    return State(usecase(), max_open=1_000_000)


def event(**changes: Any) -> dict[str, Any]:
    """A good event with ``changes``; a change to ... leaves the field out."""
    fields = {"id": "e1", "type": "page", "user": "ann", "time": START_MS, "item": "p1"} | changes
    return {name: value for name, value in fields.items() if value is not ...}


def record(value: bytes | None, key: bytes | None = b"ann", offset: int = 0) -> FileRecord:
    """A Kafka record."""
    return FileRecord(offset, START_MS, key, value)


def stream(n: int, users: int, seed: int = 0, step_ms: int = 60_000) -> list[dict[str, Any]]:
    """``n`` events of ``users`` people in time order, a tenth of them decisions."""
    chance = random.Random(seed)
    made = []
    for number in range(n):
        kind = chance.choices(["page", "quiz", "offer", "done"], [60, 20, 10, 10])[0]
        made.append(
            event(
                id=f"e{number}",
                type=kind,
                user=f"u{chance.randrange(users)}",
                time=START_MS + number * step_ms,
                item=f"i{chance.randrange(50)}",
                value=round(chance.uniform(0, 10), 2) if kind != "page" else ...,
                context={"plan": chance.choice("abc"), "price": chance.randrange(5)}
                if kind == "offer"
                else ...,
            )
        )
    return made


def records(events: list[dict[str, Any]], first: int = 0) -> list[FileRecord]:
    """``events`` as records of one partition, from offset ``first``."""
    return [
        FileRecord(first + number, START_MS, each["user"].encode(), msgspec.json.encode(each))
        for number, each in enumerate(events)
    ]
