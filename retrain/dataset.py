"""The dataset of a training job: which examples are fitted, which stop the fitting, and which, the latest, are the gate's.

    since the window began ........................ | purged | .............. now
    [        fitting        ][  stops the fitting  ]          [    holdout     ]   the twin that is judged
    [                          fitted                                          ]   the model that goes live

:func:`select` is pure and says what a request calls for, :func:`read` gets it from the example log. The holdout is of
decisions that neither the champion nor the twin has seen, all of them later than what either learnt from.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
import numpy as np

from model.bundle import Manifest
from model.example_log import DAY_MS, ExampleLog
from model.examples import Examples, ExamplesError, read_examples
from model.features import feature_spec
from model.split import Parts, edges, iso, labels_of, settled
from model.usecase import UseCase
from retrain.importance import Importance, importance
from retrain.request import RetrainRequest, Weighting

# Times the drift policy's `labels`: so many examples since a change are trained on alone (detectors/backtest.py, which
# found that a model of fewer since the change is worse than one of the usual window).
ENOUGH = 10
SHARE = 0.4  # of the decisions that the champion has not seen, or of those since the change, for the gate
LEAST = 200  # decisions, that the gate can tell anything from
LEAST_USERS = 20  # whom it draws for its intervals
LEAST_STOPPING = 100  # rows, that can stop a fit
OLD = 0.25  # what the rows before a change count together, those since it being 1, where the new law is what matters


class Fitting(NamedTuple):
    """Rows to fit.

    The twin is fitted to ``stopping.whole``, and as often as fitting ``stopping.fitting`` got better on
    ``stopping.validation``; ``judging.validation`` is the holdout, ``judging.whole`` what the live model is fitted to.
    """

    stopping: Parts
    judging: Parts


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """What a job fits and judges by, the ``usual`` way.

    After a change of the law since which there are few rows, the same rows ``anew`` as well, with those before it counting
    little: which is better the rows that stop the fits say. ``reference`` are the rows that a monitor is to compare with, ``remarks`` what people should know.
    """

    usual: Fitting
    anew: Fitting | None
    reference: Examples
    remarks: tuple[str, ...]

    @property
    def holdout(self) -> Examples:
        """The rows that judge."""
        return self.usual.judging.validation


class Champion(msgspec.Struct, frozen=True):
    """The live model's ``version`` and the moment (ms) after the last decision that it learnt from."""

    version: str
    end: int

    @classmethod
    def of(cls, manifest: Manifest) -> Champion:
        """Of the model that ``manifest`` describes; raises :class:`ExamplesError` if it does not say."""
        last = manifest.window.get("validation_last")
        if last is None:
            raise ExamplesError(
                f"model {manifest.version}: a model is compared with on decisions later than those that it learnt from, and "
                "its manifest does not say which these are; train a version with `eddyline train` and promote it by hand"
            )
        return cls(manifest.version, round(datetime.fromisoformat(last).timestamp() * 1000) + 1000)


def read(
    url: str,
    case: UseCase,
    request: RetrainRequest,
    champion: Champion | None,
    *,
    as_of: int | None = None,
    seed: int = 0,
) -> Dataset:
    """:func:`select` from the example log, or Parquet file, at ``url``, of which only the dates that matter are read."""
    begin, end = span(ExampleLog(url), case, as_of)
    return select(
        read_examples(url, feature_spec(case), begin, end), case, request, champion, as_of=as_of, seed=seed
    )


def span(log: ExampleLog, case: UseCase, as_of: int | None) -> tuple[int | None, int | None]:
    """From when to before when (ms) rows of ``log`` may matter as of ``as_of`` (ms; None: all that it tells)."""
    dates = log.dates()
    if not dates:
        return None, None  # a Parquet file, or nothing, which the reader says
    last = _midnight(dates[-1] + timedelta(1))
    now = last if as_of is None else min(as_of, last)
    open_ms = max(each.window + each.lateness for each in case.decisions.values()) * 1000
    # A label is known once its window has closed; the last decision with one may lie so much before now.
    length = (case.training.train + case.training.validate) * 1000
    return int(now - open_ms - length) - DAY_MS, None if as_of is None else as_of + DAY_MS


