"""The summary of a backtest: what each policy gained and cost, as values, for the table, the file and the plot. Pure."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.backtest import Run, Trained
from detectors.backtest_correction import Correction
from model.evaluation import auc, calibration_error, log_loss
from model.examples import Examples
from model.split import iso


class Month(msgspec.Struct, frozen=True):
    """The decisions of one month (UTC)."""

    month: str  # such as 2014-02
    decisions: int
    log_loss: float


class Alarm(msgspec.Struct, frozen=True):
    """An episode of drift as it ended, or stood when its model was replaced; times in ms."""

    id: str
    at: int
    changed: int
    kind: str
    action: str
    revisions: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One policy. ``models`` begins with the first, which is the same for all and which no cost here counts.

    ``verdicts`` counts alarms by the kind that was told last, ``corrections`` the times that a correction took force, be
    it in the place of another. Measures that cannot be had are None.
    """

    policy: str
    retrains: int
    corrections: int
    alarms: int
    verdicts: dict[str, int]
    decisions: int
    base_rate: float
    auc: float | None
    log_loss: float
    calibration_error: float
    training_seconds: float
    rows_trained_on: int
    months: list[Month]
    models: list[Trained]
    alarmed: list[Alarm]
    corrected: list[Correction]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A backtest from ``begin`` to ``end``, ISO 8601; ``monitored`` decisions were shown to the monitor."""

    usecase: str
    learner: str
    begin: str
    end: str
    monitored: int
    policies: list[Summary]


def summary(run: Run, decisions: Examples) -> Summary:
    """What came of ``run``, which scored ``decisions``."""
    label, score = decisions.label, run.score
    area = auc(label, score)
    last = {verdict.id: verdict for verdict in run.verdicts}
    alarms = [
        Alarm(each.id, each.alarmed, each.changed, each.kind, each.response.action, each.revision + 1)
        for each in last.values()
    ]
    return Summary(
        policy=run.name,
        retrains=len(run.trained) - 1,
        corrections=sum(bool(each.shares) for each in run.corrections),
        alarms=len(alarms),
        verdicts=dict(Counter(each.kind for each in alarms).most_common()),
        decisions=len(decisions),
        base_rate=float(label.mean()),
        auc=None if np.isnan(area) else area,
        log_loss=log_loss(label, score),
        calibration_error=calibration_error(label, score),
        training_seconds=sum(each.seconds for each in run.trained[1:]),
        rows_trained_on=sum(each.rows for each in run.trained[1:]),
        months=_months(run, decisions),
        models=run.trained,
        alarmed=alarms,
        corrected=run.corrections,
    )


def _months(run: Run, decisions: Examples) -> list[Month]:
    months: NDArray[np.datetime64] = decisions.time.astype("datetime64[ms]").astype("datetime64[M]")
    found = []
    for month in np.unique(months):
        rows = months == month
        found.append(Month(str(month), int(rows.sum()), log_loss(decisions.label[rows], run.score[rows])))
    return found


def report(usecase: str, learner: str, runs: list[Run], decisions: Examples, monitored: int) -> Report:
    """All policies side by side."""
    return Report(
        usecase=usecase,
        learner=learner,
        begin=iso(runs[0].trained[0].at),
        end=iso(decisions.time[-1]),
        monitored=monitored,
        policies=[summary(run, decisions) for run in runs],
    )
