"""The world of ``make bench-loop``: learners are asked to submit, some do, and from a moment on the law changes.

Decisions (``due``) bring what decides about them in their context: ``effort`` and ``load``, standard normal, and a
``plan``. Who submits does so within the window. Every law is known, so each decision's true probability is, too.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

START_MS = 1_700_000_000_000
STEP_MS = 1_800  # from one decision to the next: 2,000 an hour
USERS = 20_000
PLANS = ("basic", "family", "gold")
SHARES = (0.6, 0.3, 0.1)
WEIGHTS = np.array([1.2, -0.8])
GOLD, LEVEL = 0.6, -0.5
CHUNK = 2000
PAGES = 8  # with 1.4 other events a decision

USECASE = """
name = "loop"
[events.page]
[events.due]
[events.submitted]
[decisions.due]
outcome = "submitted"
window = "30m"
match = "item"
prior = 0.4
[context]
effort = "number"
load = "number"
plan = "category"
[features]
pages = { kind = "decayed_count", events = ["page"], half_life = "1s" }
effort = { kind = "context", field = "effort" }
load = { kind = "context", field = "load" }
plan = { kind = "context", field = "plan", buckets = 8 }
[model]
embedding = 4
cross_layers = 1
cross_rank = 4
dense = [16]
[training]
train = "20h"
validate = "5h"
[quality]
slices = ["plan"]
[drift]
block = "1h"
samples = 2000
labels = 1000
witnesses = []
[retrain]
cooldown = "1s"
budget = "1h"
labels = 3000
share = 0.5
growth = 0
"""


class Kind(StrEnum):
    """What happens at the onset."""

    NOTHING = "nothing"
    LABEL = "label"  # the base rate rises to .7, and what submitters and others look like stays
    COVARIATE = "covariate"  # learners with another effort come; the law stays
    CONCEPT = "concept"  # effort and load change places in the law; learners stay
    FAULT = "fault"  # a producer sends load in another unit


class Decision(msgspec.Struct, frozen=True):
    """A decision: its id, event time (ms), true probability and whether its learner submits."""

    id: str
    time: int
    true: float
    label: int


class World:
    """``count`` decisions of which the law changes, as ``kind`` says, from number ``onset`` on.

    Each comes with events of pages, on average ``PAGES``, that say nothing.
    """

    def __init__(
        self, kind: Kind, count: int, onset: int, *, seed: int = 0, start_ms: int = START_MS
    ) -> None:
        self.kind, self.count, self.onset = kind, count, onset
        self.seed, self.start_ms = seed, start_ms
        self.decisions: list[Decision] = []

    def events(self) -> Iterator[tuple[int, bytes, bytes]]:
        """(decisions before it, key, value) of every event in order of time; notes the decisions on the way."""
        random = np.random.default_rng(self.seed)
        waiting: list[tuple[int, int, bytes, bytes]] = []  # a heap of what comes later, by time
        order = 0
        for first in range(0, self.count, CHUNK):
            n = min(CHUNK, self.count - first)
            drifted = np.arange(first, first + n) >= self.onset
            effort, load, plan, true, label = self._draw(random, drifted)
            users = random.integers(0, USERS, n)
            pages = random.integers(0, 2 * PAGES + 1, n)
            delays = random.integers(60_000, 25 * 60_000, n)
            for k in range(n):
                number = first + k
                time = self.start_ms + number * STEP_MS
                while waiting and waiting[0][0] <= time:
                    _, _, key, value = heapq.heappop(waiting)
                    yield number, key, value
                user = f"learner-{users[k]:05d}"
                key = user.encode()
                for page in range(pages[k]):
                    yield number, key, _event(f"p{number}-{page}", "page", user, time)
                context = {"effort": float(effort[k]), "load": float(load[k]), "plan": PLANS[plan[k]]}
                name = f"d{number}"
                yield number, key, _event(name, "due", user, time, item=name, context=context)
                self.decisions.append(Decision(name, time, float(true[k]), int(label[k])))
                if label[k]:
                    order += 1
                    at = time + int(delays[k])
                    value = _event(f"s{number}", "submitted", user, at, item=name)
                    heapq.heappush(waiting, (at, order, key, value))
        while waiting:
            _, _, key, value = heapq.heappop(waiting)
            yield self.count, key, value

    def _draw(self, random: np.random.Generator, drifted: NDArray[np.bool_]) -> tuple[NDArray[Any], ...]:
        n = len(drifted)
        many = 12 * n  # from which a label shift chooses
        numbers = random.normal(size=(many, 2))
        plan = random.choice(len(PLANS), many, p=SHARES)
        uniform, wanted = random.random(many), random.random(n) < 0.7
        kind = self.kind if drifted.any() else Kind.NOTHING
        if kind is Kind.LABEL:
            true = _law(numbers, plan)
            label = uniform < true
            pools = [np.flatnonzero(~label), np.flatnonzero(label)]
            chosen = np.where(drifted, [pools[int(each)][k] for k, each in enumerate(wanted)], np.arange(n))
            rate = float(_law(numbers, plan).mean())
            odds = np.where(drifted, (0.7 / 0.3) / (rate / (1 - rate)), 1.0)
            before = true[chosen]
            now = before * odds / (before * odds + 1 - before)
            return numbers[chosen, 0], numbers[chosen, 1], plan[chosen], now, label[chosen]
        numbers, plan = numbers[:n], plan[:n]
        if kind is Kind.COVARIATE:
            numbers[:, 0] += 0.8 * drifted
        turned = numbers[:, ::-1] if kind is Kind.CONCEPT else numbers
        true = np.where(drifted, _law(turned, plan), _law(numbers, plan))
        load = np.where(drifted, 1000 * numbers[:, 1], numbers[:, 1]) if kind is Kind.FAULT else numbers[:, 1]
        return numbers[:, 0], load, plan, true, uniform[:n] < true


def _law(numbers: NDArray[np.float64], plan: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(expit(LEVEL + numbers @ WEIGHTS + GOLD * (plan == 2)))


def _event(name: str, kind: str, user: str, time: int, **more: object) -> bytes:
    return msgspec.json.encode({"id": name, "type": kind, "user": user, "time": time} | more)
