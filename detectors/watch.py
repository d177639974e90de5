"""A watch: channels around a reference and the detector that bets on them. :mod:`detectors.panel` has two of them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors import episode
from detectors.channels import Channels
from detectors.collection import Collection
from detectors.episode import Alarm
from detectors.rows import Rows, Schema
from detectors.sequential import EDetector, State
from detectors.verdict import Channel

Make = Callable[[Rows, Schema], Channels]
Pieces = list[int] | None  # of a gathered reference; None: the model's own


class Kept(msgspec.Struct):
    """What the changelog keeps of a watch; ``began`` and ``latest`` are ms."""

    pieces: Pieces
    detector: State
    began: int
    latest: int


class Watch:
    """A detector and the reference that it compares with, which was ``gathered``, or else is the model's own.

    The channels have half the weight: a panel has two watches, which share its rate of false alarms.
    """

    def __init__(
        self, make: Make, schema: Schema, reference: Rows, gathered: Collection | None = None
    ) -> None:
        self.reference, self.gathered = reference, gathered
        self.channels = make(reference, schema)
        self.detector = EDetector(self.channels.lowest, self.channels.weight / 2)
        self._began = 0  # ms, the first row's time
        self.latest = 0  # ms, of all rows; within a block they come in no order

    @property
    def pieces(self) -> Pieces:
        """The pieces of the reference."""
        return None if self.gathered is None else self.gathered.pieces

    @property
    def changed(self) -> int:
        """When the change came, as far as this watch can tell, ms."""
        return int(self._began + self.detector.change())

    def add(self, factors: NDArray[np.float64], time: int) -> float:
        """Take in a row by its ``factors`` [K, B] and its ``time``, ms, and return the evidence."""
        if not self.detector.rows:
            self._began = self.latest = time
        self.latest = max(self.latest, time)
        return self.detector.add(factors, time - self._began)

    def kept(self) -> Kept:
        """What :meth:`resume` takes; the reference is kept apart."""
        return Kept(self.pieces, self.detector.state(), self._began, self.latest)

    def resume(self, kept: Kept) -> None:
        """Go on from ``kept``, of a watch with the same reference."""
        self.detector.restore(kept.detector)
        self._began, self.latest = kept.began, kept.latest


def step(
    features: Watch | None, labels: Watch | None, rows: Rows, at: NDArray[np.int64], threshold: float
) -> Alarm | None:
    """Step through ``rows`` up to the first at which the evidence of either watch reaches ``threshold``.

    ``features`` takes the rows without a label, ``labels`` those with one; ``at`` [n] are their numbers. Each is a
    process of its own rows, and has half the weight: so each has half the rate of false alarms, and the rates add up.
    """
    known = ~np.isnan(rows.label)
    both = [
        (watch, np.flatnonzero(mine))
        for watch, mine in ((features, ~known), (labels, known))
        if watch is not None
    ]
    factors = [watch.detector.factors(watch.channels(rows[mine])) for watch, mine in both]
    turns = sorted(
        (row, which, place) for which, (_, mine) in enumerate(both) for place, row in enumerate(mine.tolist())
    )
    times = rows.time.tolist()
    for row, which, place in turns:
        watch = both[which][0]
        evidence = watch.add(factors[which][place], times[row])
        if evidence >= threshold:
            return Alarm(
                offset=int(at[row]),
                time=watch.latest,
                changed=watch.changed,
                monitored=watch.detector.rows,
                evidence=evidence,
                threshold=threshold,
                labelled=watch is labels,
            )
    return None


def loudest(features: Watch | None, labels: Watch | None) -> list[Channel]:
    """The channels with the largest share of the evidence of both watches."""
    both = [watch for watch in (features, labels) if watch is not None]
    return episode.channels(
        [name for watch in both for name in watch.channels.names],
        np.concatenate([watch.detector.evidence() for watch in both]),
        np.concatenate([watch.detector.levels() for watch in both]),
    )