def select(
    examples: Examples,
    case: UseCase,
    request: RetrainRequest,
    champion: Champion | None,
    *,
    as_of: int | None = None,
    seed: int = 0,
) -> Dataset:
    """What of ``examples``, in order of time, ``request`` calls for, as of ``as_of`` (ms; None: when they end).

    The holdout is :data:`SHARE` of the decisions since both the champion's last and the change, and ``validate`` of
    the use case at most. The twin knows what was known when it began. Raises :class:`ExamplesError` when one part is too
    small to be of use, and says when it will do.
    """
    matured, known_at = settled(examples, as_of)
    since = request.since if request.weighting is not Weighting.ROLLING else None
    whole, remarks = _window(matured, case, request.weighting, since)
    holdout_at = _holdout(whole, case, champion, since, known_at)
    before, holdout = whole[:holdout_at], whole[holdout_at:]
    known, purging = _purged(before, holdout, since)
    weighted = since is not None and request.weighting is Weighting.IMPORTANCE
    reason: tuple[str, ...] = ()
    if weighted and since is not None:
        known = _with(known, importance(known, since, seed))
        found = importance(whole, since, seed)
        whole, reason = _with(whole, found), (found.reason,)
    stopping = _stopping(known, case, champion, since, known_at)
    _, validate = edges(whole, case.training)
    begin = int(np.searchsorted(whole.time, validate if since is None else max(since, int(whole.time[0]))))
    usual = Fitting(stopping, Parts(known, holdout, whole, known_at))
    return Dataset(
        usual=usual,
        anew=_anew(usual, since) if request.weighting is Weighting.SINCE and since is not None else None,
        reference=whole[min(begin, holdout_at) :],
        remarks=(*remarks, *reason, *purging),
    )


def _window(
    matured: Examples, case: UseCase, weighting: Weighting, since: int | None
) -> tuple[Examples, tuple[str, ...]]:
    """The rows since the change, if they are to be learnt from alone and there are enough; else the usual window."""
    if weighting is Weighting.SINCE and since is not None:
        after = matured[int(np.searchsorted(matured.time, since)) :]
        enough = ENOUGH * case.drift.labels
        if len(after) >= enough:
            return after, (f"trained on the {len(after)} rows since the change alone",)
        remark = f"trained on the usual window: {len(after)} rows since the change, of {enough} that would do alone"
    else:
        remark = None
    begin, _ = edges(matured, case.training)
    return matured[int(np.searchsorted(matured.time, begin, "right")) :], () if remark is None else (remark,)


def _holdout(whole: Examples, case: UseCase, champion: Champion | None, since: int | None, now: int) -> int:
    """The row at which the holdout begins; raises :class:`ExamplesError` if it would be too small."""
    unseen_from = max(0 if champion is None else champion.end, since or 0)
    first = int(np.searchsorted(whole.time, unseen_from))
    unseen = len(whole) - first
    _, validate = edges(whole, case.training)
    wanted = len(whole) - int(unseen * SHARE)
    at = len(whole)
    if wanted < len(whole):
        cut = max(int(whole.time[wanted]), validate + 1)
        at = int(np.searchsorted(whole.time, cut))  # decisions of one time stay together
    holdout = whole[at:]
    if len(holdout) >= LEAST and labels_of(holdout) == [0, 1] and len(np.unique(holdout.user)) >= LEAST_USERS:
        return at
    after = [f"the last that model {champion.version} learnt from"] if champion else []
    after += ["the change"] if since is not None else []
    raise ExamplesError(
        f"a challenger is judged by {SHARE:.0%} of the decisions after {' and after '.join(after) or 'the window began'}, "
        f"{LEAST} at least, of {LEAST_USERS} users and with both labels; {unseen} have a label by {iso(now)}, of which "
        f"{len(holdout)} by {len(np.unique(holdout.user))} users with labels {labels_of(holdout)} would judge; "
        f"{_when(whole, unseen, now)}"
    )


