"""A seeded shop whose law is known: offers that bring purchases, views that are noise, and what explore makes of it."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from deploy.settings import Events
from stream.candidates import Candidate, candidates
from stream.explore import Explorer, Findings

START_MS = 1_700_006_400_000  # 2023-11-15 00:00 UTC
DAY_MS = 86_400_000
NOW_MS = START_MS + 1000 * DAY_MS
DAYS, USERS, OFFERS = 120, 400, 10  # offers a user
TAKEN = 0.3  # of the offers, by a purchase of the same item within 5 days
NO_PRICE = 0.25  # share of the views without a price
PLANS = 5
Json = dict[str, Any]


def event(n: int, **fields: Any) -> Json:
    """An event with what a test does not care about."""
    return {"id": f"e{n}", "type": "view", "user": f"u{n % 7}", "time": START_MS + n * 60_000} | fields


def stream(seed: int = 0) -> list[Json]:
    """The shop's events in order of time."""
    draw = random.Random(seed)
    events: list[Json] = []
    for user in range(USERS):
        plan = f"plan-{user % PLANS}"
        for _ in range(3 * OFFERS):
            context: Json = {"plan": plan}
            if draw.random() >= NO_PRICE:
                context["price"] = draw.uniform(1, 9)
            events.append(
                {"type": "view", "user": f"u{user}", "time": draw.uniform(0, DAYS), "item": _item(draw)}
                | {"context": context}
            )
        for _ in range(OFFERS):
            at, item = draw.uniform(0, DAYS), _item(draw)
            events.append(
                {"type": "offer", "user": f"u{user}", "time": at, "item": item}
                | {
                    "context": {
                        "plan": plan,
                        "discount": draw.choice([5, 10, 20]),
                        "rush": draw.random() < 0.5,
                    }
                }
            )
            if draw.random() < TAKEN:
                events.append(
                    {"type": "buy", "user": f"u{user}", "time": at + draw.uniform(0.01, 5), "item": item}
                    | {"value": draw.lognormvariate(3, 1)}
                )
    events.sort(key=lambda each: each["time"])
    return [
        each | {"id": f"e{n}", "time": START_MS + round(each["time"] * DAY_MS)}
        for n, each in enumerate(events)
    ]


def _item(draw: random.Random) -> str:
    return f"sku-{draw.randrange(60)}"


def lines(events: Iterable[Json | bytes]) -> list[tuple[int, bytes]]:
    """Events, or lines as they are, with their line numbers."""
    return [
        (n, each if isinstance(each, bytes) else msgspec.json.encode(each))
        for n, each in enumerate(events, 1)
    ]


def explored(*files: Sequence[Json | bytes], **options: Any) -> Findings:
    """What is found in files of these events, called 0.jsonl, 1.jsonl and so on."""
    explorer = Explorer(Events(), NOW_MS, **options)
    for n, events in enumerate(files):
        explorer.read(f"{n}.jsonl", lines(events))
    return explorer.findings()


@functools.cache
def shop() -> tuple[Findings, tuple[Candidate, ...]]:
    """The shop's findings and candidates."""
    findings = explored(stream())
    return findings, candidates(findings.histories)
