"""Facts about retrain/dataset.py and retrain/importance.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from model import usecase
from model.bundle import Manifest
from model.example_log import DAY_MS, ExampleLog
from model.examples import Examples, ExamplesError, read_examples
from model.split import iso, window
from model.usecase import UseCase
from retrain import dataset
from retrain.dataset import OLD, SHARE, Champion, Dataset
from retrain.importance import importance
from retrain.request import RetrainRequest, Weighting
from tests.builders import SPEC, START, STEP, USECASE, WINDOW, decisions, examples, replaced
from tests.jobs import request

N = 6000
CHANGE = 4000  # the row of it
CASE = usecase.parse(USECASE + "[drift]\nlabels = 400\n[training]\ntrain = '3d'\nvalidate = '1d'\n")


def world(n: int = N, users: int = 200, seed: int = 0) -> Examples:
    """``n`` decisions, a minute apart, all of known label; the first numeric column is their number."""
    user = np.random.default_rng(seed).integers(0, users, n)
    rows = decisions(user, START + STEP * np.arange(n, dtype=np.int64), seed)
    rows.label[-1] = 0  # its window has closed: were it positive, that might not be known
    return rows


def changed(weighting: Weighting = Weighting.SINCE, row: int = CHANGE) -> RetrainRequest:
    """A request about what came since ``row``."""
    return request(weighting=weighting, since=START + STEP * row)


def champion(row: int) -> Champion:
    """A model that learnt from all before ``row``."""
    return Champion("7", START + STEP * row)


def selected(
    rows: Examples | None = None, wish: RetrainRequest | None = None, seen: int | None = CHANGE,
    case: UseCase = CASE, **given: Any,
) -> Dataset:  # fmt: skip
    """What is chosen for ``wish``."""
    return dataset.select(
        world() if rows is None else rows,
        case,
        wish or request(),
        None if seen is None else champion(seen),
        **given,
    )


def numbers(rows: Examples) -> tuple[int, int]:
    """The first and last row, by their numbers."""
    return int(rows.numeric[0, 0]), int(rows.numeric[-1, 0])


@pytest.mark.parametrize("wish", [request(), changed(), changed(Weighting.IMPORTANCE)])
def test_the_holdout_is_the_latest_and_nobody_has_seen_it(wish: RetrainRequest) -> None:
    """It is later than what the champion learnt from, than the change, and than all labels that the twin learnt from."""
    found = selected(wish=wish)
    stopping, judging = found.usual
    last = len(judging.whole) - 1
    first = judging.whole.numeric[0, 0]
    assert numbers(found.holdout)[1] == first + last
    assert found.holdout.time[0] >= START + STEP * CHANGE
    known = int(np.searchsorted(judging.whole.numeric[:, 0], CHANGE))
    assert len(found.holdout) == pytest.approx(SHARE * (last + 1 - known), abs=1)
    assert stopping.whole.closes.max() <= found.holdout.time[0]
    np.testing.assert_array_equal(judging.fitting.numeric, stopping.whole.numeric)
    assert stopping.fitting.time[-1] < stopping.validation.time[0]
    assert len(stopping.fitting) + len(stopping.validation) == len(stopping.whole)


def test_the_usual_window_is_that_of_training() -> None:
    """A scheduled job's rows are those that `eddyline train` would take."""
    rows = world()
    whole = window(rows, CASE.training).whole
    np.testing.assert_array_equal(selected(rows).usual.judging.whole.numeric, whole.numeric)


def test_the_first_model_is_judged_by_the_latest_decisions() -> None:
    """Without a champion all decisions are unseen, and at most the share that `validate` is judges."""
    found = selected(seen=None)
    assert numbers(found.holdout)[1] - numbers(found.holdout)[0] == pytest.approx(24 * 60, abs=20)
    assert found.anew is None


def test_a_holdout_too_small_says_when_it_will_do() -> None:
    """The refusal says what is known, and when there will be enough at the rate of decisions."""
    with pytest.raises(ExamplesError, match=r"after the last that model 7 learnt from") as refused:
        selected(seen=N - 300)
    said = str(refused.value)
    assert "300 have a label by" in said
    assert "at 1,440 a day there will be enough by about" in said
    moment = START + STEP * (N - 1) + WINDOW + STEP * (501 - 300)
    assert iso(moment)[:15] in said


