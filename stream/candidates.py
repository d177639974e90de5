"""Which event types could be decisions, and which their outcomes: what follows what, how often and how soon.

Pure functions on the :class:`Histories` that :mod:`stream.explore` keeps of a sample of users.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.usecase import Duration

WINDOWS = ("1h", "1d", "3d", "7d", "14d", "30d")
WINDOWS_MS = tuple(int(Duration.parse(window) * 1000) for window in WINDOWS)
HOLDS = 0.9  # a proposed window holds so much of what the best one does, beyond outcomes that come anyhow
MAX_TYPES = 16  # most frequent types that are paired
LEAST = 50  # events of a type, and decisions with a closed window, below which nothing is said
DECISIONS = 100_000  # decisions looked at of a pair: shares are then within 0.3 % (two standard errors)
RATES = (0.01, 0.99)  # of positive outcomes, beyond which there is little to learn

Int64 = NDArray[np.int64]


class Histories(msgspec.Struct, frozen=True):
    """All events of a sample of users, in order of user and time."""

    names: list[str]  # event types, by code
    share: float  # of the users that were kept
    users: Int64  # [n] from 0
    codes: Int64  # [n], -1 for a type without a name
    times: Int64  # [n] ms since the epoch
    items: NDArray[np.uint64]  # [n] hashed, 0 where there is none

    @classmethod
    def of(
        cls,
        users: NDArray[np.generic],
        codes: NDArray[np.generic],
        times: NDArray[np.generic],
        items: NDArray[np.generic],
        *,
        names: list[str],
        share: float,
    ) -> Histories:
        """Histories of events in any order, each with its hashed user."""
        order = np.lexsort((times, users))
        users = np.unique(users[order], return_inverse=True)[1]
        return cls(
            names,
            share,
            users.astype(np.int64),
            codes[order].astype(np.int64),
            times[order].astype(np.int64),
            items[order].astype(np.uint64),
        )

    def gaps(self, code: int | None = None) -> tuple[Int64, Int64]:
        """Ms between one user's successive events, of one type or all [k], and whose they are [k]."""
        at = slice(None) if code is None else self.codes == code
        users, times = self.users[at], self.times[at]
        same = users[1:] == users[:-1]
        return np.diff(times)[same], users[1:][same]

    def longest_gaps(self) -> Int64:
        """The longest gap in ms between two events of each user who has two [u]."""
        gaps, users = self.gaps()
        starts = np.flatnonzero(np.diff(users, prepend=-1))
        return np.maximum.reduceat(gaps, starts) if len(gaps) else gaps

    def per_user(self) -> Int64:
        """Events of each user [u]."""
        return np.bincount(self.users)


class Candidate(msgspec.Struct, frozen=True):
    """A pair of event types, as a decision and its outcome."""

    decision: str
    outcome: str
    match: str  # item or user
    window: str
    rate: float  # share of decisions with the outcome within the window
    curve: tuple[float, ...]  # the same for each of WINDOWS; NaN where the events do not last three of it
    decisions: int  # whose window has closed, in the sample
    before: float  # share with the outcome within a window *before* them: as large, it is no consequence
    agreement: (
        float  # of those with the outcome for the user, the share that has it for the item; NaN without items
    )
    chance: float  # the same when items are dealt out at random
    eventually: float  # of the outcomes beyond those that come anyhow, the share that the window holds
    lags_h: NDArray[np.float64]  # hours to the outcome, where one came within the longest window
    score: float  # 0 to 1
    against: str  # what speaks against it; nothing: ""


def candidates(histories: Histories, seed: int = 0) -> tuple[Candidate, ...]:
    """Pairs of types worth a look, best first; what has something against it comes last.

    How often an outcome comes anyhow is read off the time before the decisions. The score is the entropy of the
    rate in bits (an even one teaches most), times how much likelier the outcome is after the decision than before
    it, times the share of all outcomes beyond those that come anyhow that the window holds.
    """
    counts = np.bincount(histories.codes[histories.codes >= 0], minlength=len(histories.names))
    codes = [int(code) for code in np.argsort(-counts, kind="stable")[:MAX_TYPES] if counts[code] >= LEAST]
    found = list(_Pairs(histories, codes, seed).all())
    return tuple(sorted(found, key=lambda each: (bool(each.against), -each.score)))


