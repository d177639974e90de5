"""Facts about backtests: worlds whose drift is known, lived through under each policy, and what people are shown of it."""

from __future__ import annotations

import functools
import itertools
import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

import eddyline
from detectors import backtest_view, episode, view
from detectors.backtest import Fitted, Policy, Rule, Run, backtest
from detectors.backtest_correction import Corrections
from detectors.backtest_log import DAY, Log, settled
from detectors.backtest_summary import report
from detectors.episode import Alarm, Identity
from detectors.verdict import Action, Estimate, Kind, Response, Verdict
from model import baselines, usecase
from model.evaluation import log_loss
from model.examples import Examples, ExamplesError
from model.features import Float32
from model.split import Parts
from tests import builders
from tests.worlds import World

USECASE = """
name = "world"
[events.offer]
[events.buy]
[decisions.offer]
outcome = "buy"
window = "7d"
[context]
a = "number"
b = "number"
flag = "number"
d = "number"
plan = "category"
[features]
a = { kind = "context", field = "a" }
b = { kind = "context", field = "b" }
flag = { kind = "context", field = "flag" }
d = { kind = "context", field = "d" }
plan = { kind = "context", field = "plan", buckets = 8 }
[training]
train = "20d"
validate = "10d"
[drift]
labels = 500
reference = 1500
events_between_false_alarms = 20000
"""
CASE = usecase.parse(USECASE)
EACH = 200  # decisions a day
FIRST, BEGIN, CHANGE, END = (
    0,
    30,
    45,
    75,
)  # days: when the log begins, the first model goes live, the world changes
WINDOW = 7 * DAY  # ms, after which a label is known
EPOCH = 1_699_920_000_000  # midnight
ALL = tuple((text, Policy.parse(text)) for text in ("never", "every=10d", "alarm", "verdict"))


