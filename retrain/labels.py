"""Labels: how many examples since a moment have theirs. The trainer asks this of the example log while a request waits."""

from __future__ import annotations

import logging
from collections.abc import Callable

from deploy import metrics
from model.example_log import DAY_MS, ExampleLog, ExampleLogError
from model.usecase import Training

AGAIN_S = 10.0  # a count is taken again after this long at the earliest

log = logging.getLogger(__name__)


class Labels:
    """Counts in ``examples``; ``clock`` tells s of a clock that never goes back."""

    def __init__(
        self, examples: ExampleLog, training: Training, clock: Callable[[], float], again_s: float = AGAIN_S
    ) -> None:
        self._examples, self._clock, self._again_s = examples, clock, again_s
        self._window = round((training.train + training.validate) * 1000)
        self._counted: dict[int | None, tuple[float, int | None]] = {}

    def __call__(self, since: int | None) -> int | None:
        """Labels known of decisions from ``since`` (ms; None: the last ``train`` and ``validate``) on; None if they cannot be read."""
        now = self._clock()
        at, known = self._counted.get(since, (-self._again_s, None))
        if now - at < self._again_s:
            return known
        # What waits no more is counted no more, and forgotten.
        self._counted = {
            key: each for key, each in self._counted.items() if now - each[0] < 6 * self._again_s
        }
        try:
            known = self._count(since)
        except ExampleLogError as error:
            metrics.TRAINER_FAILURES.labels("examples").inc()
            log.warning("labels cannot be counted, and are again later: %s", error)
            known = None
        self._counted[since] = (now, known)
        return known

    def _count(self, since: int | None) -> int:
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
        return int((closes <= clock).sum())


_EPOCH = 719_163  # datetime.date(1970, 1, 1).toordinal()
