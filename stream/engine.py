"""The engine: a run of records becomes scores, examples, changelog rows and dead letters. No Kafka, no clock, no I/O.

``stream/app.py`` feeds it from Kafka and writes what it returns; replay feeds it from files.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from deploy.live import Source
from deploy.settings import Events
from model.usecase import UseCase
from stream.events import BadRecord, Decoder, Reason, Record
from stream.feedback import Joined
from stream.scoring import Score, Scoring
from stream.state import State

STAGES = ("decode", "fold", "score", "encode", "join")

_encode = msgspec.json.Encoder().encode


class TooManyBadRecords(RuntimeError):  # noqa: N818 — it reads as what it is
    """So large a share of the records is bad that something is wrong with all of them: stop and look."""


class Processed(msgspec.Struct, frozen=True):
    """What one run of one partition came to."""

    records: int
    skipped: int  # events folded before
    scores: list[Score]
    values: list[bytes]  # their records
    sent: list[int]  # ms since the epoch, when each score's event was sent
    joined: Joined
    keys: list[bytes]  # changelog: what the join changed, its mark, then the users whose rows changed
    rows: list[bytes | None]
    bad: list[BadRecord]
    seconds: dict[str, float]  # by stage


class Engine:
    """Decodes, folds, scores and joins runs of one use case, one run at a time."""

    def __init__(self, usecase: UseCase, limits: Events, source: Source) -> None:
        self._decode = Decoder(usecase, limits.max_bytes, int(limits.max_skew_s * 1000))
        self.scoring = Scoring(usecase, source)
        self._guard = BadShare(limits.max_bad_ratio, limits.bad_window)

    def process(self, state: State, records: Sequence[Record], now_ms: int) -> Processed:
        """Process ``records``, at least one, of the partition that ``state`` belongs to, at wall clock ``now_ms``.

        Raises :class:`TooManyBadRecords` before anything is folded.
        """
        moments = [time.perf_counter()]
        columns, bad = self._decode(records, now_ms)
        self._guard.add(len(records), [(records[record.position].offset, record) for record in bad])
        moments.append(time.perf_counter())
        folded = state.profiles.fold(columns)
        moments.append(time.perf_counter())
        events = [columns.events[position] for position in folded.decisions]
        scores = (
            self.scoring(events, folded.features, columns.times[folded.decisions], folded.offsets)
            if events
            else []
        )
        moments.append(time.perf_counter())
        values = list(map(_encode, scores))
        moments.append(time.perf_counter())
        joined = state.pending.join(columns, folded.decisions, scores, values, records[-1].offset)
        moments.append(time.perf_counter())
        return Processed(
            records=len(records),
            skipped=folded.skipped,
            scores=scores,
            values=values,
            sent=columns.sent[folded.decisions].tolist(),
            joined=joined,
            keys=joined.keys + folded.keys,
            rows=[*joined.values, *folded.rows],
            bad=bad,
            seconds={
                stage: end - begin
                for stage, (begin, end) in zip(STAGES, itertools.pairwise(moments), strict=True)
            },
        )


class BadShare:
    """Stops the worker when more than ``limit`` of the last ``window`` records or more are bad."""

    def __init__(self, limit: float, window: int) -> None:
        self._limit, self._window = limit, window
        self._records = self._bad = 0
        self._reasons: Counter[Reason] = Counter()

    def add(self, records: int, bad: Sequence[tuple[int, BadRecord]]) -> None:
        """Count ``records`` of which ``bad``, by offset, cannot be used; raises :class:`TooManyBadRecords`."""
        self._records += records
        self._bad += len(bad)
        self._reasons.update(record.reason for _, record in bad)
        if self._records < self._window:
            return
        if self._bad > self._limit * self._records:
            offset, last = bad[-1] if bad else (-1, None)
            reasons = ", ".join(f"{count} {reason}" for reason, count in self._reasons.most_common())
            raise TooManyBadRecords(
                f"{self._bad} of the last {self._records} records are bad ({reasons}); the limit is "
                f"events.max_bad_ratio = {self._limit}. The last, at offset {offset}: "
                f"{last.detail if last else 'before this run'}. Nothing of the last batch was used: correct the "
                "producer or the use case, or raise the limit, and start again"
            )
        self._records = self._bad = 0
        self._reasons.clear()