def test_a_holdout_of_one_label_or_few_users_is_refused() -> None:
    """Neither tells anything."""
    rows = world()
    late = rows.time >= START + STEP * CHANGE
    with pytest.raises(ExamplesError, match=r"labels \[1\] would judge; ask again when more is known"):
        selected(msgspec.structs.replace(rows, label=np.where(late, 1, rows.label).astype(np.float32)))
    with pytest.raises(ExamplesError, match=r"by 3 users"):
        selected(world(users=3))


def test_many_rows_since_the_change_are_trained_on_alone() -> None:
    """Ten times the drift policy's labels leave older rows out."""
    found = selected(wish=changed(row=1000), seen=1000)
    assert numbers(found.usual.judging.whole)[0] == 1000
    assert found.anew is None
    assert found.remarks == ("trained on the 5000 rows since the change alone",)


def test_few_rows_since_the_change_are_given_weight_besides() -> None:
    """With fewer the usual window is trained on; and in a second way, in which older rows count little."""
    found = selected(wish=changed())
    assert found.anew is not None
    assert found.remarks[0].startswith("trained on the usual window: 2000 rows since the change, of 4000")
    assert found.usual.judging.whole.importance is None
    for parts in found.anew:
        for rows in (parts.fitting, parts.whole):
            assert rows.importance is not None
            new = rows.time >= START + STEP * CHANGE
            assert rows.importance[new].sum() * OLD == pytest.approx(rows.importance[~new].sum(), rel=1e-3)
    assert found.anew.stopping.validation.importance is None


def test_most_of_what_is_new_is_fitted() -> None:
    """Of the rows since the change that the twin may know a third stops the fit."""
    found = selected(wish=changed()).usual.stopping
    assert found.validation.time[0] > START + STEP * CHANGE
    new = (found.whole.time >= START + STEP * CHANGE).sum()
    assert len(found.validation) == pytest.approx(new / 3, abs=1)


def test_where_purging_would_leave_nothing_new_only_the_same_users_are_purged() -> None:
    """With a long outcome window the twin learns of other users' later outcomes, and of none of the holdout's users."""
    rows = world(users=3000)
    rows = msgspec.structs.replace(rows, closes=rows.time + 1000 * STEP)
    found = selected(rows, changed(row=CHANGE), as_of=int(rows.closes[-1001]))
    late = found.usual.stopping.whole.closes > found.holdout.time[0]
    assert late.any()
    assert not np.isin(found.usual.stopping.whole.user[late], found.holdout.user).any()
    assert "none of a user in it" in found.remarks[-1]
    scheduled = selected(rows, seen=CHANGE, as_of=int(rows.closes[-1001]))
    assert scheduled.usual.stopping.whole.closes.max() <= scheduled.holdout.time[0]


@pytest.mark.parametrize("weighting", list(Weighting))
def test_as_of_a_moment_nothing_is_known_that_came_later(weighting: Weighting) -> None:
    """Labels and features of decisions whose windows were open then change nothing."""
    rows, moment = world(), START + STEP * 5500
    later = rows.closes > moment
    other = msgspec.structs.replace(
        rows,
        label=np.where(later, 1 - rows.label, rows.label),
        numeric=np.where(later[:, None], 1e6, rows.numeric).astype(np.float32),
    )
    wish = request() if weighting is Weighting.ROLLING else changed(weighting)
    one, two = (selected(each, wish, as_of=moment) for each in (rows, other))
    assert one.usual.judging.whole.closes.max() <= moment
    assert msgspec.structs.asdict(one.usual.judging.whole).keys()
    for a, b in zip(one.usual, two.usual, strict=True):
        for part in ("fitting", "validation", "whole"):
            for name in rows.__struct_fields__:
                np.testing.assert_array_equal(
                    getattr(getattr(a, part), name), getattr(getattr(b, part), name)
                )