def log(later: World, end: int = END) -> Examples:
    """Decisions of a world that becomes ``later`` on day ``CHANGE``, each of another user."""
    parts = [World().draw(CHANGE * EACH, seed=1), later.draw((end - CHANGE) * EACH, seed=2)]
    numeric, label, plan = (
        np.concatenate([getattr(p, n) for p in parts]) for n in ("numeric", "label", "categorical")
    )
    n = len(label)
    time = EPOCH + np.arange(n) * (DAY // EACH)
    return settled(
        Examples(
            numeric=numeric.astype(np.float32),
            categorical=np.array([[len(each)] for each in plan[:, 0]], np.int32),
            label=label.astype(np.float32),
            sample_weight=np.ones(n, np.float32),
            time=time,
            closes=time + WINDOW,
            user=np.arange(n),
            categories=plan,
        )
    )


def logistic(parts: Parts) -> Fitted:
    """A quick learner."""
    return Fitted(baselines.logistic(parts.whole), 1.0)


@functools.cache
def lived(later: World) -> tuple[dict[str, Run], Examples]:
    """All policies' runs by name, and the decisions that they scored."""
    examples = log(later)
    runs = backtest(CASE, examples, np.ones(len(examples), np.bool_), day(BEGIN), ALL, logistic)
    return {run.name: run for run in runs}, examples[examples.time >= day(BEGIN)]


def day(number: int) -> int:
    """When the day begins, ms."""
    return EPOCH + number * DAY


CONCEPT, LABEL, NOTHING = World(turned=1.0), World(prior=0.8), World()


def after(run: Run, rows: Examples, begin: int) -> float:
    """The log-loss of decisions from day ``begin`` on."""
    there = rows.time >= day(begin)
    return log_loss(rows.label[there], run.score[there])


def test_a_concept_drift_makes_verdict_retrain_and_pays() -> None:
    """Once P(Y|X) has changed, the verdict retrains after the change, and later decisions are scored far better."""
    runs, rows = lived(CONCEPT)
    retrained = [each.at for each in runs["verdict"].trained[1:]]
    assert 1 <= len(retrained) <= 4
    assert day(CHANGE) + WINDOW < retrained[0] <= day(CHANGE + 21)
    assert after(runs["verdict"], rows, CHANGE + 22) < after(runs["never"], rows, CHANGE + 22) - 0.05


def test_a_label_shift_makes_verdict_correct_and_not_retrain() -> None:
    """Once P(Y) alone has changed, and the labels of some decisions tell so, the scores are corrected."""
    runs, rows = lived(LABEL)
    run = runs["verdict"]
    assert len(run.trained) == 1
    assert run.corrections[0].shares
    assert day(CHANGE) + WINDOW < run.corrections[0].at < day(CHANGE) + 3 * WINDOW
    (before, now), *_ = run.corrections[-1].shares
    assert before == pytest.approx(rows.label[rows.time < day(CHANGE)].mean(), abs=0.03)
    assert now == pytest.approx(0.8, abs=0.05)
    assert after(run, rows, CHANGE + 5) < after(runs["never"], rows, CHANGE + 5) - 0.05


def test_refit_trains_after_a_covariate_drift_once_there_is_much_new_data() -> None:
    """Where verdict keeps the model, refit trains it on the usual window when ten times `labels` are known."""
    examples = log(World(shift=0.7), end=CHANGE + 45)
    both = (("verdict", Policy.parse("verdict")), ("refit", Policy.parse("refit")))
    verdict_, refit = backtest(CASE, examples, np.ones(len(examples), np.bool_), day(BEGIN), both, logistic)
    assert (Kind.COVARIATE, Action.KEEP) == (refit.verdicts[-1].kind, refit.verdicts[-1].response.action)
    assert len(verdict_.trained) == 1
    since = refit.verdicts[-1].response.since
    known = np.sort(examples.closes[examples.time >= since])[10 * CASE.drift.labels - 1]
    assert refit.trained[1].at - DAY < known <= refit.trained[1].at


def under(later: World, name: str, end: int = END) -> tuple[Run, Examples]:
    """The run of one policy, and all examples."""
    examples = log(later, end)
    policies = ((name, Policy.parse(name)),)
    (run,) = backtest(CASE, examples, np.ones(len(examples), np.bool_), day(BEGIN), policies, logistic)
    return run, examples


def test_loop_trains_once_there_is_much_that_the_model_does_not_know() -> None:
    """In a world that stays, too: the more a model has seen, the more it takes for the next one."""
    run, examples = under(NOTHING, "loop")
    assert not run.verdicts
    assert len(run.trained) >= 3
    for before, trained in itertools.pairwise(run.trained):
        new = np.sort(examples.closes[examples.closes > before.at])[math.ceil(before.rows / 3) - 1]
        assert trained.at - DAY < new <= trained.at


def test_loop_trains_on_no_data_that_are_at_fault() -> None:
    """As long as the fault is open nothing is trained, however much there is; the calendar knows no better."""
    lost = World(missing=0.95)
    run, _ = under(lost, "loop")
    blocked = [each for each in run.verdicts if each.response.action is Action.BLOCK]
    assert blocked
    assert [each.at for each in run.trained if each.at > blocked[0].alarmed] == []
    assert any(each.at > blocked[0].alarmed for each in under(lost, "every=10d")[0].trained)


def test_what_looks_like_a_label_shift_is_corrected_without_labels_where_that_is_declared() -> None:
    """Then the correction comes with the first block after the change, a window before the labels could tell."""
    examples, policies = log(LABEL), ALL[3:]
    declared = msgspec.structs.replace(CASE, drift=msgspec.structs.replace(CASE.drift, label_free=True))
    (run,) = backtest(declared, examples, np.ones(len(examples), np.bool_), day(BEGIN), policies, logistic)
    waited, rows = lived(LABEL)
    assert len(run.trained) == 1
    assert run.corrections[0].at < day(CHANGE) + WINDOW < waited["verdict"].corrections[0].at
    assert run.corrections[0].shares[0][1] == pytest.approx(0.8, abs=0.1)
    assert run.corrections[-1].shares[0][1] == pytest.approx(0.8, abs=0.05), "as counted"
    assert after(run, rows, CHANGE) < after(waited["verdict"], rows, CHANGE) - 0.02


def test_nothing_happens_in_a_world_that_stays() -> None:
    """Without drift no alarm is raised, and verdict, alarm and never are the same."""
    runs, _ = lived(NOTHING)
    assert not any(run.verdicts for run in runs.values())
    for name in ("alarm", "verdict"):
        np.testing.assert_array_equal(runs["never"].score, runs[name].score)


@pytest.mark.parametrize("later", [CONCEPT, LABEL], ids=["concept", "label"])
def test_never_is_one_model_and_every_keeps_its_calendar(later: World) -> None:
    """Without retraining one model scores all, as it was; with a calendar a new one comes every ten days."""
    runs, rows = lived(later)
    assert (1, {0}) == (len(runs["never"].trained), set(runs["never"].model.tolist()))
    assert not runs["never"].corrections
    assert [day(n) for n in range(BEGIN, END, 10)][: len(runs["every=10d"].trained)] == [
        each.at for each in runs["every=10d"].trained
    ]
    np.testing.assert_array_equal(
        runs["never"].score[rows.time < day(BEGIN + 10)], runs["every=10d"].score[rows.time < day(BEGIN + 10)]
    )


def test_alarm_waits_for_labels_and_then_retrains_whatever_it_was() -> None:
    """After an alarm, `labels` decisions since then must be known; then even a label shift retrains."""
    runs, rows = lived(LABEL)
    run = runs["alarm"]
    first = run.verdicts[0]
    known = np.sort(rows.closes[rows.time >= first.alarmed])[CASE.drift.labels - 1]
    assert run.trained[1].at - DAY < known <= run.trained[1].at


@pytest.mark.parametrize("later", [CONCEPT, LABEL], ids=["concept", "label"])
def test_every_decision_is_scored_by_a_model_of_before(later: World) -> None:
    """A model is trained before what it scores, on labels that were known by then."""
    runs, rows = lived(later)
    for run in runs.values():
        at = np.array([each.at for each in run.trained])
        assert (at[run.model] <= rows.time).all()
        following = np.append(at[1:], np.iinfo(np.int64).max)
        assert (rows.time < following[run.model]).all(), "the newest model scores"


def test_no_model_scores_what_it_knew() -> None:
    """A learner that only remembers what it was shown is never asked about any of it."""
    shown: list[tuple[int, Parts]] = []

    def memory(parts: Parts) -> Fitted:
        seen = set(parts.whole.user.tolist())
        shown.append((parts.as_of, parts))
        usual = baselines.logistic(parts.whole)

        def score(rows: Examples) -> Float32:
            known = np.array([user in seen for user in rows.user.tolist()])
            if known.any() and not known.all():
                raise AssertionError("a decision was scored that was trained on")
            asked.append((bool(known.any()), len(rows)))
            return usual(rows)

        return Fitted(score, 0.0)

    asked: list[tuple[bool, int]] = []
    examples = log(CONCEPT)
    backtest(CASE, examples, np.ones(len(examples), np.bool_), day(BEGIN), ALL[1:2], memory)
    assert len(shown) == 5
    assert sum(known for known, _ in asked) == len(shown), (
        "each model scored its own reference, and nothing else"
    )
    for as_of, parts in shown:
        assert parts.whole.closes.max() <= as_of


def test_a_day_shows_its_decisions_and_the_labels_that_it_brings() -> None:
    """Each monitored decision is shown once as scored, on its day, and once with its label, when its window closes."""
    examples = log(NOTHING)
    monitored = np.random.default_rng(0).random(len(examples)) < 0.5
    of = Log(CASE, examples, monitored, day(BEGIN))
    seen: dict[bool, list[int]] = {True: [], False: []}
    for begin in range(day(BEGIN), int(examples.closes.max()) + 1, DAY):
        rows, labelled = of.shown(begin, begin + DAY)
        moment = np.where(labelled, examples.closes[rows], examples.time[rows])
        assert (np.diff(moment) >= 0).all()
        assert ((begin <= moment) & (moment <= begin + DAY)).all()
        for known in (True, False):
            seen[known] += rows[labelled == known].tolist()
    wanted = np.flatnonzero(monitored & (examples.time >= day(BEGIN))).tolist()
    assert wanted == seen[False]
    assert wanted == sorted(seen[True])


def test_equal_arguments_give_equal_runs() -> None:
    """Nothing is drawn by chance."""
    runs, _ = lived(LABEL)
    examples = log(LABEL)
    again = backtest(CASE, examples, np.ones(len(examples), np.bool_), day(BEGIN), ALL[3:], logistic)[0]
    np.testing.assert_array_equal(runs["verdict"].score, again.score)
    assert runs["verdict"].verdicts == again.verdicts
    assert runs["verdict"].corrections == again.corrections


def test_a_log_without_decisions_to_judge_is_refused() -> None:
    """A moment after the log's end is refused with what to do."""
    examples = log(NOTHING)
    with pytest.raises(ExamplesError, match="choose an earlier one"):
        backtest(CASE, examples, np.ones(len(examples), np.bool_), day(END + 9), ALL, logistic)


@pytest.mark.parametrize("text", ["", "every", "every=soon", "always", "verdict=3d"])
def test_a_policy_that_is_none_is_refused(text: str) -> None:
    """The error names what can be written."""
    with pytest.raises(ValueError, match=r"such as (every=30d|\"90s\")"):
        Policy.parse(text)


def test_policies_are_read() -> None:
    """Each policy has its rule, and the calendar its length in seconds."""
    assert [Rule.NEVER, Rule.EVERY, Rule.ALARM, Rule.VERDICT] == [policy.rule for _, policy in ALL]
    assert float(ALL[1][1].every or 0) == 10 * 86400


def verdict(
    at: int, revision: int, action: Action, before: float, now: float | None, **fields: object
) -> Verdict:
    """A revision of the episode of the sample ``at``; ``now`` is counted."""
    alarm = Alarm(offset=at, time=at, changed=at, monitored=1, evidence=1e6, threshold=1e5, labelled=False)
    response = Response(action, "", at)
    prior = None if now is None else Estimate(now, now, now)
    made = episode.alarmed(Identity("world", "1", str(fields.pop("slice", ""))), alarm, (), before)
    return msgspec.structs.replace(made, revision=revision, response=response, prior_counted=prior, **fields)


def test_a_later_revision_replaces_a_correction_or_withdraws_it() -> None:
    """Within an episode the last revision holds; while it may still be a label drift, the correction stays."""
    corrections = Corrections()
    assert corrections.heed(verdict(5, 0, Action.WAIT, 0.5, None), 1) is None
    change = corrections.heed(verdict(5, 1, Action.CORRECT_PRIOR, 0.5, 0.7), 2)
    assert change is not None
    assert ((0.5, 0.7),) == change.shares
    assert (
        corrections.heed(verdict(5, 2, Action.WAIT, 0.5, 0.7, kinds=(Kind.LABEL, Kind.COVARIATE)), 3) is None
    )
    corrections.heed(verdict(5, 3, Action.CORRECT_PRIOR, 0.5, 0.8), 4)
    assert ((0.5, 0.8),) == corrections.shares
    change = corrections.heed(verdict(5, 4, Action.KEEP, 0.5, 0.8), 5)
    assert change is not None
    assert change.shares == ()
    scores = np.array([0.2, 0.9], np.float32)
    np.testing.assert_array_equal(scores, corrections(scores))


def test_corrections_add_up_from_reference_to_reference() -> None:
    """A second shift is told against decisions after the first; an episode that was overtaken left the old reference."""
    corrections = Corrections()
    corrections.heed(verdict(5, 1, Action.CORRECT_PRIOR, 0.5, 0.7), 1)
    corrections.heed(verdict(9, 1, Action.CORRECT_PRIOR, 0.5, 0.75), 2)
    assert ((0.5, 0.75),) == corrections.shares, "the same reference: in the place of the first"
    corrections.heed(verdict(20, 1, Action.CORRECT_PRIOR, 0.75, 0.5), 3)
    scores = np.array([0.2, 0.9])
    np.testing.assert_allclose(scores, corrections(scores.astype(np.float32)), rtol=1e-6)
    corrections.heed(verdict(20, 2, Action.KEEP, 0.75, None), 4)
    assert ((0.5, 0.75),) == corrections.shares


def test_a_slice_corrects_nothing() -> None:
    """A model has one correction; that of one value of a slice would be wrong for all others."""
    corrections = Corrections()
    assert corrections.heed(verdict(5, 1, Action.CORRECT_PRIOR, 0.5, 0.7, slice="plan"), 1) is None
    assert corrections.shares == ()


def test_people_get_tables_a_summary_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every policy has its figures, every month its log-loss, and the plot is an image."""
    runs, rows = lived(LABEL)
    found = report("world", "logistic", list(runs.values()), rows, len(rows))
    backtest_view.show(found, view.console())
    printed = capsys.readouterr().out
    for word in ("never", "every=10d", "AUC", "calibration error", "corrections", "2023-12", "label"):
        assert word in printed
    assert len(rows) == sum(month.decisions for month in found.policies[0].months)
    backtest_view.plot(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_compares_policies(tmp_path: Path) -> None:
    """From a file of examples to a table and a summary, with the sample of decisions that a worker would take."""
    case, examples = builders.inputs(tmp_path, builders.examples(4000))
    out = tmp_path / "summary.json"
    arguments = ["backtest", case, examples, "--from", "2023-11-16", "--learner", "boosting"]
    arguments += [
        "--policy",
        "never",
        "--policy",
        "verdict",
        "--summary",
        out,
        "--plot",
        tmp_path / "plot.png",
    ]
    done = CliRunner().invoke(eddyline.cli, list(map(str, arguments)))
    assert (0, "") == (done.exit_code, done.stderr)
    assert "verdict" in done.stdout
    found = json.loads(out.read_text())
    assert [("never", 0), ("verdict", 0)] == [
        (each["policy"], each["retrains"]) for each in found["policies"]
    ]
    users = 97  # of the builder's, and so the most that are monitored on one of the log's days
    assert 0 < found["monitored"] <= users * 5
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_the_command_refuses_what_is_no_policy(tmp_path: Path) -> None:
    """Before anything is read, in one line."""
    case, examples = builders.inputs(tmp_path, builders.examples(50))
    arguments = ["backtest", case, examples, "--from", "2023-11-16", "--policy", "sometimes"]
    done = CliRunner().invoke(eddyline.cli, list(map(str, arguments)))
    assert done.exit_code == 2
    assert "eddyline: --policy: a policy is never, every=DURATION" in done.stderr


def test_the_last_block_is_watched_though_no_decision_ends_it() -> None:
    """A drift within the block in which the log ends is found as the simulation ends."""
    case = usecase.parse(USECASE.replace("labels = 500", 'labels = 500\nblock = "90d"'))
    examples = log(LABEL)
    run = backtest(case, examples, np.ones(len(examples), np.bool_), day(BEGIN), ALL[:1], logistic)[0]
    assert run.verdicts
    assert run.verdicts[0].alarmed // (90 * DAY) == int(examples.time[-1]) // (90 * DAY)


@pytest.mark.parametrize(("begin", "says"), [("2031-01-01", "choose an earlier one"), ("1999-01-01", "got")])
def test_a_moment_outside_the_log_is_told_before_anything_that_learns_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: str, says: str
) -> None:
    """TensorFlow takes seconds, and the answer is there without it."""

    def never(*_: object) -> None:
        raise AssertionError("the learner was loaded")

    monkeypatch.setattr(eddyline, "_learner", never)
    case, examples = builders.inputs(tmp_path, builders.examples(400))
    done = CliRunner().invoke(eddyline.cli, ["backtest", str(case), str(examples), "--from", begin])
    assert done.exit_code == 2, done.output
    assert says in done.stderr
