"""A backtest: a log of examples lived through again, once under each policy of when to train. Pure: no clock, no I/O.

:mod:`detectors.backtest_view` calls it and shows what came of it. The models, the monitor and its panels are the real
ones; what is simulated is the passing of time, a day of event time (from ``begin`` on) at once:

1. The day's decisions are scored by the model that is live as the day begins, with the correction in force then.
2. The monitor sees, in order, those of them that are monitored, and the labels of earlier ones whose ``closes`` passes.
3. At the end of the day the policy acts: it corrects, or trains on what is known by then. Training takes no event time.

So every decision is scored by what had been trained before it, and no label is known before its window has closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.backtest_correction import Correction, Corrections
from detectors.backtest_log import DAY, Log
from detectors.diagnosis import SINGLE
from detectors.monitor import Monitor
from detectors.verdict import Action, Kind, Verdict
from model import reference
from model.examples import Examples, ExamplesError
from model.features import Float32
from model.split import Parts, window
from model.usecase import Duration, UseCase

# Times the drift policy's `labels`: so many examples since P(Y|X) changed are trained on alone, without older ones, and so
# many make it worth training after a covariate drift under which the model was kept. Not tuned: on OULAD a single model of
# 9,000 rows since a covariate drift, live for a year, came to a log-loss of .404; the one before it, of 45,000, to .393.
ENOUGH = 10

Scorer = Callable[[Examples], Float32]  # examples to the probability [n] of a positive label


class Rule(StrEnum):
    """When to train."""

    NEVER = "never"  # the first model stays
    EVERY = "every"  # by the calendar
    ALARM = "alarm"  # after every alarm, once the drift policy's `labels` are known of decisions since then
    VERDICT = "verdict"  # do what the verdict's response names
    REFIT = "refit"  # the same; and where it keeps the model under a covariate drift, train once there is much new data
    LOOP = "loop"  # the same; and once there is much new data as it is; but never while the data are at fault: the trainer's


class Policy(msgspec.Struct, frozen=True):
    """A rule; ``every`` goes with the one that needs it."""

    rule: Rule
    every: Duration | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The policy that ``text`` names; raises :class:`ValueError`.

        >>> Policy.parse("every=30d").every / 86400
        30.0
        """
        name, _, length = text.partition("=")
        if name == Rule.EVERY and length:
            return cls(Rule.EVERY, Duration.parse(length))
        if text == Rule.EVERY or text not in set(Rule):
            raise ValueError(
                f"a policy is never, every=DURATION such as every=30d, alarm, verdict, refit or loop; got {text!r}"
            )
        return cls(Rule(text))


class Fitted(msgspec.Struct, frozen=True):
    """A model that may go live, and the seconds that fitting it took."""

    score: Scorer
    seconds: float


Learner = Callable[[Parts], Fitted]


