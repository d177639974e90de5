"""The panel: from rows to verdicts, with labels at once or late, through restarts, and back to watching."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.episode import Identity
from detectors.pace import pace_of
from detectors.panel import FIRST, Panel, Policy
from detectors.rows import Rows, concatenate
from detectors.verdict import Action, Kind, Verdict
from tests.worlds import SCHEMA, World, fed, unlabelled

REFERENCE = World().draw(3000, 1)
Offsets = NDArray[np.int64]
POLICY = Policy(threshold=20_000.0, labels=500)
QUIET = 1500  # rows before the change


def panel(policy: Policy = POLICY) -> Panel:
    """A panel around the world's reference."""
    return Panel(Identity("shop", "v1"), SCHEMA, REFERENCE, policy, slices=("plan",))


def after(world: World, rows: int = 2500, quiet: int = QUIET) -> Rows:
    """Rows of the usual world, then of ``world``."""
    return concatenate([World().draw(quiet, 2), world.draw(rows, 3, first=quiet)])


def verdicts(rows: Rows, watched: Panel | None = None) -> list[Verdict]:
    """What a panel says of ``rows`` when labels come at once."""
    return (watched or panel()).observe(*fed(rows))


def test_a_label_shift_is_corrected_without_labels_where_that_is_declared_until_they_tell() -> None:
    """With label_free the fitted prior comes with the first rows; the counted one of the last word takes its place."""
    rows = after(World(prior=0.75), rows=4000)
    declared = msgspec.structs.replace(POLICY, label_free=True)
    for policy, actions in (
        (POLICY, [Action.WAIT, Action.WAIT, Action.CORRECT_PRIOR]),
        (declared, [Action.WAIT, Action.CORRECT_PRIOR, Action.CORRECT_PRIOR]),
    ):
        found = panel(policy).observe(*late(rows, 1000))
        assert [each.response.action for each in found] == actions
        first, last = found[1:]
        assert (first.kind, first.prior_counted) == (Kind.UNDETERMINED, None)
        assert first.prior_fitted is not None
        assert first.prior_fitted.low < 0.75 < first.prior_fitted.high
        assert (last.kind, last.final) == (Kind.LABEL, True)
        assert last.prior_counted is not None


@pytest.mark.parametrize(
    ("world", "kind", "action"),
    [
        (World(shift=0.7), Kind.COVARIATE, Action.KEEP),
        (World(plans=(0.2, 0.3, 0.5)), Kind.COVARIATE, Action.KEEP),
        (World(flag=0.6), Kind.COVARIATE, Action.KEEP),
        (World(prior=0.7), Kind.LABEL, Action.CORRECT_PRIOR),
        (World(turned=1.0), Kind.CONCEPT, Action.RETRAIN),
        (World(shift=1.0, turned=1.0), Kind.MIXED, Action.RETRAIN),
    ],
)
def test_a_drift_is_alarmed_typed_and_answered(world: World, kind: Kind, action: Action) -> None:
    """Numbers, categories, flags and labels: one episode, the right kind, the right response, dated near the change."""
    found = verdicts(after(world))
    last = found[-1]
    assert {each.id for each in found} == {last.id}
    assert (last.kind, last.response.action, last.final) == (kind, action, True)
    assert abs(last.changed - QUIET * 60_000) < 150 * 60_000
    assert last.alarmed >= QUIET * 60_000


def test_a_quiet_world_says_nothing() -> None:
    """No verdict in 8000 rows of the reference's own world."""
    assert verdicts(World().draw(8000, 7)) == []


def test_revisions_count_up_to_the_last_word() -> None:
    """An alarm, what can be told without labels, and the final word; each names window and evidence."""
    alarm, first, last = verdicts(after(World(shift=0.7)))
    assert [each.revision for each in (alarm, first, last)] == [0, 1, 2]
    assert [each.final for each in (alarm, first, last)] == [False, False, True]
    assert alarm.log10_e >= alarm.log10_threshold
    assert alarm.channels[0].column == "a"
    assert (first.window.rows, first.window.labels) == (FIRST, 0)
    assert (last.window.rows, last.window.labels) == (500, 500)
    assert alarm.kind is Kind.UNDETERMINED


def late(rows: Rows, delay: int) -> tuple[Rows, Offsets]:
    """``rows`` as scored decisions, with the label of each ``delay`` rows later."""
    turns = [(n, 0) for n in range(len(rows))] + [(n + delay, 1) for n in range(len(rows) - delay)]
    order = sorted(range(len(turns)), key=lambda k: (turns[k], k))
    both = concatenate([unlabelled(rows), rows[: len(rows) - delay]])
    return both[np.array(order)], np.arange(len(order))


def test_labels_that_come_late_are_waited_for() -> None:
    """The covariate verdict comes at once; labels of decisions from before the alarm do not spoil the final one."""
    found = panel().observe(*late(after(World(shift=0.7), 5000), 2000))
    assert found[1].kind is Kind.COVARIATE
    assert found[1].window.labels == 0
    last = found[-1]
    assert (last.kind, last.final) == (Kind.COVARIATE, True)
    assert last.window.begin >= last.alarmed