def _when(whole: Examples, unseen: int, now: int) -> str:
    """When there will be enough, if decisions keep coming as they do."""
    missing = int(LEAST / SHARE) + 1 - unseen
    span_ms = int(whole.time[-1] - whole.time[0])
    if missing <= 0 or span_ms <= 0:
        return "ask again when more is known, or widen `validate` in [training] of the use case"
    rate = len(whole) / span_ms  # rows a ms
    return f"at {rate * DAY_MS:,.0f} a day there will be enough by about {iso(now + round(missing / rate))}: ask again then"


def _purged(before: Examples, holdout: Examples, since: int | None) -> tuple[Examples, tuple[str, ...]]:
    """Of ``before`` what was known when the holdout began.

    A model judged by decisions must not know what came of others while these were open (:mod:`model.split`). Where
    that leaves too little since a change to learn the new world from, only what came of the *same users* is kept
    from it: the outcome that two labels share is one user's.
    """
    strict = before[before.closes <= holdout.time[0]]
    if since is None or (strict.time >= since).sum() >= LEAST:
        return strict, ()
    mild = before[(before.closes <= holdout.time[0]) | ~np.isin(before.user, holdout.user)]
    if (mild.time >= since).sum() <= (strict.time >= since).sum():
        return strict, ()
    remark = (
        f"{len(mild) - len(strict)} rows were fitted whose label came after the holdout began, none of a user in it: there "
        f"would be {(strict.time >= since).sum()} since the change without them"
    )
    return mild, (remark,)


def _stopping(
    known: Examples, case: UseCase, champion: Champion | None, since: int | None, now: int
) -> Parts:
    """``known`` divided for early stopping: its latest rows stop it, of the time since the change if there are enough.

    Of what is new a third, if that will do; otherwise the usual share of the whole. There is no purging in between: nobody
    is judged here, and it would leave nothing new to be fitted.
    """
    if not len(known):
        raise ExamplesError(
            f"the challenger learns from decisions whose label was known when the holdout began, got none by {iso(now)}; "
            "ask again when more is known"
        )
    _, cut = edges(known, case.training)
    at = int(np.searchsorted(known.time, cut, "right"))
    newest = max(since or 0, 0 if champion is None else champion.end)
    new = len(known) - int(np.searchsorted(known.time, newest))
    if newest and new >= 3 * LEAST_STOPPING:
        third = int(np.searchsorted(known.time, known.time[len(known) - new // 3]))
        at = max(at, third)
    parts = Parts(known[:at], known[at:], known, now)
    for part, what in ((parts.fitting, "fitted"), (parts.validation, "that stop it")):
        if labels_of(part) != [0, 1]:
            raise ExamplesError(
                f"the challenger needs rows of both labels to be fitted to and to stop it, got labels {labels_of(part)} in the "
                f"{len(part)} {what}, of {len(known)} known when the holdout began; ask again when more is known, or change "
                "[training] of the use case"
            )
    return parts


def _anew(usual: Fitting, since: int) -> Fitting | None:
    """The same, with what came before the change counting little; None if nothing did, or too little came since."""
    new = usual.stopping.fitting.time >= since
    if new.all() or new.sum() < LEAST_STOPPING:
        return None

    return Fitting(
        *(
            msgspec.structs.replace(
                parts, fitting=_fading(parts.fitting, since), whole=_fading(parts.whole, since)
            )
            for parts in usual
        )
    )


def _fading(rows: Examples, since: int) -> Examples:
    new = rows.time >= since
    share = min(1.0, OLD * new.sum() / max(1, (~new).sum()))
    return msgspec.structs.replace(rows, importance=np.where(new, 1.0, share).astype(np.float32))


def _with(rows: Examples, found: Importance) -> Examples:
    return msgspec.structs.replace(rows, importance=found.weight)


def _midnight(date: object) -> int:
    return int(np.datetime64(str(date), "ms").astype(np.int64))
