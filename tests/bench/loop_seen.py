"""What a scenario of ``make bench-loop`` came to, read from the topics and the release log while it runs and at its end."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from deploy.registry import Registry
from deploy.release import Change
from deploy.settings import Settings
from model.features import CategoryHasher
from model.scorer import LiteRTScorer
from tests.bench.loop_world import World
from tests.workers import read

Float = NDArray[np.float64]
WINDOW, RECOVERED = 1000, 0.02  # decisions; nats over the best possible mean log-loss
LATEST = 3000  # decisions at the end, of which the cost is told


class Seen(msgspec.Struct, kw_only=True):
    """What came of a scenario; times are s from the onset, ``decisions`` counted from there. None: it did not happen."""

    kind: str
    verdict: str | None = None  # the first kind of drift that is told with certainty, or data-fault
    verdict_s: float | None = None
    verdict_decisions: int | None = None
    action: str | None = None  # the first change of what is live
    action_s: float | None = None
    action_decisions: int | None = None
    recovered_s: float | None = None
    recovered_decisions: int | None = None
    labels_used: bool | None = None  # whether the action's verdict had labels
    retrains: int = 0  # jobs started
    states: list[str] = []  # of the requests, as they stand at the end
    excess_before: float | None = None  # nats over the best possible, in the last blocks before the onset
    excess_drifted: float | None = None  # from the onset to the action, or to the end
    excess_after: float | None = None  # of the last decisions
    frozen_after: float | None = None  # of the same, scored by the first model
    alarms: int = 0
    decisions: int = 0
    course: list[str] = []  # verdicts and releases in their order, with the decisions since the onset


class Observer:
    """Looks at a scenario with these ``settings``; ``sent`` is when each decision was sent (s), ``first`` the first model's bundle."""

    def __init__(self, settings: Settings, kind: str, first: Path, sent: list[float]) -> None:
        self.settings, self.kind, self.first, self.sent = settings, kind, first, sent

    def look(self, world: World, onset: int, *, ended: bool = False) -> Seen:
        """What can be told now, from the topics and the release log; quality once something was done, or it has ``ended``."""
        seen = Seen(kind=self.kind, decisions=len(self.sent))
        if len(self.sent) <= onset:
            return seen
        begin = self.sent[onset]
        verdicts = [
            (_at(each), msgspec.json.decode(each.value() or b""))
            for each in read(self.settings, self.settings.topics.drift)
        ]
        seen.alarms = len({verdict["id"] for _, verdict in verdicts})
        told = [
            (at, each)
            for at, each in verdicts
            if at >= begin
            and (each["kind"] != "undetermined" or each["response"]["action"] == "correct-prior")
        ]
        course = [
            (
                at,
                f"{each['kind']} {each['response']['action']} ({each['window']['labels']} labels): {each['response']['reason']}",
            )
            for at, each in verdicts
        ]
        if told:
            at, verdict = told[0]
            seen.verdict, seen.verdict_s = verdict["kind"], round(at - begin, 1)
            seen.verdict_decisions = self._number(at) - onset
            seen.labels_used = verdict["window"]["labels"] > 0
        releases = [
            each
            for each in Registry(self.settings.registry.url).releases()
            if each.change is not Change.CLAIM and each.number > 1
        ]
        course += [(_stamp(each.created), str(each.change)) for each in releases]
        seen.course = [f"{self._number(at) - onset}: {what}" for at, what in sorted(course)]
        acted = [
            (_stamp(each.created), each)
            for each in releases
            if each.change in {Change.PROMOTE, Change.CORRECT}
        ]
        if acted:
            at, release = acted[0]
            seen.action, seen.action_s = str(release.change), round(at - begin, 1)
            seen.action_decisions = self._number(at) - onset
        records = [
            msgspec.json.decode(each.value() or b"")
            for each in read(self.settings, self.settings.topics.retrains)
        ]
        latest = {each["request"]["id"]: each for each in records}
        seen.states = [each["state"] for each in latest.values()]
        seen.retrains = len({each["job"] for each in records if each["job"]})
        if ended or seen.action is not None:
            self._quality(world, onset, seen)
        return seen

    def _number(self, at: float) -> int:
        """How many decisions had been sent at ``at``."""
        return int(np.searchsorted(self.sent, at))

    def _quality(self, world: World, onset: int, seen: Seen) -> None:
        numbers, served, features = [], [], []
        arrived: list[float] = []
        for message in read(self.settings, self.settings.topics.scores):
            score = msgspec.json.decode(message.value() or b"")
            numbers.append(int(score["id"][1:]))
            served.append(score["score"])
            features.append(score["features"])
            arrived.append(_at(message))
        order = np.argsort(numbers)
        number, score, at = np.array(numbers)[order], np.array(served)[order], np.array(arrived)[order]
        true = np.array([world.decisions[each].true for each in number.tolist()])
        excess = _cost(true, score) - _cost(true, true)
        seen.excess_before = _mean(excess[(number >= onset - 4000) & (number < onset)])
        acted = onset + seen.action_decisions if seen.action_decisions is not None else int(number[-1])
        seen.excess_drifted = _mean(excess[(number >= onset) & (number < acted)])
        seen.excess_after = _mean(excess[-LATEST:])
        if seen.action_decisions is None:
            return
        after = np.flatnonzero(number >= acted)
        sums = np.convolve(excess[after], np.full(WINDOW, 1 / WINDOW), "valid")
        good = np.flatnonzero(sums <= RECOVERED)
        if len(good):
            end = after[good[0]] + WINDOW - 1
            seen.recovered_s = round(float(at[end]) - self.sent[onset], 1)
            seen.recovered_decisions = int(number[end]) - onset
        rows = [features[each] for each in order[-LATEST:].tolist()]
        seen.frozen_after = _mean(_cost(true[-LATEST:], self._frozen(rows)) - _cost(true, true)[-LATEST:])

    def _frozen(self, rows: list[dict[str, Any]]) -> Float:
        """What the first model gives decisions with these features."""
        scorer = LiteRTScorer.load(self.first)
        names = [column.name for column in scorer.spec.categorical]
        numeric = np.array(
            [[np.nan if row[name] is None else row[name] for name in scorer.spec.numeric] for row in rows],
            np.float32,
        )
        ids = CategoryHasher(scorer.spec)([[row[name] for row in rows] for name in names], len(rows))
        return scorer.score(numeric, ids).astype(np.float64)


def _cost(true: Float, score: Float) -> Float:
    """The log-loss to expect of ``score`` [n] where the probabilities are ``true`` [n]."""
    clipped = np.clip(score, 1e-6, 1 - 1e-6)
    return np.asarray(-true * np.log(clipped) - (1 - true) * np.log1p(-clipped))


def _mean(values: Float) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None


def _at(message: Message) -> float:
    return float(message.timestamp()[1]) / 1000


def _stamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
