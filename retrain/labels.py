"""Labels: how many examples since a moment have theirs. The trainer asks this of the example log while a request waits."""

from __future__ import annotations

import logging
from collections.abc import Callable

from deploy import metrics
from model.example_log import DAY_MS, ExampleLog, ExampleLogError
from model.usecase import Training

AGAIN_S = 10.0  # a count is taken again after this long at the earliest,
SHARE = 20  # and after so many times what it took: nothing else is decided meanwhile

log = logging.getLogger(__name__)


class Labels:
    """Counts in ``examples``; ``clock`` tells s of a clock that never goes back."""

    def __init__(
        self,
        examples: ExampleLog,
        training: Training,
        clock: Callable[[], float],
        again_s: float = AGAIN_S,
        longest_s: float = 0.0,
    ) -> None:
        """``longest_s`` is after how many seconds a decision's label is known at the latest."""
        self._examples, self._clock, self._again_s = examples, clock, again_s
        self._window = round((training.train + training.validate) * 1000)
        self._longest = round(longest_s * 1000)
        self._counted: dict[int | None, tuple[float, int | None]] = {}  # until when it holds, and the count

    def __call__(self, since: int | None) -> int | None:
        """Labels known of decisions from ``since`` (ms; None: the last ``train`` and ``validate``) on; None if they cannot be read."""
        return self._cached(since, lambda: self._count(since))

    def _cached(self, key: int | None, count: Callable[[], int]) -> int | None:
        now = self._clock()
        until, known = self._counted.get(key, (now, None))
        if now < until:
            return known
        # What waits no more is counted no more, and forgotten.
        self._counted = {
            other: each for other, each in self._counted.items() if now < each[0] + 5 * self._again_s
        }
        try:
            known = count()
        except ExampleLogError as error:
            metrics.TRAINER_FAILURES.labels("examples").inc()
            log.warning("labels cannot be counted, and are again later: %s", error)
            known = None
        ended = self._clock()
        self._counted[key] = (max(now + self._again_s, ended + SHARE * (ended - now)), known)
        return known

    def since_trained(self, as_of: int) -> int | None:
        """Labels that became known after the moment ``as_of``, ms of event time; None if they cannot be read."""
        return self._cached(-1 - as_of, lambda: self._count(as_of - self._longest, as_of))

    def _count(self, since: int | None, after: int = 0) -> int:
        """Labels of decisions from ``since`` on that became known after the moment ``after``."""
        if since is None:
            dates = self._examples.dates()
            if not dates:
                return 0
            since = (dates[-1].toordinal() - _EPOCH + 1) * DAY_MS - self._window
        table = self._examples.read(begin=since, columns=["label", "closes"])
        if not len(table):
            return 0
        time, closes, label = (table.column(name).to_numpy() for name in ("time", "closes", "label"))
        # As model/split.py has it: how far event time had come when these were all the examples there are. A window that
        # is open has positive labels only.
        clock = max(int(time.max()), int(closes[label == 0].max(initial=0)))
        return int(((closes <= clock) & (closes > after)).sum())


_EPOCH = 719_163  # datetime.date(1970, 1, 1).toordinal()
