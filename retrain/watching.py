"""A comparison under way: pairs of scores as they come, each decision once. :mod:`retrain.controller` has two."""

from __future__ import annotations

import numpy as np

from deploy.watch import Evidence, extended

MEMORY = 50_000  # decisions that are known if they come again: workers repeat samples when they crash

Key = tuple[str, str, str]  # what is compared: the model, with what, and how


class Comparison:
    """Evidence on ``of``, from records written ``since`` then (ms); nothing at first."""

    def __init__(self) -> None:
        self.of: Key | None = None
        self.since = 0
        self._evidence = Evidence()
        self._new: list[float] = []
        self._seen: dict[str, None] = {}

    def begin(self, of: Key | None, since: int) -> None:
        """Compare ``of`` from now on; what goes on goes on."""
        if (of, since) == (self.of, self.since):
            return
        self.of, self.since = of, since
        self._evidence, self._new, self._seen = Evidence(), [], {}

    def add(self, decision: str, at: int, difference: float | None) -> None:
        """Take in the ``difference`` (None: there is none) on a ``decision`` whose record was written at ``at``, ms."""
        if difference is None or at < self.since or decision in self._seen:
            return
        self._seen[decision] = None
        if len(self._seen) > MEMORY:
            del self._seen[next(iter(self._seen))]
        self._new.append(difference)

    @property
    def evidence(self) -> Evidence:
        """That of all pairs so far."""
        if self._new:
            self._evidence = extended(self._evidence, np.array(self._new))
            self._new = []
        return self._evidence