def test_a_concept_drift_is_told_once_labels_have_matured() -> None:
    """Nothing shows in the columns: the alarm itself comes from the labels."""
    found = panel().observe(*late(after(World(turned=1.0), 6000), 2000))
    assert (found[-1].kind, found[-1].final) == (Kind.CONCEPT, True)
    assert found[0].channels[0].name.startswith("residual")


def test_alarms_more_frequent_than_labels_do_not_hide_a_concept_drift() -> None:
    """Columns that come and go raise alarm after alarm; the labels gathered meanwhile are not thrown away."""
    usual, other, both = World(), World(shift=0.7), World(shift=0.7, turned=1.0)
    parts = [usual.draw(1500, 1)]
    for k in range(8):
        odd = (other if k % 2 == 0 else usual) if k < 2 else (both if k % 2 == 0 else World(turned=1.0))
        parts.append(odd.draw(1800, 30 + k, first=1500 + 1800 * k))
    found = panel().observe(*late(concatenate(parts), 3000))
    assert len({each.id for each in found}) > 3
    assert any(each.final and each.response.action is Action.RETRAIN for each in found)
    assert not any(each.final and each.response.action is Action.WAIT for each in found)


def test_after_an_episode_the_new_world_is_the_reference() -> None:
    """A drift that stays is told once, and the way back is another drift."""
    there = verdicts(after(World(shift=0.7), 9000))
    assert len({each.id for each in there}) == 1
    rows = concatenate([after(World(shift=0.7), 6000), World().draw(3000, 9, first=7500)])
    back = verdicts(rows)
    assert len({each.id for each in back}) == 2
    assert back[-1].kind is Kind.COVARIATE


def test_a_new_reference_is_taken_only_at_rest() -> None:
    """A drift that goes on for long is told once while it is under way, not again and again."""
    parts = [World(shift=0.7 * min(1.0, k / 12)).draw(250, 20 + k, first=250 * k) for k in range(30)]
    found = verdicts(concatenate(parts))
    assert len({each.id for each in found}) <= 3


def test_a_false_alarm_goes_back_to_the_old_reference() -> None:
    """With a threshold that chance reaches: no change is confirmed, and a drift is found against the model's own reference."""
    nervous = panel(Policy(threshold=100.0, labels=500))
    rows = concatenate([World().draw(3000, 5)[:1150], World(shift=0.7).draw(2000, 6, first=1150)])
    found = verdicts(rows, nervous)
    quiet, drift = (each for each in found if each.final)
    assert (quiet.kind, quiet.response.action) == (Kind.UNDETERMINED, Action.KEEP)
    assert drift.kind is Kind.COVARIATE
    assert drift.prior_before == pytest.approx(REFERENCE.label.mean())


def test_a_second_false_alarm_takes_up_the_new_rows() -> None:
    """What raises an alarm again against one reference is not chance: it is not gone back to for ever."""
    nervous = panel(Policy(threshold=100.0, labels=500))
    found = verdicts(World().draw(3000, 5)[:2250], nervous)
    assert [each.response.action for each in found if each.final] == [Action.KEEP, Action.KEEP]
    references = {name for name, value in nervous.changes().items() if value is not None} - {"state"}
    assert references


def test_a_data_fault_blocks_and_ends() -> None:
    """A column that loses its values is no drift; when they come back, watching goes on with the old reference."""
    rows = concatenate([after(World(missing=1.0), 1500), World().draw(6000, 8, first=3000)])
    found = verdicts(rows)
    fault = next(each for each in found if each.kind is Kind.FAULT)
    assert fault.response.action is Action.BLOCK
    assert ("null-field", "b") in {(each.check, each.column) for each in fault.faults}
    assert found[-1].id == fault.id
    assert found[-1].final


def test_a_fault_that_lasts_is_how_things_are() -> None:
    """A field that is retired for good blocks for a while; then the data without it are what is compared with."""
    rows = concatenate(
        [after(World(missing=1.0), 9000), World(missing=1.0, shift=0.8).draw(2500, 8, first=10_500)]
    )
    found = verdicts(rows)
    first = [each for each in found if each.id == found[0].id]
    assert first[1].response.action is Action.BLOCK
    assert (first[-1].kind, first[-1].final, first[-1].response.action) == (Kind.FAULT, True, Action.KEEP)
    assert len(first) == 3
    assert (found[-1].kind, found[-1].final) == (Kind.COVARIATE, True)


def test_faults_of_time_are_told_from_the_pace_before() -> None:
    """A clock that runs two hours behind is seen against how rows arrived while all was well, even after a restart."""
    rows = after(World(), 1500)
    received = rows.time + 1000
    time = rows.time.copy()
    time[QUIET:] -= 7_200_000
    rows = msgspec.structs.replace(rows, time=time, received=received)
    watched = panel()
    twice, at = fed(rows)
    found = watched.observe(twice[: 2 * QUIET], at[: 2 * QUIET], pace_of(rows[:QUIET]))
    watched = restarted(watched, {})
    newest = int(rows.time[:QUIET].max())
    found += watched.observe(twice[2 * QUIET :], at[2 * QUIET :], pace_of(rows[QUIET:], newest))
    fault = next(each for each in found if each.kind is Kind.FAULT)
    assert "clock-skew" in {each.check for each in fault.faults}


