"""The world of ``make bench-drift`` in which nothing changes: four numeric columns, one categorical, score and label.

Decisions come either independent of each other, or user by user: a user comes in bursts of ``BURST`` events that are
alike (ICC ``ALIKE``), in what the columns say and in what the model does not know. Of those the engine monitors one
decision a user a block; :mod:`stream.sampling` says which, from what it is asked about each first event of a burst. The
others of the burst it is not asked about, because it would refuse them.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from detectors.rows import Float64, Rows, Schema, rows_of
from model.usecase import Drift
from stream.sampling import Sampling

SCHEMA = Schema(("a", "b", "c", "d"), ("kind",))
VALUES = np.array(["red", "green", "blue", "grey"], np.object_)
WEIGHTS = np.array([0.9, -0.7, 0.5, 0.0])
BURST = 10  # events of a user, one after another
ALIKE = 0.8  # intraclass correlation
USERS = 5000
BLOCK_BURSTS = 2500  # in which 1967 users come, on average
LOOK_MS = 1000  # from one burst to the next

Random = np.random.Generator


def independent(random: Random, count: int, first: int, prior: float = -1.0) -> Rows:
    """``count`` decisions from the ``first`` on; ``prior`` is the logit of an average one."""
    own = random.normal(size=(count, 6))
    return _rows(random, own, first, prior)


def _rows(random: Random, own: Float64, first: int, prior: float) -> Rows:
    """Decisions of which ``own`` [n, 6] is what the numeric columns, the category and the hidden part come from."""
    n = len(own)
    numeric = own[:, :4]
    category = VALUES[np.searchsorted((-0.8, 0.0, 1.2), own[:, 4])]
    logit = prior + numeric @ WEIGHTS + 0.4 * (category == "red")
    known = 1 / (1 + np.exp(-logit))
    share = 1 / (1 + np.exp(-logit - 0.8 * own[:, 5]))
    return rows_of(
        numeric=numeric,
        score=known,
        label=(random.random(n) < share).astype(np.float64),
        categorical=category[:, None],
        time=np.arange(first, first + n),
        first_key=first,
    )


class Stream:
    """Decisions of the world without end: those that are monitored, in their order."""

    def __init__(self, kind: str, seed: list[int]) -> None:
        self._random = np.random.default_rng(seed)
        self._take = {"independent": self._independent, "thinned": self._thinned, "bursts": self._bursts}[
            kind
        ]
        self._next = 0
        self._users = self._random.normal(size=(USERS, 6)) if kind != "independent" else np.empty((0, 6))
        self._burst = 0
        block = BLOCK_BURSTS * LOOK_MS / 1000
        self._sampling = Sampling(msgspec.structs.replace(Drift(), block=block, samples=2 * USERS), 1)

    def take(self, count: int) -> Rows:
        """The next ``count`` decisions."""
        return self._counted(self._take(count))

    def reference(self, count: int) -> Rows:
        """The next ``count`` as a model's reference has them: thinned, where there are users."""
        return self._counted(self._thinned(count) if len(self._users) else self._independent(count))

    def _counted(self, rows: Rows) -> Rows:
        self._next += len(rows)
        return rows

    def _independent(self, count: int) -> Rows:
        return independent(self._random, count, self._next)

    def _thinned(self, count: int) -> Rows:
        users = self._monitored()
        return self._of(np.array([next(users) for _ in range(count)]))

    def _bursts(self, count: int) -> Rows:
        bursts = self._random.integers(USERS, size=-(-count // BURST))
        return self._of(np.repeat(bursts, BURST)[:count])

    def _monitored(self) -> Iterator[int]:
        while True:
            self._sampling.changes()  # which nobody wants to know
            for user in self._random.integers(USERS, size=100).tolist():
                self._burst += 1
                if self._sampling.take(str(user), self._burst * LOOK_MS):
                    yield user

    def _of(self, users: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Rows:
        fresh = self._random.normal(size=(len(users), 6))
        own = np.sqrt(ALIKE) * self._users[users] + np.sqrt(1 - ALIKE) * fresh
        return _rows(self._random, own, self._next, -1.0)


def samples(rows: Rows) -> Rows:
    """Each of ``rows`` as the monitor gets it when its outcome is known at once: scored, and then matured."""
    both = rows[np.repeat(np.arange(len(rows)), 2)]
    label = both.label.copy()
    label[::2] = np.nan
    return msgspec.structs.replace(both, label=label)