def shifted(n: int = 4000, by: float = 1.0) -> Examples:
    """Rows of which the latter half has another mean in the last numeric column."""
    rows = world(n)
    numeric = rows.numeric.copy()
    numeric[:, 0] = np.random.default_rng(1).normal(size=n)
    numeric[n // 2 :, -1] += by
    return msgspec.structs.replace(rows, numeric=numeric)


def test_importance_makes_old_rows_look_like_new_ones() -> None:
    """Weighted, the column that moved has the mean of the rows since; and the weights are steady and 1 on average."""
    rows = shifted()
    since = int(rows.time[2000])
    found = importance(rows, since, seed=0)
    assert found.weight is not None
    assert found.weight.mean() == pytest.approx(1, abs=1e-5)
    column = np.nan_to_num(rows.numeric[:, -1])
    after = column[2000:].mean()
    assert np.average(column, weights=found.weight) == pytest.approx(after, abs=0.05)
    assert 0.5 * len(rows) < found.effective < len(rows)
    np.testing.assert_array_equal(found.weight, importance(rows, since, seed=0).weight)  # type: ignore[arg-type]


def test_rows_that_did_not_change_count_about_alike() -> None:
    """Where the features are as before, the weights hardly differ."""
    rows = shifted(by=0.0)
    found = importance(rows, int(rows.time[2000]), seed=0)
    assert found.effective > 0.98 * len(rows)


def test_what_cannot_be_weighed_counts_alike_and_says_why() -> None:
    """Too few rows since, or old ones unlike all new ones so that few would count: all count, and the reason is told."""
    rows = shifted()
    few = importance(rows, int(rows.time[-50]), seed=0)
    assert few.weight is None
    assert few.reason.startswith("all rows count alike: 50 are of the time since the change")
    apart = msgspec.structs.replace(rows, numeric=rows.numeric.copy())
    apart.numeric[:, -1] = np.where(np.arange(4000) < 3800, -3.0, 3.0)
    lost = importance(apart, int(rows.time[3800]), seed=0)
    assert lost.weight is None
    assert "would say as much as" in lost.reason


def test_few_rows_of_many_are_weighed_where_they_are_enough() -> None:
    """A drift after which the old world and the new one hardly overlap is what weights are for."""
    rows = shifted(12_000)
    apart = msgspec.structs.replace(rows, numeric=rows.numeric.copy())
    apart.numeric[:, -1] = np.where(np.arange(12_000) < 11_200, -3.0, 3.0)
    found = importance(apart, int(rows.time[11_200]), seed=0)
    assert found.weight is not None
    assert 500 < found.effective < 1200


def test_a_covariate_drift_weighs_what_is_fitted_and_not_what_judges() -> None:
    """The twin's weights are of what it knows alone; the rows that judge and stop count alike."""
    found = selected(shifted(N), changed(Weighting.IMPORTANCE, row=N // 2))
    assert found.usual.stopping.fitting.importance is not None
    assert found.usual.judging.whole.importance is not None
    assert found.holdout.importance is None
    assert found.remarks[0].startswith("5760 rows are weighted to look like the 3000 since the change")


def test_only_the_dates_that_matter_are_read(tmp_path: Path) -> None:
    """From a log of a year a job as of a moment reads the window, and what was open before it."""
    log = ExampleLog(tmp_path)
    table = examples(400)
    time = START + np.arange(400, dtype=np.int64) * DAY_MS
    log.append(replaced(replaced(table, "time", time), "closes", time + WINDOW), "year")
    as_of = START + 300 * DAY_MS
    begin, end = dataset.span(log, CASE, as_of)
    assert begin == as_of - 4 * DAY_MS - 7 * DAY_MS - DAY_MS  # 7 days: the decision's window
    assert end == as_of + DAY_MS
    begin, end = dataset.span(log, CASE, None)
    assert begin is not None
    assert begin > time[-1] - 13 * DAY_MS
    assert end is None


def test_the_log_is_read_as_the_file_is(tmp_path: Path) -> None:
    """Rows from a log by dates are those that were chosen of all."""
    log = ExampleLog(tmp_path / "log")
    table = examples(4000)
    log.append(table, "all")
    case = usecase.parse(USECASE + "[training]\ntrain = '18h'\nvalidate = '6h'\n")
    found = dataset.read(log.url, case, request(), champion(3000), as_of=None)
    whole = window(read_examples(log.url, SPEC), case.training).whole
    np.testing.assert_array_equal(found.usual.judging.whole.numeric, whole.numeric)
    assert len(whole) == 24 * 60


def test_a_champion_that_does_not_say_what_it_learnt_from_is_refused() -> None:
    """Nothing can be called unseen by it then."""
    manifest = Manifest(usecase="", version="3", created="", metrics={}, buckets=(1,))
    with pytest.raises(
        ExamplesError, match=r"model 3: .* its manifest does not say which these are; train a version"
    ):
        Champion.of(manifest)
    last = {"validation_last": iso(START + 1)}
    known = Champion.of(msgspec.structs.replace(manifest, window=last))
    assert START + 1 < known.end <= START + 1001
