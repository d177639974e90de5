"""A comparison under way: pairs of scores as they come, each decision once. :mod:`retrain.controller` has two."""

from __future__ import annotations

import numpy as np

from deploy.watch import Evidence, extended

USERS = 1_000_000  # that are told apart: 60 MB; what so many have not shown is not looked for in others
MEMORY = 50_000  # decisions that are known if they come again: workers repeat samples when they crash

Key = tuple[str, str, str]  # what is compared: the model, with what, and how


class Comparison:
    """Evidence on ``of``, from records written ``since`` then (ms); nothing at first."""

    def __init__(self) -> None:
        self.of: Key | None = None
        self.since = 0
        self._evidence = Evidence()
        self._new: list[tuple[float, bool]] = []  # differences, and whether they are the first of their user
        self._seen: dict[str, None] = {}
        self._users: set[int] = set()  # their hashes

    def begin(self, of: Key | None, since: int) -> None:
        """Compare ``of`` from now on; what goes on goes on."""
        if (of, since) == (self.of, self.since):
            return
        self.of, self.since = of, since
        self._evidence, self._new, self._seen, self._users = Evidence(), [], {}, set()

    def add(self, decision: str, user: str, at: int, difference: float | None) -> None:
        """Take in the ``difference`` (None: there is none) on a ``decision`` of ``user``, whose record was written at ``at``, ms."""
        if difference is None or at < self.since or decision in self._seen:
            return
        self._seen[decision] = None
        if len(self._seen) > MEMORY:
            del self._seen[next(iter(self._seen))]
        self._new.append((difference, self._is_first(user)))

    @property
    def evidence(self) -> Evidence:
        """That of all pairs so far."""
        if self._new:
            differences, first = zip(*self._new, strict=True)
            self._evidence = extended(self._evidence, np.array(differences), np.array(first))
            self._new = []
        return self._evidence

    def _is_first(self, user: str) -> bool:
        if not user:
            return True
        mark = hash(user)
        if mark in self._users or len(self._users) >= USERS:
            return False
        self._users.add(mark)
        return True