def cut(rows: Rows, at: Offsets, sizes: Sequence[int]) -> list[tuple[Rows, Offsets]]:
    """The rows in batches of ``sizes``, again and again."""
    found, begin, k = [], 0, 0
    while begin < len(rows):
        end = begin + sizes[k % len(sizes)]
        found.append((rows[begin:end], at[begin:end]))
        begin, k = end, k + 1
    return found


DRIFTING = concatenate([after(World(shift=0.7), 3000), World(shift=0.7, prior=0.8).draw(2500, 4, first=4500)])


def test_batches_make_no_difference() -> None:
    """One call, or many of odd sizes: the same verdicts to the letter."""
    whole = verdicts(DRIFTING)
    watched = panel()
    parts = [each for batch in cut(*fed(DRIFTING), (1, 700, 13, 256)) for each in watched.observe(*batch)]
    assert parts == whole
    assert len({each.id for each in whole}) == 2


def restarted(watched: Panel, records: dict[str, bytes]) -> Panel:
    """A new panel that takes up what ``watched`` left in the changelog."""
    for name, value in watched.changes().items():
        if value is None:
            del records[name]
        else:
            records[name] = value
    other = panel()
    other.restore(records)
    return other


def test_restarts_make_no_difference() -> None:
    """A panel that is restored after every batch says what an uninterrupted one says, though rows are given again."""
    rows = msgspec.structs.replace(
        DRIFTING,
        **{
            name: getattr(DRIFTING, name).astype(np.float32).astype(np.float64)
            for name in ("numeric", "score")
        },
    )
    whole = verdicts(rows)
    watched, records, found = panel(), dict[str, bytes](), []
    twice, at = fed(rows)
    for begin in range(0, len(twice), 431):
        again = max(0, begin - 100)
        found += watched.observe(twice[again : begin + 431], at[again : begin + 431])
        watched = restarted(watched, records)
    assert found == whole


def test_the_state_is_small_and_the_changelog_forgets() -> None:
    """The state fits its bound at every moment, and rows of an episode that is over are deleted."""
    watched, records = panel(), dict[str, bytes]()
    for batch in cut(*fed(after(World(shift=0.7), 9000)), (500,)):
        watched.observe(*batch)
        for name, value in watched.changes().items():
            if value is None:
                del records[name]
            else:
                records[name] = value
        assert len(records["state"]) <= 64 * 1024
    held = sum(len(value) for name, value in records.items() if name != "state")
    assert held < 2 * 1000 * 100  # two references of 1000 rows


def test_a_restore_of_nothing_is_a_new_panel() -> None:
    """An empty changelog changes nothing, and rows without the state that names them are let go."""
    watched = panel()
    watched.restore({"0": b"rows of a run that was cut off"})
    assert watched.offset == -1
    assert watched.changes()["0"] is None


def test_the_status_follows_the_episode() -> None:
    """Watching, diagnosing, settling, watching."""
    watched = panel()
    seen: list[str] = []
    for batch in cut(*fed(after(World(shift=0.7), 4000)), (50,)):
        watched.observe(*batch)
        state = watched.status().state
        if not seen or seen[-1] != state:
            seen.append(state)
    assert seen == ["watching", "diagnosing", "settling", "watching"]


def recurring() -> Rows:
    """The usual world, a spell of another, the usual world, and the other again."""
    other = World(shift=0.7)
    return concatenate(
        [
            World().draw(1500, 2),
            other.draw(4000, 3, first=1500),
            World().draw(4000, 4, first=5500),
            other.draw(2000, 5, first=9500),
        ]
    )


def gradual() -> Rows:
    """From row 1500 on, ever more rows of another world, until 3500."""
    usual, other = World().draw(5000, 2), World(shift=0.9).draw(5000, 3)
    share = np.clip((np.arange(5000) - 1500) / 2000, 0, 1)
    new = np.random.default_rng(0).random(5000) < share
    return Rows(
        *(
            np.where(
                new.reshape(-1, *[1] * (getattr(usual, name).ndim - 1)),
                getattr(other, name),
                getattr(usual, name),
            )
            for name in Rows.__struct_fields__
        )
    )


@pytest.mark.parametrize(
    ("stream", "alarms"),
    [(lambda: after(World(shift=0.7)), [1571]), (gradual, [2226]), (recurring, [1571, 5610, 9586])],
    ids=["sudden", "gradual", "recurring"],
)
def test_alarms_come_where_they_always_did(stream: object, alarms: list[int]) -> None:
    """The rows at which seeded sudden, gradual and recurring drifts are alarmed are fixed, so that any change shows."""
    assert callable(stream)
    assert [each.alarmed // 60_000 for each in verdicts(stream()) if each.revision == 0] == alarms