class _Pairs:
    """Searches of one set of histories, whose sorted keys are made once a type."""

    def __init__(self, histories: Histories, codes: list[int], seed: int) -> None:
        self._h, self._codes = histories, codes
        self._random = np.random.default_rng(seed)
        self._start = int(histories.times.min(initial=2**62))
        self._end = int(histories.times.max(initial=0))
        self._longest = max(
            (i for i, w in enumerate(WINDOWS_MS) if 3 * w <= self._end - self._start), default=0
        )
        owned = _mix(histories.users, histories.items)
        self._groups = np.unique(owned, return_inverse=True)[1].astype(np.int64)  # [n], by user and item
        self._rows = {code: np.flatnonzero(histories.codes == code) for code in codes}

    def all(self) -> Iterator[Candidate]:
        """Every pair that happens often enough to say anything."""
        for decision in self._codes:
            rows = self._rows[decision]
            rows = rows[self._h.times[rows] <= self._end - WINDOWS_MS[self._longest]]
            if len(rows) > DECISIONS:
                rows = np.sort(self._random.choice(rows, DECISIONS, replace=False))
            if len(rows) < LEAST:
                continue
            for outcome in self._codes:
                if outcome != decision:
                    candidate = self._pair(decision, rows, outcome)
                    if candidate is not None:
                        yield candidate

    def _pair(self, decision: int, rows: Int64, outcome: int) -> Candidate | None:
        others = self._rows[outcome]
        windows = WINDOWS_MS[: self._longest + 1]
        groups, lags = self._h.users, self._lags(self._h.users, rows, others)
        anyone = [_share(lags, window) for window in windows]
        if anyone[-1] == 0:
            return None
        match, dealt = "user", None
        if self._has_items(rows) and self._has_items(others):
            own = self._lags(self._groups, rows, others)
            dealt = self._dealt(rows, others)
            linked, chance = _share(own, windows[-1]) / anyone[-1], _share(dealt, windows[-1]) / anyone[-1]
            # Items repeat by habit: a link is clearly more than a random deal of the outcomes' items gives.
            if linked > max(1.5 * chance, chance + 0.05):
                match, groups, lags = "item", self._groups, own
        back = self._lags(groups, rows, others, back=True)
        past = self._h.times[rows] - self._start  # ms of it that the events hold
        curve = [_share(lags, window) for window in windows]
        before = [_share(back[past >= window], window) for window in windows]
        excess = list(map(_excess, curve, before))
        at = next(at for at, share in enumerate(excess) if share >= HOLDS * max(excess))
        ever = max(*excess, _excess(_share(lags, 2**62), _share(back, 2**62)))
        return Candidate(
            decision=self._h.names[decision],
            outcome=self._h.names[outcome],
            match=match,
            window=WINDOWS[at],
            rate=curve[at],
            curve=(*curve, *[math.nan] * (len(WINDOWS) - len(curve))),
            decisions=len(rows),
            before=before[at],
            agreement=curve[at] / anyone[at] if match == "item" and anyone[at] else math.nan,
            chance=_share(dealt, windows[at]) / anyone[at] if dealt is not None and anyone[at] else math.nan,
            eventually=excess[at] / ever if ever else 1.0,
            lags_h=lags[(lags >= 0) & (lags <= windows[-1])] / 3_600_000,
            score=_score(curve[at], before[at], excess[at] / ever if ever else 0.0),
            against=_against(curve[at], before[at], lags, windows[at]),
        )

    def _has_items(self, rows: Int64) -> bool:
        return bool((self._h.items[rows] != 0).mean() > 0.99)

    def _lags(self, groups: Int64, rows: Int64, others: Int64, *, back: bool = False) -> Int64:
        """Ms from each of ``rows`` [a] to the next of ``others`` [b] of its group, or back to the last one before.

        At the same time counts as after. -1 where there is none.
        """
        times = self._end - self._h.times if back else self._h.times - self._start
        span = self._end - self._start + 2
        targets = np.sort(groups[others] * span + times[others])
        sought = groups[rows] * span + times[rows] + int(back)
        at = np.minimum(np.searchsorted(targets, sought), len(targets) - 1)
        lags = targets[at] - sought
        return np.where((lags >= 0) & (targets[at] // span == groups[rows]), lags, -1)

    def _dealt(self, rows: Int64, others: Int64) -> Int64:
        """The lags to an outcome for the same item when the outcomes' items are dealt out at random."""
        dealt = _mix(self._h.users[others], self._random.permutation(self._h.items[others]))
        asked = _mix(self._h.users[rows], self._h.items[rows])
        ranks = np.unique(np.concatenate([asked, dealt]), return_inverse=True)[1].astype(np.int64)
        groups = np.zeros(len(self._h.users), np.int64)
        groups[rows] = ranks[: len(rows)]
        groups[others] = ranks[len(rows) :]
        return self._lags(groups, rows, others)


def _mix(users: Int64, items: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return (users.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ items


def _share(lags: Int64, window: int) -> float:
    return float(((lags >= 0) & (lags <= window)).mean()) if len(lags) else 0.0


def _score(rate: float, before: float, eventually: float) -> float:
    return _entropy(rate) * max(0.0, 1 - before / rate) * eventually if rate else 0.0


def _excess(after: float, before: float) -> float:
    """The share to which the decision brings the outcome, when ``before`` it would have come anyhow."""
    return max(0.0, after - before) / (1 - before) if before < 1 else 0.0


def _entropy(share: float) -> float:
    """Bits of an outcome that happens with probability ``share``."""
    return -sum(p * math.log2(p) for p in (share, 1 - share) if p > 0)


def _against(rate: float, before: float, lags: Int64, window: int) -> str:
    """Why this is hardly a decision with its outcome."""
    if not RATES[0] <= rate <= RATES[1]:
        return f"{'almost always' if rate > RATES[1] else 'hardly ever'} followed by it"
    if before > 0.8 * rate:
        return "no likelier after the decision than before it"
    if (lags == 0).sum() > 0.9 * ((lags >= 0) & (lags <= window)).sum():
        return "both at the same time: it is known already"
    return ""