class Trained(msgspec.Struct, frozen=True):
    """A model that went live: ``at`` this moment (ms), fitted to so many ``rows``, of which the ``first`` was decided then."""

    at: int
    rows: int
    first: int
    seconds: float


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one policy: ``score`` [n] as served, and ``model`` [n], which of ``trained`` (from 0) it is of.

    ``trained`` begins with the first model; ``verdicts`` are all revisions, ``corrections`` every change of the correction.
    """

    name: str
    score: Float32
    model: NDArray[np.int64]
    trained: list[Trained]
    verdicts: list[Verdict]
    corrections: list[Correction]


def backtest(
    case: UseCase,
    examples: Examples,
    monitored: NDArray[np.bool_],
    begin: int,
    policies: Sequence[tuple[str, Policy]],
    learn: Learner,
    tell: Callable[[str, int], None] = lambda _, __: None,
) -> list[Run]:
    """Live through the decisions of ``examples`` from ``begin`` (ms) on, under each of ``policies``, which have names.

    ``examples`` are :func:`detectors.backtest_log.settled`; ``monitored`` [n] says which the monitor is shown. ``learn`` makes every model; the
    first, of what was known at ``begin``, is the same for all policies. ``tell`` hears the name and each day's end (ms).

    Raises :class:`~model.examples.ExamplesError` if there are no decisions, or none to make a first model of.
    """
    log = Log(case, examples, monitored, begin)
    parts = window(examples, case.training, begin)
    first = _Model(log, parts, learn(parts), Trained(begin, len(parts.whole), int(parts.whole.time[0]), 0.0))
    return [_Life(log, policy, first, learn).run(name, tell) for name, policy in policies]


def check(case: UseCase, examples: Examples, begin: int) -> None:
    """Raise what :func:`backtest` would of ``examples`` and ``begin`` (ms), before anybody loads what learns."""
    Log(case, examples, np.zeros(len(examples), np.bool_), begin)
    window(examples, case.training, begin)


class _Model:
    """A model and its reference sample."""

    def __init__(self, log: Log, parts: Parts, fitted: Fitted, trained: Trained) -> None:
        self.trained = msgspec.structs.replace(trained, seconds=fitted.seconds)
        self.score = fitted.score
        validation = parts.validation
        score = fitted.score(validation)
        self.reference = reference.sample(validation, score, log.case.drift, 0, parts.whole)


class _Due(msgspec.Struct, frozen=True):
    """Training that is due once so many ``labels`` of decisions since the moment ``since`` (ms) are known.

    ``outdated``: P(Y|X) is not what it was before, so that older examples mislead.
    """

    since: int
    labels: int
    outdated: bool


class _Life:
    """One policy's time."""

    def __init__(self, log: Log, policy: Policy, first: _Model, learn: Learner) -> None:
        self._log, self._policy, self._learn = log, policy, learn
        self._labels = log.case.drift.labels
        self._raw = np.full(
            len(log.examples), np.nan, np.float32
        )  # as the model scored, before any correction
        self._model_of = np.full(len(log.examples), -1, np.int64)
        self._trained: list[Trained] = []
        self._verdicts: list[Verdict] = []
        self._changes: list[Correction] = []
        self._offset = 0  # of the next sample
        self._go_live(first)

    def run(self, name: str, tell: Callable[[str, int], None]) -> Run:
        """Live to the day of the last decision."""
        log = self._log
        served = np.full(len(log.examples), np.nan, np.float32)
        last = int(log.examples.time[-1])
        for begin in range(log.begin, last + 1, DAY):
            end = begin + DAY
            rows = log.decided(begin, end)
            if rows.start < rows.stop:
                self._raw[rows] = self._model.score(log.examples[rows])
                self._model_of[rows] = len(self._trained) - 1
                served[rows] = self._corrections(self._raw[rows])
            self._watch(begin, end)
            if end <= last:  # what is trained after the last decision serves none
                self._act(end)
            tell(name, end)
        self._take(self._monitor.finish().verdicts, end)  # no decision ends the last block
        return Run(
            name=name,
            score=served[log.first :],
            model=self._model_of[log.first :],
            trained=self._trained,
            verdicts=self._verdicts,
            corrections=self._changes,
        )

    def _go_live(self, model: _Model) -> None:
        """A new model begins with a panel that has seen nothing, and without a correction."""
        self._model = model
        self._version = str(len(self._trained) + 1)
        self._trained.append(model.trained)
        self._monitor = Monitor(self._log.case, {self._version: model.reference})
        self._corrections = Corrections()
        self._due: dict[str, _Due] = {}  # by the episode that calls for training
        self._faults: set[str] = set()  # the episodes in which the data are at fault

    def _watch(self, begin: int, end: int) -> None:
        """Show the monitor the day's samples. They have the model's own score: the reference is made of such."""
        log = self._log
        rows, labelled = log.shown(begin, end)
        own = self._model_of[rows] == len(self._trained) - 1  # those of a model before have no panel any more
        rows, labelled = rows[own], labelled[own]
        records = log.samples(self._version, rows, self._raw[rows], labelled, self._offset)
        self._offset += len(records)
        self._take(self._monitor.observe(records).verdicts, end)

    def _take(self, verdicts: Sequence[Verdict], end: int) -> None:
        """Note ``verdicts``, and what they call for."""
        for verdict in verdicts:
            self._verdicts.append(verdict)
            if self._policy.rule is Rule.ALARM:
                self._due.setdefault(verdict.id, _Due(verdict.alarmed, self._labels, outdated=False))
            elif self._policy.rule in {Rule.VERDICT, Rule.REFIT, Rule.LOOP}:
                self._heed(verdict, end)

    def _heed(self, verdict: Verdict, now: int) -> None:
        change = self._corrections.heed(verdict, now)
        if change is not None:
            self._changes.append(change)
        self._due.pop(verdict.id, None)  # the last revision holds
        self._faults.discard(verdict.id)
        since = verdict.response.since
        if verdict.response.action is Action.RETRAIN:
            outdated = Kind.COVARIATE not in verdict.kinds
            self._due[verdict.id] = _Due(since, self._labels, outdated=outdated)
        elif verdict.response.action is Action.BLOCK:
            self._faults.add(verdict.id)
        elif self._policy.rule is not Rule.VERDICT and _kept(verdict):
            self._due[verdict.id] = _Due(since, ENOUGH * self._labels, outdated=False)

    def _act(self, now: int) -> None:
        """Train if it is time; if there is nothing to learn from, the model stays, and it is tried again."""
        log, policy = self._log, self._policy
        ripe: list[_Due] = []
        if policy.every is not None:
            if now - self._model.trained.at < policy.every * 1000:
                return
        else:
            ripe = [due for due in self._due.values() if log.known_since(due.since, now) >= due.labels]
            if not (ripe or self._grown(now)) or (self._faults and policy.rule is Rule.LOOP):
                return
        try:
            parts = self._parts(now, max((due.since for due in ripe if due.outdated), default=None))
        except ExamplesError:
            return
        trained = Trained(now, len(parts.whole), int(parts.whole.time[0]), 0.0)
        self._go_live(_Model(log, parts, self._learn(parts), trained))

    def _grown(self, now: int) -> bool:
        """Whether there is much that the model does not know."""
        growth = self._log.case.retrain.growth
        known = self._log.became_known(self._model.trained.at, now)
        return self._policy.rule is Rule.LOOP and 0 < growth * self._model.trained.rows <= known

    def _parts(self, now: int, since: int | None) -> Parts:
        """What is trained on: examples since a change, if there are enough, otherwise those of the usual window."""
        log, training = self._log, self._log.case.training
        if since is not None and log.known_since(since, now) >= ENOUGH * self._labels:
            try:
                return window(log.examples[log.examples.time >= since], training, now)
            except ExamplesError:
                pass  # all of one label
        return window(log.examples, training, now)


def _kept(verdict: Verdict) -> bool:
    """Whether ``verdict`` is the last word on a drift under which the model was kept: neither a false alarm nor a fault."""
    told = verdict.final and verdict.kind is not Kind.FAULT and len(verdict.kinds) < len(SINGLE)
    return told and verdict.response.action is Action.KEEP
